"""Simulated paging against what vLLM recorded, step by step: the same blocks, the same tokens, request by request."""

from __future__ import annotations

import shutil

import pytest

from kvlab.raw import RawRun
from kvlab.records import Step, read_lines
from kvlab.simulate import counterfactual

from .conftest import LENGTH, SLOTS, SMALL

pytestmark = pytest.mark.engine

CHUNKED = {"max_num_batched_tokens": 40, "max_num_seqs": 6}
SCHEDULES = {
    "room": ("vllm-paged", {"kv_slots": SLOTS}),
    "preemption": ("vllm-paged", {"kv_slots": SMALL}),
    "chunked prefill": ("vllm-paged", {"kv_slots": SLOTS, "vllm": CHUNKED}),
    "chunked prefill and preemption": ("vllm-paged", {"kv_slots": SMALL, "vllm": CHUNKED}),
    "blocks of 32": ("vllm-paged", {"kv_slots": SMALL, "vllm": {"block_size": 32}}),
    "Orca (Max)": ("vllm-contiguous", {"kv_slots": SLOTS}),
    "Orca (Pow2)": ("vllm-pow2", {"kv_slots": SLOTS, "vllm": CHUNKED}),
    "Orca (Oracle)": ("vllm-oracle", {"kv_slots": SLOTS}),
    "reserved": ("vllm-reserved", {"kv_slots": SLOTS}),
    "one at a time": ("vllm-sequential", {"kv_slots": SLOTS}),
}


@pytest.fixture(params=SCHEDULES)
def raw(request, measured, tmp_path):
    arm, asked = SCHEDULES[request.param]
    _, folder = measured(arm, **asked)
    shutil.copytree(folder, tmp_path / "raw" / "w" / arm / "0")
    return request.param, RawRun.read(tmp_path, "w", arm, 0)


def test_the_simulated_policy_holds_what_vllm_holds(raw):
    name, found = raw
    same = counterfactual.agreement(found)
    assert same.difference is None
    assert same.equal == same.measured == same.simulated > 40
    if "preemption" in name:
        assert sum(step.preempted for step in found.steps) > 0
    if "chunked" in name:  # the first step computes as many prompt tokens as it may
        first = read_lines(found.folder / "steps.jsonl", Step)[0]
        assert sum(tokens for _, tokens, _ in first.held) == CHUNKED["max_num_batched_tokens"]


def test_the_other_policies_hold_the_same_requests_with_more_waste(raw):
    _, found = raw
    quantities = {q.id: q.value for q in counterfactual.quantities(found, "w.arm")}
    if found.run.policy in (None, "paged"):
        assert quantities["w.arm.served-again.agreement"] == 1.0
    shares = [quantities[f"w.arm.served-again.{policy}.internal"] for policy in ("paged", "orca-max")]
    assert shares[0] < shares[1]
    assert quantities["w.arm.served-again.orca-oracle.internal"] == 0.0
    assert quantities["w.arm.served-again.orca-max.running"] <= found.run.pool_slots / LENGTH
