"""Which processes a benchmark starts, and when. No engine is started here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def sides(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import sides

    yield sides
    sys.modules.pop("sides", None)


@pytest.fixture
def workers(sides, monkeypatch):
    """Workers that only say when they begin and end; a second one beside another is a fault."""
    log: list[str] = []
    alive: list[list[str]] = []

    class Worker:
        def __init__(self, names):
            assert not alive, f"{names} was started while {alive} runs: one GPU does not hold two engines"
            alive.append(names)
            log.append("start " + "|".join(names))

        def round(self, name):
            log.append(name)
            return 1.0, 1.0, 100

        def close(self):
            alive.clear()
            log.append("end")

    monkeypatch.setattr(sides, "Worker", Worker)
    return log


def test_two_processes_never_run_at_the_same_time(sides, workers, capsys):
    assert sides.compare("ours", "theirs", 3, 0.9, together=False, on_cpu=False)
    assert workers == [
        *("start ours", "ours", "ours", "end"),
        *("start theirs", "theirs", "theirs", "theirs", "end"),
        *("start ours", "ours", "end"),
    ]
    assert "1.0000 (1.0000 to 1.0000, 3 rounds)" in capsys.readouterr().out


def test_one_process_plays_both_sides_and_who_begins_changes(sides, workers):
    sides.compare("ours", "theirs", 2, 0.9, together=True, on_cpu=False)
    assert workers == ["start ours|theirs", "ours", "theirs", "theirs", "ours", "end"]


def test_the_recorder_is_switched_in_one_engine(sides, workers, monkeypatch):
    import recorder_cost

    monkeypatch.setattr(sys, "argv", ["recorder_cost.py", "--rounds", "1", "--device", "cpu"])
    recorder_cost.main()
    assert workers[0] == "start with the recorder|without"
    sys.modules.pop("recorder_cost", None)


def test_the_options_of_vllm_reach_its_settings(sides, tmp_path, monkeypatch):
    monkeypatch.setattr(sides.tempfile, "tempdir", str(tmp_path))
    options = ["--dummy", "--dtype", "bfloat16", "--max-num-seqs", "9", "--max-num-batched-tokens", "321"]
    args = sides.parser("").parse_args(options)
    job = sides.job(args, "vllm-paged")
    settings = job.settings
    assert (settings["load_format"], settings["max_num_seqs"], settings["max_num_batched_tokens"]) == ("dummy", 9, 321)
    assert not list(job.model.glob("*.safetensors"))
    assert sides.job(sides.parser("").parse_args([]), "vllm-paged").settings["load_format"] == "auto"


def test_the_log_of_the_benchmarks_of_large_runs_is_one_that_analyse_takes(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import analysis

    from kvlab.raw import foreign

    analysis.write_log(tmp_path, 50)
    assert foreign(tmp_path, analysis.SECTION["raw"]) == []
    sys.modules.pop("analysis", None)
