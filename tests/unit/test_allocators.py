import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvlab.allocators.contiguous import NOBODY, Contiguous, SimulatedRequest
from kvlab.allocators.paged import Paged
from kvlab.allocators.reserved import Reserved
from kvlab.errors import KvlabError
from kvlab.simulate.scheduler import Scheduler
from kvlab.simulate.studies.cases import allocator_of
from kvlab.simulate.timeline import run_record


def slots_of(allocator, job):
    return int((allocator.owners() == job.id).sum())


@pytest.mark.parametrize(("policy", "asked"), [("max", 2048), ("pow2", 100 + 64), ("oracle", 100 + 50 - 1)])
def test_what_a_contiguous_policy_asks_for(policy, asked):
    pool, job = Contiguous(15_728, policy, 2048), SimulatedRequest(3, prompt=100, output=50)
    assert pool.asks(job.prompt, job.output) == asked
    assert pool.admit(job, known=100, tokens=100, alone=True)
    assert slots_of(pool, job) == 1 << (asked - 1).bit_length() == pool.blocks
    pool.release(job)
    assert (pool.owners() == NOBODY).all()


def test_pow2_asks_for_no_more_than_the_longest():
    assert Contiguous(4096, "pow2", 2048).asks(1500, 600) == 2048


def test_paged_takes_a_block_when_the_last_one_is_full():
    pool, job = Paged(64, block=4), SimulatedRequest(0, prompt=5, output=10)
    assert pool.admit(job, 5, 5, alone=True)
    assert (pool.blocks, pool.capacity(job)) == (2, 8)
    assert pool.grow(job, 9)
    assert (pool.blocks, pool.capacity(job)) == (3, 12)
    pool.release(job)
    assert pool.blocks == 0


def test_an_admission_leaves_the_watermark_free_unless_nothing_runs():
    pool = Paged(100, block=10, watermark=0.2)
    assert not pool.admit(SimulatedRequest(0, 90, 2), 90, 90, alone=False)
    assert pool.admit(SimulatedRequest(0, 90, 2), 90, 90, alone=True)


def test_a_prompt_is_admitted_whole_though_stored_by_chunks():
    pool = Paged(64, block=16)
    assert not pool.admit(SimulatedRequest(0, 70, 2), 70, 10, alone=True)
    assert pool.admit(SimulatedRequest(1, 60, 2), 60, 10, alone=True)
    assert pool.blocks == 1


def test_reserved_takes_the_blocks_of_the_whole_length_and_never_grows():
    pool, job = Reserved(64, block=16), SimulatedRequest(0, prompt=5, output=30)  # 34 tokens at its end: 3 blocks
    assert pool.admit(job, 5, 5, alone=True)
    assert (pool.blocks, slots_of(pool, job)) == (3, 48)
    assert pool.grow(job, 34)
    assert pool.blocks == 3
    assert not pool.admit(SimulatedRequest(1, 16, 2), 16, 16, alone=False)  # 17 tokens: 2 blocks, one is free
    pool.release(job)
    assert pool.blocks == 0


def test_reserved_stands_between_oracle_and_paged():
    rng = np.random.default_rng(0)
    jobs = [SimulatedRequest(n, *rng.integers(1, 200, 2).tolist()) for n in range(200)]
    running = {}
    for policy in ("orca-oracle", "reserved", "paged"):
        allocator = allocator_of(policy, 2048, 512, 16)
        timeline = Scheduler(jobs, allocator).run()
        accounting = timeline.accounting(run_record(allocator, "w", policy, 0, len(timeline)), allocator)
        running[policy] = accounting.mean("running")
        if policy == "reserved":
            assert timeline.preempted.sum() == 0
            assert accounting.mean("reserved") > 0
            assert accounting.internal.max() <= 15 * accounting.holding.max()  # the rest of each one's last block
    assert running["orca-oracle"] < running["reserved"] < running["paged"]


