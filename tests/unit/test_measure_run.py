"""A measurement's input, what can't run, and what a killed run leaves. No engine is started here."""

from __future__ import annotations

import json

import pytest

from kvlab.config.run import parse
from kvlab.errors import ConfigError, KvlabError
from kvlab.measure.passes import Pass, Planned
from kvlab.measure.run import measure
from kvlab.records import PREEMPTIONS, RAW_FILES, Request, Run, read_run, write_lines


@pytest.fixture
def job(tmp_path):
    """Arguments of `measure`, but the section."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "fingerprint.json").write_text(json.dumps({"sha256": "ab" * 32}))
    write_lines(tmp_path / "w.jsonl", [Request(id, [1, 2, 3], 5) for id in range(6)])
    return {
        "workload": "w",
        "arm": "hf-sequential-static",
        "repeat": 3,
        "requests_file": tmp_path / "w.jsonl",
        "model": model,
        "folder": tmp_path / "raw" / "w" / "hf-sequential-static" / "3",
    }


def section(arm="hf-sequential-static", cut=None, cut_arms=(), **measured):
    requests = {"kind": "azure-conv", "sequential_requests": cut}
    workload = {"requests": requests, "arms": [arm], "kv_slots": 64, "max_model_len": 16, "cut_arms": list(cut_arms)}
    return parse({"run": "t", "workloads": {"w": workload}, "measure": measured}, "test").section("measure", "w", arm)


def test_an_arm_that_cannot_run_here_is_recorded_with_its_reason(job, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    run = measure(section(device="cuda"), **job)
    assert run == read_run(job["folder"])
    assert run.status == "not_run"
    assert "no NVIDIA GPU" in run.reason
    assert run.why == {"key": "no-gpu", "values": {}}
    assert (run.arm, run.repeat, run.kv_slots_asked, run.parts) == ("hf-sequential-static", 3, 64, [])
    assert run.model_fingerprint == "ab" * 32
    assert sorted(path.name for path in job["folder"].iterdir()) == sorted([*RAW_FILES, PREEMPTIONS])
    assert all((job["folder"] / name).read_text() == "" for name in RAW_FILES if name != "run.json")


def test_what_a_killed_run_left_is_cleared_away(job, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    left = job["folder"].parent / ".3.abc123"
    left.mkdir(parents=True)
    (left / "steps.jsonl").write_text("half")
    other = job["folder"].parent / ".30.abc123"
    other.mkdir()
    measure(section(device="cuda"), **job)
    assert not left.exists()
    assert other.exists()


def test_an_unknown_engine_is_a_fault_and_leaves_nothing(job):
    wanted = section()
    wanted["arm"]["engine"] = "sglang"
    with pytest.raises(ConfigError, match=r"no engine 'sglang'.*engines/sglang/driver\.py"):
        measure(wanted, **job)
    assert list(job["folder"].parent.iterdir()) == []


@pytest.mark.parametrize(
    ("requests", "said"),
    [
        ([], "no requests"),
        ([Request(0, [1] * 12, 5)], r"request 0 has 12 prompt and 5 output tokens.*max_model_len 16"),
        ([Request(4, [], 5)], "request 4 has 0 prompt"),
        ([Request(0, [1], 0)], "0 output tokens"),
        ([Request(0, [1], 1), Request(0, [2], 1)], "same id"),
    ],
)
def test_a_workload_that_cannot_be_served_is_a_fault(job, requests, said):
    write_lines(job["requests_file"], requests)
    with pytest.raises(KvlabError, match=said):
        measure(section(), **job)
    assert not job["folder"].parent.exists()


def test_a_model_without_a_fingerprint_is_a_fault(job):
    (job["model"] / "fingerprint.json").unlink()
    with pytest.raises(KvlabError, match=r"no fingerprint.*kvlab model"):
        measure(section(), **job)


@pytest.mark.parametrize(
    ("arm", "cut", "slow", "parts"),
    [
        ("hf-sequential-static", None, [], {"all": 6}),
        ("hf-sequential-static", 2, [], {"cut": 2}),
        ("vllm-sequential", 2, [], {"cut": 2}),
        ("vllm-paged", 2, [], {"cut": 2, "all": 6}),
        ("hf-continuous", None, [], {"all": 6}),
        ("hf-continuous", 2, ["hf-continuous"], {"cut": 2}),
        ("vllm-paged", 6, [], {"all": 6}),
    ],
)
def test_both_sides_of_a_ratio_serve_the_same_requests(tmp_path, arm, cut, slow, parts):
    requests = [Request(id, [1], 1) for id in range(6)]
    cell = Planned(section(arm, cut, slow), "w", arm, 0, tmp_path)
    found = Pass(cell, Run("w", arm, 0, "failed"), requests).parts()
    assert {part: len(served) for part, served in found.items()} == parts
    assert all(served == requests[: len(served)] for served in found.values())
