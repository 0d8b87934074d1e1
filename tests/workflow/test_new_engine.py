"""An engine that is added in a copy of the project has its rule, its settings and its place on the page.

And a process measures what is missing: another arm costs that arm alone.
"""

from __future__ import annotations

import json
import shutil
import textwrap

import pytest

from .conftest import CONFIG as TINY
from .conftest import Project, copy_project

pytestmark = pytest.mark.engine

SETTINGS = '''
"""A loop over transformers: its part of the configuration."""
from typing import ClassVar

from pydantic import Field

from kvlab.measure.engines.registry import EngineSettings


class LoopSettings(EngineSettings):
    """The loop's own settings."""

    label: ClassVar[str] = "a loop"
    pause_ms: float = Field(default=0.0, ge=0, description="Pause after each token, milliseconds.")


SETTINGS = LoopSettings
'''

DRIVER = '''
"""A loop over transformers: a token a turn, one request at a time, the library's cache that grows."""
import time

from kvlab.measure.engines import environment
from kvlab.measure.job import EngineFacts
from kvlab.measure.journal import now_ns


class Loop:
    compile_s = 0.0
    gpus = 1

    def __init__(self, job):
        self.job, self.slots, self.most = job, job.max_model_len, 0

    def load(self):
        environment.prepare(self.job)
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(self.job.threads)
        self.model = AutoModelForCausalLM.from_pretrained(self.job.model, dtype=torch.float32).eval()

    def serve(self, requests, journal, feed):
        import torch
        from transformers import DynamicCache

        for request in requests:
            journal.arrive([request.id], now_ns())
            cache, ids = DynamicCache(config=self.model.config), request.prompt_token_ids
            for number in range(1, request.max_new_tokens + 1):
                began = now_ns()
                with torch.no_grad():
                    made = self.model(torch.tensor([ids]), past_key_values=cache, use_cache=True)
                ids = [int(made.logits[0, -1].argmax())]
                held = cache.get_seq_length()
                self.most, self.cache = max(self.most, held), cache
                journal.tokens(request.id, ids, now_ns())
                journal.step(began, 1, 0, 0, held, [[request.id, held, held]])
                time.sleep(self.job.settings["pause_ms"] / 1000)
            journal.finish(request.id, "length", now_ns())
            journal.step(now_ns(), 0, 0, 0, 0, [])

    def facts(self):
        keys = self.cache.layers[0].keys
        slot = 2 * len(self.cache.layers) * keys.shape[1] * keys.shape[3] * keys.element_size()
        return EngineFacts(
            engine={"name": "loop", "version": "1"}, pool_slots=self.most, block_size=1, max_num_seqs=1,
            kv_bytes_per_slot=slot, kv_pool_bytes=self.most * slot,
        )

    def compile(self): ...
    def check(self, requests, feed): ...
    def collect(self, journal): ...
    def settle(self): ...
    def close(self): ...


def engine(job):
    return Loop(job)
'''

CONFIG = """
run: tiny
model: random:tiny
workloads:
  words:
    requests: { kind: prompts, prompts: ["Hello!", "How are you?"], max_new_tokens: 8 }
    arms: [hf-sequential-dynamic, loop]
    kv_slots: 512
    max_model_len: 256
    repeats: 1
measure: { loop: { pause_ms: 1 } }
"""


def test_an_engine_that_is_added_runs_through_the_whole_dag(tmp_path):
    """Its folder, an entry among the arms, and nothing else."""
    project = copy_project(tmp_path)
    package = project.root / "workflow" / "kvlab"
    folder = package / "measure" / "engines" / "loop"
    folder.mkdir()
    (folder / "__init__.py").write_text('"""A loop."""\n')
    (folder / "settings.py").write_text(textwrap.dedent(SETTINGS))
    (folder / "driver.py").write_text(textwrap.dedent(DRIVER))
    with (package / "arms.py").open("a") as arms:
        arms.write('\nARMS["loop"] = Arm("loop", engine="loop", feed="sequential", changes="a loop of our own")\n')
    (project.root / "loop.yaml").write_text(CONFIG)
    listed = set(project.snakemake("--list", config="loop.yaml").stdout.split())
    assert {"probe", "model", "workload", "measure_transformers", "measure_vllm", "measure_loop", "analyse"} <= listed
    done = project.snakemake(config="loop.yaml")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-4000:]
    run = json.loads((project.run / "raw/words/loop/0/run.json").read_text())
    assert run["status"] == "completed"
    assert run["settings"]["settings"]["engine"] == {"pause_ms": 1.0}
    ours, theirs = (project.run / "raw/words" / arm / "0/outputs.jsonl" for arm in ("loop", "hf-sequential-dynamic"))
    assert ours.read_text() == theirs.read_text()
    assert json.loads((project.run / "verify.json").read_text())["outcome"] == "pass"
    assert 'data-q="words.loop.throughput"' in (project.run / "report.html").read_text()
    # its own code is its own rule's input
    driver = folder / "driver.py"
    driver.write_text(driver.read_text() + "\n# edited\n")
    done = project.snakemake("-n", config="loop.yaml")
    assert "rule measure_loop:" in done.stdout + done.stderr
    assert "rule measure_transformers:" not in done.stdout + done.stderr


def test_another_arm_measures_that_arm_alone(project, tmp_path):
    copy = Project(shutil.copytree(project.root, tmp_path / "copy", symlinks=True))
    settings = copy.root / TINY
    settings.write_text(
        settings.read_text().replace("vllm-sequential, vllm-paged]", "vllm-sequential, vllm-contiguous, vllm-paged]")
    )
    before = {file: file.read_bytes() for file in copy.run.glob("raw/words/vllm-*/0/*")}
    due = copy.due()
    assert due["measure"] == {"words/vllm/0"}
    done = copy.snakemake("results/tiny/processes/words/vllm/0.json")
    assert done.returncode == 0, done.stderr[-3000:]
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("measure words")]
    assert sorted(line.split()[2] for line in said if line.endswith("measured before")) == [
        "vllm-paged",
        "vllm-sequential",
    ]
    assert sorted(line.split()[2] for line in said if "tokens/s" in line) == ["vllm-contiguous"]
    assert {file: file.read_bytes() for file in before} == before
    assert (copy.run / "raw/words/vllm-contiguous/0/run.json").exists()
