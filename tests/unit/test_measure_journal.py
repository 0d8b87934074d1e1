"""What is noted while requests are served."""

from __future__ import annotations

import pytest

from kvlab.errors import NotRunnable
from kvlab.measure.journal import Journal, now_ns, seconds
from kvlab.records import Request

REQUESTS = [Request(7, [1, 2, 3], 2), Request(8, [4], 1)]


def served() -> Journal:
    journal = Journal(REQUESTS, "cut")
    journal.arrive([7, 8], 1_000)
    journal.step(1_100, 2, 0, 0, 2, [[7, 3, 16], [8, 1, 16]])
    journal.tokens(7, [50], 2_000_000)
    journal.tokens(8, [60], 2_000_000)
    journal.finish(8, "length", 2_000_000)
    journal.step(2_100_000, 1, 0, 0, 1, [[7, 4, 16]])
    journal.tokens(7, [51], 3_000_000)
    journal.finish(7, "length", 3_000_000, cached_tokens=2)
    return journal


def test_lines_of_a_part():
    journal = served()
    first, second = journal.served(origin_ns=0)
    assert (first.id, first.prompt_tokens, first.output_tokens, first.cached_tokens) == (7, 3, 2, 2)
    assert (first.arrival_s, first.token_s, first.finish_s) == (1e-6, [0.002, 0.003], 0.003)
    assert (second.id, second.token_s, second.part) == (8, [0.002], "cut")
    steps = journal.stepped(origin_ns=0, first=5)
    assert [(step.step, step.t_s, step.running, step.part) for step in steps] == [
        (5, 1e-6, 2, "cut"),
        (6, 0.0021, 1, "cut"),
    ]
    assert [output.text for output in journal.outputs(str)] == ["[50, 51]", "[60]"]


def test_times_are_those_of_the_origin():
    assert seconds(3_000_000_000, 1_000_000_000) == 2.0
    assert served().served(origin_ns=1_000_000)[0].token_s == [0.001, 0.002]


def test_a_request_that_got_less_than_it_asked_for_is_a_fault():
    served().check()
    short = Journal(REQUESTS)
    short.tokens(7, [50, 51], 1)
    short.finish(7, "length", 1)
    with pytest.raises(RuntimeError, match=r"request 8 .* got 0 of 1"):
        short.check()


def test_a_request_that_was_not_finished_is_a_fault():
    journal = Journal([REQUESTS[1]])
    journal.tokens(8, [60], 1)
    with pytest.raises(RuntimeError, match="finish reason None"):
        journal.check()


def test_past_the_deadline_the_next_token_stops_the_run():
    journal = Journal(REQUESTS, "all", deadline_ns=100)
    journal.tokens(7, [50], 99)
    with pytest.raises(NotRunnable, match=r"time budget.*0 of 2 requests of part 'all'"):
        journal.tokens(7, [51], 101)


def test_the_clock_is_the_systems_monotonic_one():
    import time

    before, now, after = (
        time.clock_gettime_ns(time.CLOCK_MONOTONIC),
        now_ns(),
        time.clock_gettime_ns(time.CLOCK_MONOTONIC),
    )
    assert before <= now <= after


def test_every_finish_is_reported():
    told = []
    journal = Journal(REQUESTS, on_finish=lambda j: told.append((j.finished, j.output_tokens)))
    journal.tokens(8, [60], 1)
    journal.finish(8, "length", 1)
    journal.tokens(7, [50, 51], 2)
    journal.finish(7, "length", 2)
    assert told == [(1, 1), (2, 3)]
