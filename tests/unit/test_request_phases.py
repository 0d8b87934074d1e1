"""The phases of a request: waiting, prefill, decode, and again after a preemption."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fixtures import small_run

from kvlab.analyse.request_phases import request_phases, stretches
from kvlab.raw import RawRun


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return small_run.build(tmp_path_factory.mktemp("phases") / "small", figures=False)


@settings(max_examples=6, deadline=None)
@given(
    st.sampled_from(
        ["seed/hf-sequential-static", "seed/vllm-paged", "pressured/vllm-paged", "pressured/vllm-contiguous"]
    )
)
def test_spans_follow_each_other_from_arrival_to_the_last_token(run, name):
    raw = RawRun.read(run, *name.split("/"), 0)
    found = request_phases(raw)
    assert len(found) == len(raw.served)
    for one in found:
        ends = [one.request.arrival_s, *(end for _, _, end in one.spans)]
        assert [start for _, start, _ in one.spans] == pytest.approx(ends[:-1])
        assert ends[-1] == pytest.approx(one.request.finish_s)
        assert one.spans[-1][0] == "decode" or one.request.output_tokens == 1


def test_every_preemption_of_the_log_is_one_of_its_requests(run):
    raw = RawRun.read(run, "pressured", "vllm-paged", 0)
    lost = sum(step.preempted for step in raw.steps)
    assert lost > 0
    assert sum(len(one.preempted) for one in request_phases(raw)) == lost
    again = next(one for one in request_phases(raw) if one.preempted)
    names = [name for name, _, _ in again.spans]
    assert names.count("prefill") == 1 + len(again.preempted)
    at = again.preempted[0]
    assert any(name == "waiting" and start == pytest.approx(at) for name, start, _ in again.spans)


def test_a_request_holds_cache_while_its_steps_say_so(run):
    raw = RawRun.read(run, "pressured", "vllm-paged", 0)
    held = stretches(raw)
    for step in raw.steps:
        for request, _, _ in step.held:
            assert any(start <= step.t_s <= end for start, end in held[request])
