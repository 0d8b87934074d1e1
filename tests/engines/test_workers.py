"""Several workers that share each layer: the same schedule as one worker, a share of the KV bytes each. On a CPU."""

from __future__ import annotations

import os

import pytest

from kvlab.records import Served, Step, read_lines

from .conftest import SMALL

pytestmark = pytest.mark.engine


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two workers want two cores")
def test_each_of_two_workers_holds_half_of_what_one_holds(measured, measured_apart):
    """Allocation does not depend on the number of workers: each step is the same, preemptions included."""
    asked = {"kv_slots": SMALL}
    two, of_two, _ = measured_apart("vllm-paged", vllm={"tensor_parallel_size": 2, "async_scheduling": False}, **asked)
    one, of_one = measured("vllm-paged", vllm={"async_scheduling": False}, **asked)
    assert (one.status, two.status) == ("completed", "completed")
    assert (one.engine["workers"], two.engine["workers"]) == (1, 2)

    assert one.engine["kv_bytes_each"] == [one.kv_pool_bytes]
    assert two.engine["kv_bytes_each"] == [one.kv_pool_bytes // 2] * 2
    assert two.kv_pool_bytes == one.kv_pool_bytes
    assert (two.pool_slots, two.kv_bytes_per_slot) == (one.pool_slots, one.kv_bytes_per_slot)

    def schedule(folder):
        steps = read_lines(folder / "steps.jsonl", Step)
        return [(s.running, s.waiting, s.preempted, s.blocks, s.held) for s in steps]

    assert any(preempted for _, _, preempted, _, _ in schedule(of_one))
    assert schedule(of_two) == schedule(of_one)
    lengths = [[len(s.token_s) for s in read_lines(folder / "requests.jsonl", Served)] for folder in (of_one, of_two)]
    assert lengths[0] == lengths[1]
