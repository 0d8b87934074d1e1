"""The phases of each request, read from a run's logs: waiting, prefill, decode, and when it was preempted.

The timeline and the trace are drawn from them.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from kvlab.raw import RawRun
from kvlab.records import Served


@dataclass(frozen=True)
class RequestPhases:
    """One request's. `spans`: (phase, start, end), phase one of waiting, prefill, decode; seconds since the origin.

    A preempted request waits again and its prefill is computed again; `preempted` has the times at which it lost its
    cache.
    """

    request: Served
    spans: list[tuple[str, float, float]]
    preempted: list[float]


def request_phases(run: RawRun) -> list[RequestPhases]:
    """The phases of all requests that finished, in the order of the log.

    Without recorded steps nothing is known of the time before the first token, which then counts as prefill.
    """
    held = stretches(run)
    return [_phases(one, held.get(one.id, [])) for one in run.served if one.finish_s is not None and one.token_s]


def stretches(run: RawRun) -> dict[int, list[tuple[float, float]]]:
    """When each request held KV cache, by id: (start, end) in seconds; more than one where it was preempted."""
    found: dict[int, list[tuple[float, float]]] = {}
    since: dict[int, float] = {}
    for step in run.steps:
        here = {entry[0] for entry in step.held}
        for request in since.keys() - here:
            found.setdefault(request, []).append((since.pop(request), step.t_s))
        for request in here - since.keys():
            since[request] = step.t_s
    for request, start in since.items():
        found.setdefault(request, []).append((start, max(start, run.end_s)))
    return found


def _phases(one: Served, held: list[tuple[float, float]]) -> RequestPhases:
    assert one.finish_s is not None
    held = held or [(one.arrival_s, one.finish_s)]
    spans: list[tuple[str, float, float]] = []
    at = one.arrival_s
    for number, (start, end) in enumerate(held):
        start = max(start, at)
        end = one.finish_s if number == len(held) - 1 else min(end, one.finish_s)
        after = bisect_right(one.token_s, start)
        first = min(one.token_s[after] if after < len(one.token_s) else end, end)
        for phase, until in (("waiting", start), ("prefill", first), ("decode", end)):
            if until > at:
                spans.append((phase, at, until))
                at = until
    return RequestPhases(one, spans, [end for _, end in held[:-1]])