def test_samples_share_the_prompt_and_copy_its_last_block_when_they_part():
    pool, job = Paged(1600, block=4, samples=3), SimulatedRequest(0, prompt=6, output=9)
    assert pool.admit(job, 6, 6, alone=True)
    assert pool.blocks == 2  # both shared by all three
    assert pool.capacity(job) == 6
    assert pool.grow(job, 7)
    assert pool.blocks == 1 + 3  # the full one stays shared; two copies and the original of the other
    assert pool.capacity(job) == 8
    assert pool.grow(job, 9)
    assert pool.blocks == 1 + 3 * 2
    apart = Paged(1600, block=4, samples=3, share=False)
    assert apart.admit(job, 6, 6, alone=True)
    assert apart.blocks == 3 * 2


def test_a_shared_prefix_lies_once_in_the_pool():
    pool = Paged(160, block=4, prefix=10)
    assert (pool.pinned, pool.blocks) == (8, 2)  # only whole blocks are shared
    for number in range(3):
        assert pool.admit(SimulatedRequest(number, 12, 1), 12, 12, alone=False)
    assert pool.blocks == 2 + 3 * 1
    stored, slots = pool.held(np.array([12]), np.array([1]), np.array([12]))
    assert (stored.tolist(), slots.tolist()) == ([4], [4])


@given(st.integers(1, 20), st.integers(1, 60), st.integers(1, 40), st.integers(1, 4), st.booleans(), st.integers(0, 30))
def test_blocks_taken_are_the_slots_that_the_record_says(block, prompt, output, samples, share, prefix):
    pool = Paged(5000, block, samples=samples, share=share, prefix=min(prefix, prompt))
    job = SimulatedRequest(1, prompt, output)
    pool.check(job)
    assert pool.admit(job, prompt, prompt, alone=True)
    for tokens in range(prompt, job.final + 1):
        if tokens > pool.capacity(job):
            assert pool.grow(job, tokens)
        stored, slots = pool.held(*(np.array([n]) for n in (prompt, output, tokens)))
        assert pool.blocks * block == slots[0] + pool.pinned
        assert slots_of(pool, job) == slots[0]
        assert 0 <= stored[0] <= slots[0]
    pool.release(job)
    assert pool.blocks * block == pool.pinned


@pytest.mark.parametrize("policy", ["max", "pow2", "oracle"])
@given(prompt=st.integers(1, 300), output=st.integers(1, 300))
def test_contiguous_columns_are_what_it_asks_for(policy, prompt, output):
    pool = Contiguous(4096, policy, 1024)
    _, slots = pool.held(*(np.array([n]) for n in (prompt, output, prompt)))
    assert slots.tolist() == [pool.asks(prompt, output)]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Paged(100, 0), "block size 0"),
        (lambda: Paged(100, 101), "block size 101"),
        (lambda: Paged(100, float("nan")), "block size nan"),
        (lambda: Paged(100, 10, watermark=1.0), "watermark 1.0"),
        (lambda: Paged(100, 10, watermark=float("nan")), "watermark nan"),
        (lambda: Paged(100, 10, samples=0), "samples 0"),
        (lambda: Paged(100, 10, prefix=100), "leaves no block"),
        (lambda: Contiguous(100, "best", 10), "policy 'best'"),
        (lambda: Contiguous(100, "max", 0), "max_model_len 0"),
        (lambda: Contiguous(0, "max", 10), "0 slots"),
        (lambda: Contiguous(100, "max", 65).check(SimulatedRequest(7, 10, 10)), "request 7: needs a chunk of 128"),
        (
            lambda: Contiguous(4096, "oracle", 100).check(SimulatedRequest(7, 90, 20)),
            "request 7: 109 tokens, more than",
        ),
        (lambda: Paged(100, 10).check(SimulatedRequest(7, 90, 20)), "request 7: needs 11 blocks"),
        (lambda: Paged(100, 10).check(SimulatedRequest(7, 0, 20)), "request 7: prompt of 0 tokens"),
        (lambda: Paged(100, 10).check(SimulatedRequest(7, 5, 0)), "request 7: output of 0 tokens"),
        (lambda: Paged(100, 10).check(SimulatedRequest(7, float("nan"), 5)), "request 7: prompt of nan tokens"),
        (lambda: Paged(100, 10, prefix=20).check(SimulatedRequest(7, 5, 5)), "shorter than the shared prefix"),
    ],
)
def test_impossible_settings_are_refused_with_a_reason(make, says):
    with pytest.raises(KvlabError, match=says):
        make()
