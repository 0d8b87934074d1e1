"""The scheduler, against one that is plain and slow, and the invariants of any allocation."""

import time
from dataclasses import astuple, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvlab.accounting import SHARES
from kvlab.allocators.contiguous import NOBODY, Contiguous, SimulatedRequest
from kvlab.allocators.paged import Paged
from kvlab.errors import KvlabError
from kvlab.simulate.scheduler import Scheduler
from kvlab.simulate.step_times import StepTimes
from kvlab.simulate.timeline import run_record

POLICIES = ("max", "pow2", "oracle", "paged")


def allocator(policy, pool=256, block=4, watermark=0.0, **options):
    return Paged(pool, block, watermark=watermark, **options) if policy == "paged" else Contiguous(pool, policy, 64)


def plain(
    jobs,
    pool,
    max_running=None,
    token_budget=None,
    chunk_prompts=True,
    asynchronous=False,
    step_times=None,
    came=None,
):
    """A paged scheduler that looks at every request in every iteration, after vLLM's own loop.

    `late`: requests whose last token the iteration before this one samples, while this one is scheduled. `whole`: those
    whose prompt is in. `came`: takes, by request, when its output tokens came.
    """
    late, whole, done, before = [], set(), 0.0, 0.0
    budget_in_all = token_budget or 10**9
    coming, waiting, running = sorted(jobs, key=lambda job: job.arrival), [], []
    stored, known, log, row, skipped = {}, {job.id: job.prompt for job in jobs}, [], 0, 0
    while coming or waiting or running:
        clock = row + skipped
        if step_times:
            clock = before if asynchronous and running else done
        while coming and coming[0].arrival <= clock:
            waiting.append(coming.pop(0))
        if not waiting and not running:
            skipped += 1
            before = done = max(done, coming[0].arrival)
            continue
        had = {job.id: stored[job.id] for job in running}
        budget, preempted, at = budget_in_all, 0, 0
        while at < len(running) and budget > 0:
            job = running[at]
            if job in late:
                at += 1
                continue
            tokens = stored[job.id] + min(known[job.id] - stored[job.id], budget)
            while not pool.grow(job, tokens):
                newest = running.pop()
                pool.release(newest)
                whole.discard(newest)
                if newest not in late:
                    waiting.insert(0, newest)
                preempted += 1
                if newest == job:
                    break
            if job not in running:
                break
            budget -= tokens - stored[job.id]
            stored[job.id] = tokens
            at += 1
        while waiting and not preempted and budget > 0 and len(running) < (max_running or 10**9):
            job = waiting[0]
            tokens = min(known[job.id], budget)
            if tokens < known[job.id] and not chunk_prompts:
                break
            if not pool.admit(job, known[job.id], tokens, alone=not running):
                break
            running.append(waiting.pop(0))
            budget -= tokens
            stored[job.id] = tokens
        gone = [job for job in late if job in running]
        late = []
        if len(gone) == len(running):
            for job in gone:
                pool.release(job)
                running.remove(job)
            before = done
            continue
        computing = [job for job in running if job not in gone]
        decodes = [job for job in computing if job in whole]
        whole |= {job for job in computing if stored[job.id] == known[job.id]}
        lasts = 1.0
        if step_times:
            prefill = sum(stored[job.id] - had.get(job.id, 0) for job in computing if job not in decodes)
            lasts = step_times.seconds(len(decodes), sum(stored[job.id] for job in decodes), prefill)
        before, done = done, (done if step_times else clock) + lasts
        for job in computing:
            if came is not None and stored[job.id] == known[job.id]:
                came.setdefault(job, []).append(done)
        held = sorted([job.id, stored[job.id], -(-stored[job.id] // pool.block) * pool.block] for job in running)
        log.append((clock, len(running), len(waiting), preempted, pool.blocks, held))
        for job in list(running):
            if asynchronous and stored[job.id] == job.final and job not in gone:
                late.append(job)
            elif stored[job.id] == job.final:
                pool.release(job)
                running.remove(job)
            elif stored[job.id] == known[job.id]:
                known[job.id] += 1
        row += 1
    return log


# Quarters, whose sums are exact.
QUARTERS = st.integers(0, 8).map(lambda quarter: quarter / 4)
STEP_TIMES = st.builds(StepTimes, st.integers(1, 8).map(lambda n: n / 4), QUARTERS, QUARTERS, QUARTERS)


@st.composite
def workloads(draw, longest=60):
    pairs = draw(
        st.lists(
            st.tuples(st.integers(1, longest - 1), st.integers(1, longest), st.integers(0, 40)), min_size=1, max_size=12
        )
    )
    return [
        SimulatedRequest(number, prompt, min(output, longest - prompt + 1), float(arrival))
        for number, (prompt, output, arrival) in enumerate(pairs)
    ]


@given(
    workloads(),
    st.integers(1, 9),
    st.integers(64, 200),
    st.floats(0, 0.3),
    st.none() | st.integers(1, 4),
    st.sampled_from([(None, True), (13, True), (70, False)]),
    st.booleans(),
    st.none() | STEP_TIMES,
)
@settings(max_examples=400, deadline=None)
def test_events_give_what_a_plain_loop_gives(jobs, block, pool, watermark, max_running, budget, asynchronous, times):
    bounds = {"max_running": max_running, "asynchronous": asynchronous}
    bounds |= {"token_budget": budget[0], "chunk_prompts": budget[1]}
    one, other = (Paged(pool, block, watermark=watermark) for _ in range(2))
    timeline = Scheduler(jobs, one, **bounds, step_times=times).run()
    came = {}
    expected = plain(jobs, other, **bounds, step_times=times, came=came)
    assert one.blocks == 0
    got = [(s.t_s, s.running, s.waiting, s.preempted, s.blocks, s.held) for s in timeline.steps(one)]
    assert got == expected
    finished = timeline.finished()
    assert finished.request.tolist() == [job.id for job in jobs]
    assert finished.arrival.tolist() == [job.arrival for job in jobs]
    assert finished.first.tolist() == [came[job][0] for job in jobs]
    assert finished.last.tolist() == [came[job][-1] for job in jobs]
    assert {len(came[job]) - job.output for job in jobs} == {0}
    assert finished.per_token().tolist() == [(came[job][-1] - job.arrival) / job.output for job in jobs]


@given(workloads(), st.integers(1, 9), st.integers(64, 200), st.none() | st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_steps_of_one_second_are_iterations(jobs, block, pool, max_running):
    one, other = (Paged(pool, block) for _ in range(2))
    counted = Scheduler(jobs, one, max_running=max_running).run()
    timed = Scheduler(jobs, other, max_running=max_running, step_times=StepTimes(1.0)).run()
    assert timed.stays == counted.stays
    assert (timed.clock.tolist(), timed.ends.tolist()) == (counted.clock.tolist(), counted.ends.tolist())


@given(workloads(), STEP_TIMES, st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_machine_of_half_the_speed_takes_twice_as_long(jobs, times, asynchronous):
    slow_jobs = [replace(job, arrival=2 * job.arrival) for job in jobs]
    slow_times = StepTimes(*(2 * value for value in astuple(times)))
    fast, slow = (
        Scheduler(them, Paged(128, 4), asynchronous=asynchronous, step_times=speed).run()
        for them, speed in ((jobs, times), (slow_jobs, slow_times))
    )
    assert [replace(stay, arrival=0.0) for stay in slow.stays] == [replace(stay, arrival=0.0) for stay in fast.stays]
    assert slow.ends.tolist() == (2 * fast.ends).tolist()


@given(workloads(), st.floats(0, 60))
@settings(max_examples=60, deadline=None)
def test_time_can_be_cut_anywhere(jobs, until):
    times = StepTimes(0.5, 0.01, 0.001, 0.01)
    whole, part = (Scheduler(jobs, Paged(128, 4), step_times=times) for _ in range(2))
    every, first = whole.run(), part.run(until=until)
    assert first.clock.tolist() == every.clock[every.clock < until].tolist()
    assert list(first.steps(part.allocator)) == list(every.steps(whole.allocator))[: len(first)]
    done = every.finished()
    assert first.finished().last.tolist() == done.last[done.last <= first.ends.max(initial=0)].tolist()


@pytest.mark.parametrize("values", [(-0.1,), (float("nan"),), (0.03, float("inf")), (0.03, 0, 0, -1e-9)])
def test_step_times_that_are_none_are_refused(values):
    with pytest.raises(KvlabError, match=r"step times: .*_s "):
        StepTimes(*values)


@pytest.mark.parametrize("policy", POLICIES)
@given(jobs=workloads(), pool=st.integers(80, 300), block=st.integers(1, 20), watermark=st.floats(0, 0.3))
@settings(max_examples=60, deadline=None)
def test_invariants_of_any_allocation(policy, jobs, pool, block, watermark):
    used = allocator(policy, pool, block, watermark)
    owned = []
    timeline = Scheduler(jobs, used).run(watch=lambda row: owned.append(used.owners()))
    # Any workload that fits completes, once each.
    assert sorted(stay.request for stay in timeline.stays if stay.end == "finished") == [job.id for job in jobs]
    assert {stay.end for stay in timeline.stays} <= {"finished", "preempted"}
    # Freed equals allocated at the end.
    assert used.blocks == 0
    assert (used.owners() == NOBODY).all()
    # No slot is owned twice: owners() has one owner a slot, and each owner has there all that it holds.
    run = run_record(used, "w", policy, 0, len(timeline))
    for row, step in enumerate(timeline.steps(used)):
        for request, _, slots in step.held:
            assert (owned[row] == request).sum() >= slots
        assert (owned[row] != NOBODY).sum() == step.blocks * used.block
    # The shares sum to one at each step.
    shares = timeline.accounting(run, used)
    assert sum(shares.series(name) for name in SHARES).tolist() == [shares.pool] * len(timeline)
    if policy == "oracle":
        assert not shares.internal.any()
    if policy == "paged":
        assert (shares.internal + shares.reserved < block * np.maximum(shares.running, 1)).all()
        assert not shares.rounding.any()
    else:
        assert not shares.preempted.any()
    # A request yields one output token an iteration in which it is resident with its prompt whole.
    assert sum(job.final for job in jobs) <= shares.tokens.sum()


@given(workloads(longest=30), st.integers(2, 4), st.integers(1, 8), st.booleans())
@settings(max_examples=60, deadline=None)
def test_shared_blocks_obey_the_same_accounting(jobs, samples, block, share):
    used = Paged(400, block, samples=samples, share=share, prefix=min(job.prompt for job in jobs))
    timeline = Scheduler(jobs, used).run()
    got = timeline.accounting(run_record(used, "w", "paged", 0, len(timeline)), used)
    assert (got.tokens >= used.pinned).all()
    assert used.blocks * block == used.pinned
    shared, alone = timeline.unshared_slots(used, samples)
    assert shared <= alone or used.pinned
    assert not got.rounding.any()


def test_iterations_can_be_cut_anywhere():
    jobs = [SimulatedRequest(n, 10, 20) for n in range(6)]
    whole, part = (Scheduler(jobs, Paged(64, 4)) for _ in range(2))
    every, first = whole.run(), part.run(17)
    assert len(first) == 17
    assert list(first.steps(part.allocator)) == list(every.steps(whole.allocator))[:17]


def test_windows_and_warm_up_change_no_number():
    jobs = [SimulatedRequest(n, 10 + n, 20) for n in range(30)]
    used = Paged(200, 4)
    timeline = Scheduler(jobs, used).run()
    run = run_record(used, "w", "paged", 0, len(timeline))
    whole = timeline.accounting(run, used)
    from kvlab.simulate import timeline as module

    module._ENTRIES, kept = 50, module._ENTRIES
    try:
        parts = timeline.accounting(run, used, first=5)
    finally:
        module._ENTRIES = kept
    assert parts.tokens.tolist() == whole.tokens[5:].tolist()
    assert parts.internal.tolist() == whole.internal[5:].tolist()


def test_one_request_alone_is_there_for_as_many_iterations_as_it_has_output():
    used = Paged(64, 4)
    timeline = Scheduler([SimulatedRequest(0, prompt=5, output=3, arrival=10)], used).run()
    assert [(step.t_s, step.held) for step in timeline.steps(used)] == [
        (10, [[0, 5, 8]]),
        (11, [[0, 6, 8]]),
        (12, [[0, 7, 8]]),
    ]


def test_the_newest_is_preempted_and_starts_over():
    used = Paged(8, 2)
    timeline = Scheduler([SimulatedRequest(0, 3, 4), SimulatedRequest(1, 3, 4)], used).run()
    steps = [(step.preempted, step.waiting, step.held) for step in timeline.steps(used)]
    assert steps == [
        (0, 0, [[0, 3, 4], [1, 3, 4]]),
        (0, 0, [[0, 4, 4], [1, 4, 4]]),
        (1, 1, [[0, 5, 6]]),
        (0, 1, [[0, 6, 6]]),
        (0, 0, [[1, 5, 6]]),  # what it had generated is stored again, with its prompt
        (0, 0, [[1, 6, 6]]),
    ]


@pytest.mark.parametrize(
    ("jobs", "options", "says"),
    [
        ([SimulatedRequest(0, 5, 5, float("nan"))], {}, "request 0: arrives at nan"),
        ([SimulatedRequest(0, 5, 5, -1.0)], {}, "request 0: arrives at -1"),
        ([SimulatedRequest(0, 5, 5), SimulatedRequest(0, 5, 5)], {}, "same id"),
        ([SimulatedRequest(0, 5, 500)], {}, "request 0: needs"),
        ([SimulatedRequest(0, 5, 5)], {"max_running": 0}, "max_running 0"),
        ([SimulatedRequest(0, 5, 5)], {"token_budget": 0}, "token_budget 0"),
        ([SimulatedRequest(0, 5, 5)], {"token_budget": 8, "chunk_prompts": False}, "9 tokens, above token_budget 8"),
    ],
)
def test_what_can_not_be_served_is_refused_before_anything_runs(jobs, options, says):
    with pytest.raises(KvlabError, match=says):
        Scheduler(jobs, Paged(64, 4), **options)


def test_no_request_no_iteration():
    assert len(Scheduler([], Paged(64, 4)).run()) == 0


def test_the_steps_of_four_times_the_requests_take_about_four_times_as_long():
    """benchmarks/analysis.py shows the same for the whole of `analyse`, up to 50,000 requests."""

    def seconds(requests):
        used = Paged(512, 4)
        timeline = Scheduler([SimulatedRequest(n, 5 + n % 30, 1 + n % 40) for n in range(requests)], used).run()
        best = float("inf")
        for _ in range(3):
            began = time.process_time()
            assert sum(1 for _ in timeline.steps(used)) == len(timeline)
            best = min(best, time.process_time() - began)
        return best

    assert seconds(6000) < 8 * seconds(1500)  # 16 where each step looks at all requests
