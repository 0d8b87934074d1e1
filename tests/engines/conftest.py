"""A tiny model with random weights, a workload, and raw folders made by real engines, each once a session."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kvlab.config.run import parse
from kvlab.measure.engines import environment
from kvlab.measure.job import Job
from kvlab.measure.run import measure
from kvlab.records import Request, Run, read_run, write_lines
from tests.conftest import CACHES

# As each job on a CPU has it. torch reads it once, when it is imported, and tests import it before their first job.
os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")

LENGTH = 128  # max_model_len
SLOTS = 4 * LENGTH
SMALL = LENGTH + 32  # a pool in which requests that run together must be preempted
CUT = 3
SHAPE = {  # vLLM's CPU kernels want a head size of at least 32
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 512,
    "max_position_embeddings": 256,
}


def section(arm: str, kv_slots: int = SLOTS, cut: int | None = None, **measured: Any) -> dict[str, Any]:
    """A measure job's section, from a real configuration."""
    requests = {"kind": "azure-conv", "sequential_requests": cut}
    workload = {"requests": requests, "arms": [arm], "kv_slots": kv_slots, "max_model_len": LENGTH}
    measured = {"device": "cpu", "threads": 1} | measured
    return parse({"run": "t", "workloads": {"w": workload}, "measure": measured}, "test").section("measure", "w", arm)


@pytest.fixture(scope="package")
def outside() -> dict[str, str]:
    """The environment before any engine ran in this process."""
    return dict(os.environ)


@pytest.fixture(scope="package", autouse=True)
def _environment_put_back(outside: dict[str, str]) -> Iterator[None]:
    yield
    os.environ.clear()
    os.environ.update(outside)


@pytest.fixture(autouse=True)
def _own_environment(outside: dict[str, str]) -> None:
    """Each test starts with it: an engine that another test drove, or a shared run, has left nothing there."""
    os.environ.clear()
    os.environ.update({"OMP_NUM_THREADS": "1"} | outside)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers; wide weights keep tokens apart."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(**SHAPE, initializer_range=0.3, tie_word_embeddings=False)
    folder = tmp_path_factory.mktemp("tiny") / "model"
    LlamaForCausalLM(config).save_pretrained(folder)
    (folder / "fingerprint.json").write_text(json.dumps({"sha256": "cd" * 32}))
    return folder


@pytest.fixture(scope="session")
def requests() -> list[Request]:
    """Ten requests: one of a single output token, one that fills max_model_len, lengths around block boundaries."""
    draw = random.Random(1)
    lengths = [(16, 33), (17, 1), (15, 32), (3, 48), (LENGTH - 48, 48), (31, 17), (40, 2), (1, 60), (33, 30), (48, 16)]
    return [Request(id, [draw.randrange(512) for _ in range(prompt)], new) for id, (prompt, new) in enumerate(lengths)]


@pytest.fixture(scope="session")
def workload(tmp_path_factory: pytest.TempPathFactory, requests: list[Request]) -> Path:
    file = tmp_path_factory.mktemp("workloads") / "w.jsonl"
    write_lines(file, requests)
    return file


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory, model: Path, workload: Path) -> Callable[..., tuple[Run, Path]]:
    """Runs an arm, once for each way of asking; returns its run.json and raw folder."""
    done: dict[str, Path] = {}

    def run(arm: str, **asked: Any) -> tuple[Run, Path]:
        key = f"{arm} {asked}"
        if key not in done:
            folder = tmp_path_factory.mktemp("raw") / "w" / arm / "0"
            measure(
                section(arm, **asked),
                workload="w",
                arm=arm,
                repeat=0,
                requests_file=workload,
                model=model,
                folder=folder,
            )
            done[key] = folder
        return read_run(done[key]), done[key]

    return run


CHILD = """
import json, sys
from pathlib import Path
from kvlab.measure.run import measure
if __name__ == "__main__":  # vLLM's core may be spawned, and imports this file
    section, arm, model, requests, folder = sys.argv[1:]
    measure(json.loads(section), workload="w", arm=arm, repeat=0, requests_file=Path(requests),
            model=Path(model), folder=Path(folder))
"""


@pytest.fixture
def measured_apart(tmp_path: Path, model: Path, workload: Path) -> Callable[..., tuple[Run, Path, str]]:
    """Runs an arm in a process of its own, as the command line does; returns its run.json, raw folder and stderr."""
    import kvlab

    def run(arm: str, variables: dict[str, str] | None = None, **asked: Any) -> tuple[Run, Path, str]:
        folder = tmp_path / f"raw {len(list(tmp_path.iterdir()))}" / "0"
        script = tmp_path / "child.py"
        script.write_text(CHILD)
        ours = ("VLLM_", "KVLAB_", "TORCH_COMPILE_DISABLE", "CUDA_VISIBLE_DEVICES")  # set by what ran here before
        environment = {name: value for name, value in os.environ.items() if name in CACHES or not name.startswith(ours)}
        path = [str(Path(kvlab.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment |= {"PYTHONPATH": os.pathsep.join(path)} | (variables or {})
        command = [sys.executable, str(script), json.dumps(section(arm, **asked)), arm, str(model), str(workload)]
        done = subprocess.run(
            [*command, str(folder)], env=environment, capture_output=True, text=True, timeout=400, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return read_run(folder), folder, done.stderr

    return run


@pytest.fixture
def job(tmp_path: Path, model: Path) -> Callable[..., Job]:
    """A job for an engine that a test drives itself."""

    def make(arm: str, kv_slots: int = SLOTS, **measured: Any) -> Job:
        of = section(arm, kv_slots, **measured)
        entry, settings = of["arm"], of["settings"]
        made = Job(
            arm=arm,
            feed=entry["feed"],
            options=entry["options"],
            settings=settings["engine"],
            model=model,
            device="cpu",
            gpus=0,
            dtype="float32",
            threads=1,
            kv_slots=kv_slots,
            max_model_len=LENGTH,
            record_steps=settings["record_steps"],
            scratch=tmp_path,
        )
        environment.prepare(made)
        return made

    return make
