import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvlab.allocators.buddy import Buddy, chunk_for
from kvlab.errors import KvlabError


@pytest.mark.parametrize(("slots", "chunk"), [(1, 1), (2, 2), (3, 4), (1024, 1024), (1025, 2048)])
def test_a_chunk_is_the_next_power_of_two(slots, chunk):
    assert chunk_for(slots) == chunk


def test_the_papers_pool_holds_seven_chunks_of_the_maximum():
    pool = Buddy(15_728)
    offsets = [pool.take(2048) for _ in range(7)]
    assert None not in offsets
    assert pool.take(2048) is None
    assert pool.take(1024) is not None
    assert pool.largest == 8192


def test_a_pool_without_slots_is_refused():
    with pytest.raises(KvlabError, match="0 slots"):
        Buddy(0)


@given(st.integers(1, 3000), st.lists(st.tuples(st.integers(1, 700), st.integers(0, 9)), max_size=60))
def test_chunks_never_overlap_and_come_back_whole(size, requests):
    pool = Buddy(size)
    empty = pool.free_chunks()
    assert sum(chunk for _, chunk in empty) == size
    held = []
    for slots, leave in requests:
        if leave < 4 and held:
            pool.give(*held.pop(leave % len(held)))
        got = pool.take(slots)
        if got is not None:
            assert got[1] == chunk_for(slots)
            held.append(got)
        every = sorted(held + pool.free_chunks())
        assert [offset for offset, _ in every] == [sum(c for _, c in every[:at]) for at in range(len(every))]
        assert sum(chunk for _, chunk in every) == size
        assert pool.used == sum(chunk for _, chunk in held)
        if got is None:
            assert all(chunk < chunk_for(slots) for _, chunk in pool.free_chunks())
    for one in held:
        pool.give(*one)
    assert pool.free_chunks() == empty
    assert pool.used == 0
