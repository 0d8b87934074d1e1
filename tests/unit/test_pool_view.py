"""Thinned steps are steps as they were recorded, and the page's encoding gives them back."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from kvlab.publish.page.pool_view import MOST_FRAMES, _runs, _stretches, cell_slots, grid, thin
from kvlab.records import Step


def decode(stretches, kept, block, frames):
    """What report/script/pool.js does."""
    held = [[] for _ in range(frames)]
    for request, first, off, extra in stretches:
        more = [value for value, count in zip(extra[::2], extra[1::2], strict=True) for _ in range(count)]
        stored = 0
        for k, value in enumerate(v for v, count in zip(off[::2], off[1::2], strict=True) for _ in range(count)):
            at = first + k
            stored = stored + value + kept[at] - kept[at - 1] if k else value
            held[at].append([request, stored, -(-stored // block) * block + more[k]])
    return [sorted(one) for one in held]


@st.composite
def logs(draw):
    requests = st.dictionaries(st.integers(0, 5), st.tuples(st.integers(0, 90), st.integers(0, 40)), max_size=4)
    steps = []
    for number, held in enumerate(draw(st.lists(requests, min_size=1, max_size=25))):
        entries = [[key, stored, stored + spare] for key, (stored, spare) in held.items()]
        steps.append(Step(number, number / 10, len(entries), 0, 0, 0, entries))
    return steps


@settings(max_examples=200)
@given(logs(), st.sampled_from([1, 16, 64]))
def test_encoded_steps_come_back_as_they_were(steps, block):
    kept = list(range(0, len(steps), 2))
    frames = [steps[i] for i in kept]
    assert decode(_stretches(frames, kept, block), kept, block, len(kept)) == [sorted(one.held) for one in frames]


def test_a_steady_request_is_three_numbers():
    frames = [Step(i, i, 1, 0, 0, 0, [[7, 20 + i, 32]]) for i in range(10)]
    assert _stretches(frames, list(range(10)), 16) == [[7, 0, [20, 1, 0, 9], [0, 10]]]


def test_short_runs_are_kept_whole():
    steps = [Step(i, float(i), 1, 0, 0, 0, [[0, i, 64]]) for i in range(MOST_FRAMES)]
    assert thin(steps, [1] * len(steps)) == list(range(len(steps)))
    assert thin([], []) == []


@given(st.integers(MOST_FRAMES + 1, 3000), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_long_runs_keep_the_fullest_and_the_last_step(count, peak):
    steps = [Step(i, i * 0.01, 1, 0, 0, 0, [[0, 1, 16]]) for i in range(count)]
    allocated = [1] * count
    allocated[peak % count] = 9
    kept = thin(steps, allocated)
    assert len(kept) <= MOST_FRAMES
    assert {peak % count, count - 1, 0} <= set(kept)
    assert kept == sorted(set(kept))
    gaps = [b - a for a, b in pairwise(kept)]
    assert max(gaps) <= 2 * count / MOST_FRAMES + 2


def test_many_requests_mean_fewer_frames():
    steps = [Step(i, i * 0.01, 500, 0, 0, 0, [[k, 1, 16] for k in range(500)]) for i in range(600)]
    assert len(thin(steps, [1] * 600)) <= 130


def test_runs_of_equal_values():
    assert _runs([0, 0, 0, 5, 5, 0]) == [0, 3, 5, 2, 0, 1]
    assert _runs([]) == []


def test_the_grid_is_about_square_and_holds_the_larger_pool():
    assert cell_slots([1024, 16]) == 16
    assert cell_slots([1024, 1]) == 16
    assert grid([1024, 4096], [1024, 16]) == (16, 16)
    assert grid([768, 768], [256, 16]) == (8, 6)
    columns, rows = grid([15728], [16])
    assert columns * rows >= 983
