"""What is computed from a run's step log beyond the division of its pool: the time in which requests queue, what
preemption cost, how evenly its steps took their time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kvlab.accounting import Floats
from kvlab.analyse.statistics import SATURATED_FULL
from kvlab.raw import RawRun

SETTLED = 2  # steps of decoding alone, after which a step's time is its own
FEWEST_STEPS = 20  # of one number of rows, from which their usual time is known


class Recomputed(NamedTuple):
    """What preemption cost: token states computed again, those computed in all, requests that were preempted."""

    tokens: int
    computed: int
    requests: int


def queue_weights(run: RawRun) -> Floats | None:
    """Seconds that each step's state lasted, [n], 0 where no request waited; None where none ever did."""
    weights: Floats = np.where(run.accounting.waiting > 0, run.weights, 0.0)
    return weights if weights.sum() > 0 else None


def queue_span(run: RawRun) -> float:
    """Seconds in which requests waited for KV slots."""
    found = queue_weights(run)
    return 0.0 if found is None else float(found.sum())


def queue_throughput(run: RawRun) -> float | None:
    """Output tokens a second that reached their callers while requests waited."""
    weights = queue_weights(run)
    if weights is None:
        return None
    starts = run.accounting.t_s
    tokens = np.array([t for one in run.served for t in one.token_s])
    at = np.searchsorted(starts, tokens, side="right") - 1
    inside = int((weights[np.clip(at, 0, None)] > 0)[at >= 0].sum())
    return inside / float(weights.sum())


def queue_mean(run: RawRun, name: str) -> float | None:
    """Mean of an accounting column while requests wait."""
    weights = queue_weights(run)
    return None if weights is None else run.accounting.mean(name, weights)


def per_request(run: RawRun) -> float | None:
    """KV bytes charged for each request that runs: while requests wait, over the whole run where none does."""
    weights = queue_weights(run)
    used = run.weights if weights is None else weights
    running = run.accounting.mean("holding", used)
    return run.accounting.mean("allocated", used) / running * run.run.kv_bytes_per_slot if running else None


def time_full(run: RawRun) -> float:
    """Part of the measured time, 0 to 1, in which at least 90 % of the pool was allocated."""
    total = float(run.weights.sum())
    full = run.accounting.allocated >= SATURATED_FULL * run.accounting.pool
    return float(run.weights[full].sum()) / total if total else 0.0


def recomputed(run: RawRun) -> Recomputed:
    """From the log of preemptions; from the held tokens where the run lacks it, as runs of older versions do, or where
    its engine notes none in it.
    """
    again, back = _from_preemptions(run) if _noted(run) else from_held(run)
    useful = sum(one.prompt_tokens + max(one.output_tokens, 1) - 1 for one in run.served)
    return Recomputed(again, useful + again, len(back))


def _noted(run: RawRun) -> bool:
    return run.preemptions is not None and len(run.preemptions) == int(run.accounting.preempted.sum())


def _from_preemptions(run: RawRun) -> tuple[int, set[int]]:
    """Tokens computed again, and the requests that did: each that was admitted again, unless its last token was
    being computed."""
    held = {entry[0]: step.t_s for step in run.steps for entry in step.held}  # the last time that each held cache
    lost = [one for one in run.preemptions or [] if not one.last_token_under_way and held.get(one.request, 0) > one.t_s]
    return sum(one.tokens for one in lost), {one.request for one in lost}


def from_held(run: RawRun) -> tuple[int, set[int]]:
    """The same from the held tokens: a request that loses its cache and is admitted again computes again what it had.

    A request whose last token was being computed when it lost its cache is not admitted again.
    """
    last: dict[int, int] = {}
    lost: dict[int, int] = {}
    again = 0
    back: set[int] = set()
    before: set[int] = set()
    for step in run.steps:
        here = {entry[0] for entry in step.held}
        for gone in before - here:
            lost[gone] = last[gone]
        for request, tokens, _ in step.held:
            if request in lost:
                again += lost.pop(request)
                back.add(request)
            last[request] = tokens
        before = here
    return again, back


def longest_stall(run: RawRun) -> float | None:
    """Longest time between two output tokens of a request, seconds."""
    gaps = [float(np.diff(one.token_s).max()) for one in run.served if len(one.token_s) > 1]
    return max(gaps, default=None)


def step_spread(run: RawRun) -> float | None:
    """How uneven decode steps are: the 95th percentile of a step's time ÷ the median of those with as many rows.

    Only steps in which every row that was there a step before has one token more, and none came or went, the two steps
    before alike (an engine that schedules ahead notes a prefill's time up to two steps later): what else than rows and
    cache decides their time is not the engine's work. None where too few steps can be compared.
    """
    by_rows: dict[int, list[float]] = {}
    even = 0  # steps in a row in which nothing but decoding happened
    for one, after in zip(run.steps, run.steps[1:], strict=False):
        grown = [[request, tokens + 1] for request, tokens, _ in one.held]
        even = even + 1 if one.held and grown == [entry[:2] for entry in after.held] else 0
        if even > SETTLED:
            by_rows.setdefault(len(one.held), []).append(after.t_s - one.t_s)
    return _spread([np.array(times) for times in by_rows.values() if len(times) >= FEWEST_STEPS])


def _spread(groups: Sequence[Floats]) -> float | None:
    relative = [times / np.median(times) for times in groups if np.median(times) > 0]
    return float(np.percentile(np.concatenate(relative), 95)) if relative else None


def busy(run: RawRun) -> float | None:
    """Part of the measured window in which the GPU was busy, from its samples; None without any."""
    start, end = run.window
    seen = [s.utilisation for s in run.samples if start <= s.t_s <= end and s.utilisation is not None]
    return float(np.mean(seen)) if seen else None


def joules_per_token(run: RawRun) -> float | None:
    """The energy counter's rise over the measured time ÷ output tokens; None where it is missing or time is short."""
    start, end = run.window
    seen = [
        (s.t_s, s.energy_j) for s in run.samples if start <= s.t_s <= min(end, run.end_s) and s.energy_j is not None
    ]
    if len(seen) < 2 or seen[-1][0] - seen[0][0] < SHORTEST_S:
        return None
    tokens = sum(seen[0][0] < t <= seen[-1][0] for one in run.served for t in one.token_s)
    return (seen[-1][1] - seen[0][1]) / tokens if tokens else None


SHORTEST_S = 5.0  # an energy counter is too coarse for less


def halves(run: RawRun) -> float | None:
    """Throughput over the later half of a sequential arm's requests ÷ over the earlier half."""
    through = [one for one in run.served if one.finish_s is not None]
    middle = len(through) // 2
    if run.run.settings.get("arm", {}).get("feed") != "sequential" or middle < 1:
        return None
    first, second = (
        sum(one.output_tokens for one in part) / sum((one.finish_s or 0.0) - one.arrival_s for one in part)
        for part in (through[:middle], through[middle:])
    )
    return second / first if first else None
