"""How padded batches are filled; torch is not needed for it."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from kvlab.measure.engines.transformers.generate import _batches
from kvlab.records import Request

LENGTH = 64
lengths = st.tuples(st.integers(1, LENGTH - 1), st.integers(1, LENGTH)).filter(lambda pair: sum(pair) <= LENGTH)
workloads = st.lists(lengths, min_size=1, max_size=40).map(
    lambda pairs: [Request(id, [0] * prompt, output) for id, (prompt, output) in enumerate(pairs)]
)


def fits(batch: list[Request]) -> bool:
    longest = max(len(r.prompt_token_ids) for r in batch)
    return longest + max(r.max_new_tokens for r in batch) <= LENGTH


@given(workloads, st.integers(1, 8))
def test_every_request_is_served_once_in_order_of_arrival(requests, rows):
    assert [r for batch in _batches(requests, rows, LENGTH) for r in batch] == requests


@given(workloads, st.integers(1, 8))
def test_a_batch_fits_its_rows_and_their_length(requests, rows):
    assert all(len(batch) <= rows and fits(batch) for batch in _batches(requests, rows, LENGTH))


@given(workloads, st.integers(1, 8))
def test_no_request_waits_that_would_have_fitted(requests, rows):
    batches = list(_batches(requests, rows, LENGTH))
    for batch, following in itertools.pairwise(batches):
        assert len(batch) == rows or not fits([*batch, following[0]])
