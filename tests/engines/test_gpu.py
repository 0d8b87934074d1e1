"""What only a GPU has: compilation, CUDA graphs, asynchronous scheduling, NVML, torch's peaks."""

from __future__ import annotations

import itertools
import statistics
from pathlib import Path

import pytest

from kvlab.errors import KvlabError
from kvlab.measure import machine
from kvlab.measure.run import measure
from kvlab.records import Output, Phase, Sample, Step, read_lines

from .conftest import LENGTH, SLOTS, SMALL, section

pytestmark = [
    pytest.mark.engine,
    pytest.mark.gpu,
    pytest.mark.skipif(not machine.gpu_indices(), reason="no NVIDIA GPU answers"),
]
ON = {"device": "cuda", "dtype": "bfloat16", "threads": None}


def steps_of(folder: Path) -> list[Step]:
    return read_lines(folder / "steps.jsonl", Step)


def tokens_of(folder: Path) -> dict[int, list[int]]:
    return {output.id: output.token_ids for output in read_lines(folder / "outputs.jsonl", Output)}


def admissions(steps: list[Step]) -> list[int]:
    """Requests in the order in which they first hold cache."""
    seen: dict[int, None] = {}
    for step in steps:
        for id, _, _ in step.held:
            seen.setdefault(id)
    return list(seen)


def adds_up(run, steps, requests):
    for step in steps:
        slots = sum(held[2] for held in step.held)
        assert step.blocks * run.block_size == slots <= run.pool_slots
        assert all(tokens <= allocated for _, tokens, allocated in step.held)
    last = {id: tokens for step in steps for id, tokens, _ in step.held}
    assert last == {r.id: len(r.prompt_token_ids) + r.max_new_tokens - 1 for r in requests}


def test_vllm_as_it_comes_schedules_asynchronously_and_is_recorded_as_such(measured_apart, requests):
    run, folder, _ = measured_apart("vllm-paged", **ON)
    assert run.status == "completed", run.reason
    assert run.engine["async_scheduling"] is True
    assert run.engine["compiled"] is True
    assert run.engine["cuda_graphs"] != "NONE"
    assert run.engine["core"] == "own process"
    assert run.pool_slots == SLOTS
    assert run.kv_pool_bytes == (SLOTS + 16) * 2 * 2 * 2 * 32 * 2
    assert run.torch_reserved_peak_bytes >= run.torch_allocated_peak_bytes > run.weights_bytes + run.kv_pool_bytes
    adds_up(run, steps_of(folder), requests)


def test_asynchronous_and_synchronous_scheduling_admit_in_the_same_order(measured_apart, requests):
    both = {}
    for asynchronous in (True, False):
        run, folder, _ = measured_apart(
            "vllm-paged", kv_slots=SMALL, **ON | {"vllm": {"async_scheduling": asynchronous}}
        )
        assert run.engine["async_scheduling"] is asynchronous
        both[asynchronous] = steps_of(folder)
        adds_up(run, both[asynchronous], requests)
    assert admissions(both[True]) == admissions(both[False])
    assert sum(step.preempted for step in both[True]) > 0


def test_eager_is_another_arm_where_there_are_cuda_graphs(measured_apart, requests):
    run, folder, _ = measured_apart("vllm-paged-eager", **ON)
    assert run.status == "completed", run.reason
    assert (run.engine["compiled"], run.engine["cuda_graphs"]) == (False, "NONE")
    adds_up(run, steps_of(folder), requests)


def test_generate_compiles_the_decode_step_of_a_static_cache_before_the_clock_starts(measured_apart):
    static, folder, _ = measured_apart("hf-sequential-static", **ON | {"dtype": "float32"})
    dynamic, plain, _ = measured_apart("hf-sequential-dynamic", **ON | {"dtype": "float32"})
    assert (static.engine["compiled"], dynamic.engine["compiled"]) == (True, False)
    assert static.pool_slots == LENGTH
    phases = {phase.phase: phase.end_s - phase.start_s for phase in read_lines(folder / "phases.jsonl", Phase)}
    assert phases["compile"] > 1
    assert tokens_of(folder) == tokens_of(plain)
    times = [step.t_s for step in steps_of(folder)]
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert max(gaps) < 1 + 100 * statistics.median(gaps)  # no step of the measured phase compiles anything


def test_padded_batches_compile_once_for_all_their_sizes(measured_apart, requests):
    run, folder, _ = measured_apart("hf-batch-static", **ON | {"dtype": "float32"})
    _reference, plain, _ = measured_apart("hf-sequential-dynamic", **ON | {"dtype": "float32"})
    assert run.engine["compiled"] is True
    assert run.max_num_seqs == SLOTS // LENGTH
    assert tokens_of(folder) == tokens_of(plain)
    (phase,) = [p for p in read_lines(folder / "phases.jsonl", Phase) if p.phase == "measure"]
    assert phase.end_s - phase.start_s < 10


@pytest.mark.parametrize(
    ("own", "slots", "attention", "page"),
    [({"continuous_attention": "sdpa", "block_size": 16}, SMALL, "sdpa", 16), ({}, 2560, "flash", 256)],
)
def test_continuous_batching_runs_over_pages(measured_apart, requests, own, slots, attention, page):
    run, folder, _ = measured_apart("hf-continuous", kv_slots=slots, transformers=own, **ON)
    assert run.status == "completed", run.reason
    assert attention in run.engine["attention"]
    assert (run.block_size, any(run.engine["cuda_graphs"])) == (page, attention == "flash")
    adds_up(run, steps_of(folder), requests)


def test_the_device_is_sampled_from_outside(measured_apart):
    run, folder, _ = measured_apart("hf-sequential-static", **ON)
    samples = read_lines(folder / "device.jsonl", Sample)
    assert run.sampler["source"] == "nvml"
    assert run.device_total_bytes > 4 << 30
    assert run.idle_device_bytes == samples[0].used_bytes
    assert max(s.used_bytes for s in samples) > run.idle_device_bytes + run.torch_reserved_peak_bytes * 0.9
    assert any(s.utilisation for s in samples)
    assert all(s.sm_clock_mhz and s.temperature_c for s in samples)


def test_more_gpus_than_there_are_names_both_numbers(model, workload, tmp_path):
    there = len(machine.gpu_indices())
    asked = section("vllm-paged", **ON | {"vllm": {"tensor_parallel_size": there + 1}})
    with pytest.raises(KvlabError, match=f"needs {there + 1} GPUs; this machine has {there}"):
        measure(
            asked,
            workload="w",
            arm="vllm-paged",
            repeat=0,
            requests_file=workload,
            model=model,
            folder=tmp_path / "raw" / "0",
        )
