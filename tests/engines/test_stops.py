"""Arms that can't run here, arms that take too long, engines that fail, and runs that are killed."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from kvlab.analyse.bounds import StoppedRun
from kvlab.analyse.guards import run_faults
from kvlab.errors import KvlabError, NotRunnable
from kvlab.measure import run as stage
from kvlab.measure.engines import open_engine
from kvlab.measure.journal import now_ns
from kvlab.measure.run import measure
from kvlab.raw import RawRun
from kvlab.records import RAW_FILES, Request, Served, Step, read_lines, read_run, write_lines

from .conftest import SHAPE, section

pytestmark = pytest.mark.engine


def test_an_arm_that_would_be_another_one_again_is_not_run(measured):
    run, folder = measured("vllm-paged-eager")
    assert run.status == "not_run"
    assert "no CUDA graphs" in run.reason
    assert all((folder / name).read_text() == "" for name in RAW_FILES if name != "run.json")


def test_a_pool_that_does_not_fit_is_recorded(measured):
    run, _ = measured("vllm-paged", kv_slots=100_000_000)
    assert run.status == "not_run"
    assert re.search(r"out of memory: weights .* 100000000 slots", run.reason)


@pytest.mark.parametrize(("arm", "name"), [("vllm-paged", "vllm"), ("hf-continuous", "transformers")])
def test_an_engine_that_runs_out_of_memory_says_so(job, arm, name):
    """Past the check before it, on a machine where memory went in the meantime."""
    engine = open_engine(name, job(arm, kv_slots=100_000_000))
    with pytest.raises(NotRunnable, match="out of memory"):
        engine.load()
    engine.close()


@pytest.fixture
def long(tmp_path) -> Path:
    """A workload of a minute."""
    file = tmp_path / "long.jsonl"
    write_lines(file, [Request(id, [id % 500, 1, 2], 120) for id in range(400)])
    return file


@pytest.mark.parametrize("arm", ["hf-sequential-static", "hf-continuous", "vllm-sequential"])
def test_an_arm_that_takes_too_long_is_stopped_and_recorded(arm, model, long, tmp_path, monkeypatch):
    budgets = iter([600, 3])  # seconds, to load and to measure: loading takes as long as the machine is busy
    monkeypatch.setattr(stage._Process, "_deadline", lambda self, begin_ns: now_ns() + int(next(budgets) * 1e9))
    asked, folder = section(arm), tmp_path / "raw" / "0"
    run = measure(asked, workload="w", arm=arm, repeat=0, requests_file=long, model=model, folder=folder)
    assert (run.status, run.stopped, run.parts) == ("stopped", "all", ["all"])
    assert "time budget" in run.reason
    served = read_lines(folder / "requests.jsonl", Served)
    unfinished = [one for one in served if one.finish_s is None]
    assert len(served) == 400
    assert unfinished
    assert all(one.asked_tokens == 120 and one.output_tokens < 120 for one in unfinished)
    assert len(read_lines(folder / "steps.jsonl", Step)) > 10
    raw = StoppedRun.of_run(RawRun.at(folder, tmp_path))
    assert run_faults(raw) == []
    assert raw.throughput <= 400 * 120 / 2.9  # the budget began a moment before the first request


@pytest.mark.parametrize("arm", ["hf-sequential-dynamic", "vllm-paged"])
def test_what_an_engine_refuses_while_it_loads_is_the_arms_reason(arm, model, workload, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"intermediate_size": 300}))
    folder = tmp_path / "raw" / "0"
    run = measure(section(arm), workload="w", arm=arm, repeat=0, requests_file=workload, model=broken, folder=folder)
    assert run.status == "not_run"
    assert re.search(r"^(vLLM|transformers): .*(size|shape)", run.reason)
    assert read_run(folder) == run


def test_a_head_size_that_vllm_has_no_kernel_for_is_its_reason(workload, tmp_path):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(**SHAPE | {"head_dim": 16, "hidden_size": 64})
    LlamaForCausalLM(config).save_pretrained(tmp_path / "small")
    (tmp_path / "small" / "fingerprint.json").write_text(json.dumps({"sha256": "ef" * 32}))
    run = measure(
        section("vllm-paged"),
        workload="w",
        arm="vllm-paged",
        repeat=0,
        requests_file=workload,
        model=tmp_path / "small",
        folder=tmp_path / "raw" / "0",
    )
    assert run.status == "not_run"
    assert re.search(r"vLLM: .*head", run.reason), run.reason


def test_an_error_in_this_projects_code_is_no_refusal(model, workload, tmp_path, monkeypatch):
    from kvlab.measure.engines.vllm import recorder

    def broken(self):
        raise AttributeError("a fault of kvlab")

    monkeypatch.setattr(recorder.Recording, "write_pool", broken)
    folder = tmp_path / "raw" / "0"
    with pytest.raises(AttributeError, match="a fault of kvlab"):
        measure(
            section("vllm-paged"),
            workload="w",
            arm="vllm-paged",
            repeat=0,
            requests_file=workload,
            model=model,
            folder=folder,
        )
    assert list(folder.parent.iterdir()) == []


def test_a_measurement_leaves_the_environment_of_its_process_as_it_was(model, workload, tmp_path):
    before, path = dict(os.environ), list(sys.path)
    for arm in ("hf-sequential-dynamic", "vllm-paged"):
        measure(
            section(arm, 512),
            workload="w",
            arm=arm,
            repeat=0,
            requests_file=workload,
            model=model,
            folder=tmp_path / arm / "0",
        )
        assert dict(os.environ) == before
    assert sys.path == path


@pytest.mark.parametrize("arm", ["hf-sequential-static", "hf-sequential-dynamic", "hf-continuous", "vllm-paged"])
def test_a_model_with_a_sliding_window_is_refused(arm, workload, tmp_path):
    """Its layers hold no more than the window: one slot would not be one token in all layers."""
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    config = MistralConfig(**SHAPE, sliding_window=32)
    MistralForCausalLM(config).save_pretrained(tmp_path / "mistral")
    (tmp_path / "mistral" / "fingerprint.json").write_text(json.dumps({"sha256": "ef" * 32}))
    folder = tmp_path / "raw" / "0"
    with pytest.raises(
        KvlabError, match=r"full attention; this one's KV cache has .*Sliding.*; choose another"
    ) as caught:
        measure(
            section(arm),
            workload="w",
            arm=arm,
            repeat=0,
            requests_file=workload,
            model=tmp_path / "mistral",
            folder=folder,
        )
    assert not isinstance(caught.value, NotRunnable)
    assert not folder.exists()


def test_a_killed_run_leaves_nothing_that_looks_finished(model, long, workload, tmp_path):
    import kvlab

    run = tmp_path / "results"
    folder = run / "raw" / "w" / "hf-sequential-dynamic" / "0"
    (run / "workloads").mkdir(parents=True)
    shutil.copy(long, run / "workloads" / "w.jsonl")
    (run / "model").symlink_to(model)
    requests = {"kind": "azure-conv"}
    comparison = {"requests": requests, "arms": ["hf-sequential-dynamic"], "kv_slots": 512, "max_model_len": 128}
    measured = {"device": "cpu", "threads": 1}
    (run / "config.json").write_text(json.dumps({"run": "t", "workloads": {"w": comparison}, "measure": measured}))
    command = [sys.executable, "-m", "kvlab", "measure", str(run), "w", "hf-sequential-dynamic", "0"]
    environment = os.environ | {"PYTHONPATH": str(Path(kvlab.__file__).parents[1])}

    screen, terminal = pty.openpty()
    process = subprocess.Popen(command, env=environment, stderr=terminal, stdout=subprocess.DEVNULL)
    os.close(terminal)
    seen = ""
    while not re.search(r"#0: [2-9]/400 requests, \d+ tokens", seen):  # half-way, by its progress line
        seen += os.read(screen, 4096).decode()
    sampler = [
        child for child in psutil.Process(process.pid).children(recursive=True) if "monitor" in str(child.cmdline())
    ]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    os.close(screen)
    assert len(sampler) == 1
    psutil.wait_procs(sampler, timeout=5)
    assert not sampler[0].is_running()
    assert not folder.exists()
    assert [path.name[:3] for path in folder.parent.iterdir()] == [".0."]

    shutil.copy(workload, run / "workloads" / "w.jsonl")
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 0, again.stderr[-2000:]
    assert read_run(folder).status == "completed"
    assert [path.name for path in folder.parent.iterdir()] == ["0"]
    lines = again.stderr.strip().splitlines()
    assert len(lines) == 1  # no progress line where standard error is no terminal
    assert lines[0].startswith("measure w hf-sequential-dynamic #0: 10 requests, ")
