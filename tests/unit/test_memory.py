import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvlab import accounting as memory
from kvlab.errors import LogError
from kvlab.records import Run, Served, Step


def run(pool=64, block=4, **fields):
    return Run(workload="w", arm="a", repeat=0, status="completed", pool_slots=pool, block_size=block, **fields)


def step(held, number=0, t_s=None, blocks=None, block=4, waiting=0):
    slots = sum(entry[2] for entry in held)
    return Step(
        step=number,
        t_s=float(number) if t_s is None else t_s,
        running=len(held),
        waiting=waiting,
        preempted=0,
        blocks=slots // block if blocks is None else blocks,
        held=held,
    )


def shares(accounting, at=0):
    return [int(getattr(accounting, name)[at]) for name in memory.SHARES]


def test_the_last_token_is_never_stored():
    served = Served(id=7, prompt_tokens=5, output_tokens=3, arrival_s=0, token_s=[], finish_s=1, finish_reason="length")
    assert memory.final_tokens([served]) == {7: 7}
    assert memory.final_tokens([dataclasses.replace(served, output_tokens=0)]) == {7: 5}


def test_a_pool_divides_as_in_the_papers_figure_3():
    # Request 0 has 7 tokens, will have 9, was given 16 slots; request 1 has 5 of the 5 that it will ever have.
    got = memory.account(run(), [step([[0, 7, 16], [1, 5, 8]])], {0: 9, 1: 5})
    assert shares(got) == [12, 2, 10, 40]
    assert got.rounding.tolist() == [0]
    assert got.allocated.tolist() == [24]


def test_a_block_that_will_be_filled_is_reserved_until_then():
    steps = [step([[0, tokens, 8]], number=tokens) for tokens in (5, 6, 7, 8)]
    got = memory.account(run(), steps, {0: 9})
    assert got.reserved.tolist() == [3, 2, 1, 0]
    assert got.internal.tolist() == [0, 0, 0, 0]


def test_contiguous_admission_charges_each_request_its_reservation():
    got = memory.account(run(reserve_slots=24), [step([[0, 7, 8], [1, 3, 4]])], {0: 9, 1: 30})
    assert shares(got) == [10, (9 - 7) + (24 - 3), 24 - 9, 64 - 48]


def test_chunk_rounding_is_external_and_only_a_buddy_pool_may_have_it():
    steps = [step([[0, 3, 5]], blocks=8)]
    got = memory.account(run(block=1, engine={"allocator": memory.BUDDY}), steps, {0: 5})
    assert shares(got) == [3, 2, 0, 59]
    assert got.rounding.tolist() == [3]
    with pytest.raises(LogError, match=r"step 0: blocks × block size"):
        memory.account(run(block=1), steps, {0: 5})


def test_means_weigh_steps_or_time():
    steps = [step([[0, 4, 4]], 0, 0.0), step([[0, 8, 8]], 1, 1.0), step([], 2, 4.0)]
    got = memory.account(run(pool=8), steps, {0: 8})
    assert got.mean("tokens") == pytest.approx(4)
    assert got.time_weights(end_s=5.0).tolist() == [1, 3, 1]
    assert got.mean("tokens", got.time_weights(end_s=5.0)) == pytest.approx((4 + 24) / 5)
    assert got.mean_share("tokens") == pytest.approx(0.5)
    assert got.peak("tokens") == 8
    assert got.holding.tolist() == [1, 1, 0]
    assert got.efficiency() == 1.0
    with pytest.raises(LogError, match="after the end"):
        got.time_weights(end_s=3.0)


def test_an_empty_log_has_no_mean():
    got = memory.account(run(), [], {})
    assert len(got) == 0
    assert got.peak("tokens") == 0
    with pytest.raises(LogError, match="no steps"):
        got.mean("tokens")
    idle = memory.account(run(), [step([])], {})
    assert shares(idle) == [0, 0, 0, 64]
    assert idle.efficiency() is None


def test_a_step_too_many_of_asynchronous_batches_stores_no_token_that_counts():
    steps = [step([[0, 5, 8], [1, 6, 8]], 0), step([[0, 6, 8], [1, 7, 8]], 1), step([[0, 7, 8]], 2)]
    ahead = run(engine={"async_scheduling": True})
    got = memory.account(ahead, steps, {0: 6, 1: 6})
    assert got.tokens.tolist() == [11, 12, 6]
    assert got.internal.tolist() == [4, 4, 2]
    for bad, final in ((steps, {0: 5, 1: 6}), ([steps[2], steps[0]], {0: 6, 1: 6})):  # two too many; not the last step
        bad = [dataclasses.replace(one, step=n, t_s=float(n)) for n, one in enumerate(bad)]
        with pytest.raises(LogError, match="more tokens than it ever fills"):
            memory.account(ahead, bad, final)
    with pytest.raises(LogError, match="step 1: request 1 has more tokens than it ever fills"):
        memory.account(run(), steps, {0: 6, 1: 6})


