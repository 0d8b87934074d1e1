"""The simulator against vLLM's own schedulers, for every policy: the same requests, tokens and chunks at every step."""

from __future__ import annotations

import os
import random
from dataclasses import replace

import pytest

from kvlab.accounting import SHARES
from kvlab.allocators.policies import EVERY
from kvlab.measure.engines.vllm.recorder import FILE
from kvlab.raw import RawRun
from kvlab.records import PREEMPTIONS, Request, write_lines
from kvlab.simulate.counterfactual import agreement, serve_again
from tests.raw_logs import write_raw

from .conftest import LENGTH
from .scheduled import ModelLess

pytestmark = pytest.mark.engine
POOL = 6 * LENGTH + 48  # no power of two, and no multiple of a maximum chunk


def drawn(count: int, seed: int, longest: int = LENGTH) -> list[Request]:
    """Short and long requests, some below a block, some that fill the maximum length."""
    draw = random.Random(seed)
    made = []
    for id in range(count):
        prompt = draw.choice([1, 3, 15, 16, 17, draw.randrange(1, 60)])
        output = draw.choice([1, 2, 16, draw.randrange(1, longest - prompt), longest - prompt])
        made.append(Request(id, [1] * prompt, output))
    return made


@pytest.fixture
def scheduled(job, model, tmp_path, monkeypatch):
    def make(**options):
        of = job("vllm-paged", kv_slots=POOL)
        monkeypatch.setitem(os.environ, FILE, str(tmp_path / "steps"))
        return ModelLess(model, tmp_path, of, **options)

    return make


def logged(root, journal, policy, asynchronous, budget, *, open_loop=False):
    """The pass as a raw folder, read back."""
    folder = write_raw(
        root,
        "vllm",
        steps=journal.stepped(0),
        served=journal.served(0),
        outputs=journal.outputs(str),
        pool_slots=POOL // 16 * 16,
        kv_slots_asked=POOL,
        max_model_len=LENGTH,
        max_num_seqs=64,
        policy=policy,
        rate=1.0 if open_loop else None,
        settings={"arm": {"feed": "batch"}},
        engine={"name": "vllm", "max_num_batched_tokens": budget, "async_scheduling": asynchronous},
    )
    write_lines(folder / PREEMPTIONS, journal.preempted(0))
    return RawRun.at(folder, root)


@pytest.mark.parametrize("budget", [512, 40])
@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("policy", EVERY)
def test_a_queue(scheduled, tmp_path, policy, asynchronous, budget):
    made = scheduled(asynchronous=asynchronous, budget=budget, max_num_seqs=40)
    journal = made.serve(drawn(60, seed=1), policy)
    journal.check()
    raw = logged(tmp_path / "run", journal, policy, asynchronous, budget)
    found = agreement(replace(raw, run=replace(raw.run, max_num_seqs=40)))
    assert found.difference is None
    assert found.equal == found.measured == found.simulated > 200
    assert bool(raw.preemptions) == (policy == "paged")
    assert (raw.served[0].chunk_slots is None) == (policy == "paged")


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("policy", EVERY)
def test_requests_that_arrive_over_time(scheduled, tmp_path, policy, asynchronous):
    requests = drawn(80, seed=2)
    draw = random.Random(3)
    after = sorted(draw.randrange(0, 700) for _ in requests)
    journal = scheduled(asynchronous=asynchronous, budget=64).serve(requests, policy, after)
    journal.check()
    raw = logged(tmp_path / "run", journal, policy, asynchronous, 64, open_loop=True)
    found = agreement(raw)
    assert found.difference is None
    assert found.equal == found.measured == found.simulated > 200


@pytest.mark.parametrize("policy", EVERY)
def test_the_accounting_is_that_of_the_simulator(scheduled, tmp_path, policy):
    """Shares from what the shadow allocator took in the engine, and from the simulation, to the last slot."""
    made = scheduled(asynchronous=False, budget=512)
    raw = logged(tmp_path / "run", made.serve(drawn(40, seed=4), policy), policy, False, 512)
    ours, theirs = serve_again(raw, policy)[0], raw.accounting
    held = theirs.holding > 0
    for name in (*SHARES, "rounding", "free"):
        assert theirs.series(name)[held].tolist() == ours.series(name).tolist(), name


@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_is_computed_again_is_what_was_lost(scheduled, tmp_path, asynchronous):
    """Tokens computed in all steps = tokens stored once + tokens that preemptions lost."""
    requests = drawn(60, seed=5)
    made = scheduled(asynchronous=asynchronous)
    computed = 0
    schedule = made.scheduler.schedule

    def counted():
        nonlocal computed
        output = schedule()
        computed += output.total_num_scheduled_tokens
        return output

    made.scheduler.schedule = counted
    journal = made.serve(requests, "paged")
    lost = [one.tokens for one in journal.preempted(0) if not one.last_token_under_way]
    once = sum(len(one.prompt_token_ids) + one.max_new_tokens - 1 for one in requests)
    assert computed == once + sum(lost)
    assert len(lost) > 3
    assert sum(one.preemptions for one in journal.served(0)) == len(journal.lost)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_cell_that_is_stopped_leaves_the_pool_empty_and_agrees_as_far_as_it_went(scheduled, tmp_path, asynchronous):
    made = scheduled(asynchronous=asynchronous)
    requests = drawn(60, seed=6)
    journal = made.serve(requests, "orca-oracle", most=100)
    raw = logged(tmp_path / "run", journal, "orca-oracle", asynchronous, 512)
    assert sum(one.finish_s is None for one in raw.served) > 3
    found = agreement(raw)
    assert found.difference is None
    assert found.equal == 100
    assert made.scheduler.pool.get_num_free_blocks() == POOL // 16
    assert not made.scheduler.gate.holding
    assert made.scheduler.gate.shadow.blocks == 0


def test_a_pass_begins_with_the_free_blocks_in_order(scheduled):
    """State of one pass does not reach the next: the same pass twice takes the same blocks."""
    made = scheduled(asynchronous=False)
    requests = drawn(30, seed=7)

    def order():
        return [block.block_id for block in made.scheduler.pool.free_block_queue.get_all_free_blocks()]

    first = order()
    made.serve(requests, "paged")
    assert order() == first == sorted(first)


def test_a_policy_that_changes_while_a_chunk_is_held_is_a_fault(scheduled):
    made = scheduled(asynchronous=False)
    made._add(Request(0, [1] * 20, 20), "orca-max")
    made.scheduler.schedule()
    with pytest.raises(RuntimeError, match="orca-pow2 was chosen while 1 requests hold chunks"):
        made._add(Request(1, [1] * 20, 20), "orca-pow2")


def test_a_reserving_policy_that_preempts_is_a_fault(scheduled):
    made = scheduled(asynchronous=False)
    made._add(Request(0, [1] * 20, 20), "orca-max")
    made.scheduler.schedule()
    with pytest.raises(RuntimeError, match="orca-max preempted a request"):
        made.scheduler._preempt_request(made.scheduler.running[0], 0.0)