GOOD = [step([[0, 1, 4]], 3), step([[0, 2, 4]], 4)]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (step([[0, 5, 4]], 5), r"step 5: request 0 has more tokens than slots \(tokens 5, slots 4\)"),
        (step([[0, 7, 8]], 5), "step 5: request 0 has more tokens than it ever fills"),
        (step([[9, 1, 4]], 5), "step 5: request 9 is not in the request log"),
        (step([[0, -1, 4]], 5), "step 5: request 0 has a negative number"),
        (step([[0, 1, 68]], 5), "step 5: .*more slots than the pool"),
        (step([[0, 1, 4]], 5, blocks=2), "step 5: blocks × block size"),
        (step([[0, 1, 4]], 5, t_s=1.0), "step 5: begins before the step before it"),
        (step([[0, 1, 4]], 5, t_s=float("nan")), "step 5: begins before the step before it"),
        (step([[0, 1, 4]], 5, waiting=-1), "step 5: waiting is negative"),
        (Step(5, 5.0, 1, 0, 0, 1, [[0, 1]]), "step 5: a held entry is"),
        (Step(5, 5.0, 1, 0, 0, 1, [[0, 1.5, 4]]), "held holds something that is not a whole number"),
    ],
)  # fmt: skip
def test_a_record_that_contradicts_itself_is_named(bad, says):
    with pytest.raises(LogError, match=says):
        memory.account(run(), [*GOOD, bad], {0: 6})


def test_a_pool_without_slots_is_refused():
    with pytest.raises(LogError, match="pool_slots 0"):
        memory.account(run(pool=0), GOOD, {0: 6})


@st.composite
def logs(draw):
    """A consistent paged log: a block size, steps, final lengths, and maybe a reservation."""
    block = draw(st.integers(1, 16))
    final = draw(st.dictionaries(st.integers(0, 50) | st.just(10**9), st.integers(1, 100), min_size=1, max_size=6))
    steps = []
    for number in range(draw(st.integers(1, 6))):
        held = []
        for request in draw(st.sets(st.sampled_from(sorted(final)))):
            tokens = draw(st.integers(0, final[request]))
            slots = block * (-(-tokens // block) + draw(st.integers(0, 3)))
            held.append([request, tokens, slots])
        steps.append(step(held, number, number + draw(st.floats(0, 0.9)), block=block))
    reserve = draw(st.none() | st.integers(1, 120))
    charged = max(sum(max(entry[2], reserve or 0) for entry in one.held) for one in steps)
    pool = max(1, charged + draw(st.integers(0, 50)))
    return run(pool, block, reserve_slots=reserve), steps, final


@given(logs())
def test_the_shares_make_up_the_pool_and_equal_a_plain_loop(log):
    the_run, steps, final = log
    got = memory.account(the_run, steps, final)
    assert (sum(got.series(name) for name in memory.SHARES) == the_run.pool_slots).all()
    assert sum(got.series(name) for name in memory.SHARES).tolist() == [got.pool] * len(steps)
    for name in (*memory.SHARES, "rounding", "free"):
        assert (got.series(name) >= 0).all()
    for at, one in enumerate(steps):
        tokens = reserved = internal = 0
        for request, stored, slots in one.held:
            slots = max(slots, the_run.reserve_slots or 0)
            tokens += stored
            reserved += min(slots, final[request]) - stored
            internal += max(0, slots - final[request])
        assert shares(got, at) == [tokens, reserved, internal, the_run.pool_slots - tokens - reserved - internal]
    weights = got.time_weights()
    total = sum(got.mean_share(name, weights) for name in memory.SHARES)
    assert total == pytest.approx(1)


@given(logs(), st.data())
def test_one_token_too_many_is_always_found(log, data):
    the_run, steps, final = log
    entries = [(at, entry) for at, one in enumerate(steps) for entry in range(len(one.held))]
    if not entries:
        return
    at, entry = data.draw(st.sampled_from(entries))
    held = [list(one) for one in steps[at].held]
    held[entry][1] = min(held[entry][2], final[held[entry][0]]) + 1
    steps[at] = dataclasses.replace(steps[at], held=held)
    with pytest.raises(LogError, match=f"step {at}:"):
        memory.account(the_run, steps, final)
