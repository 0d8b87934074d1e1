"""Medians, bootstrap intervals of quantities and ratios, and the rules by which a run counts.

The unit of repetition is the process: requests and steps within one run share its caches, clocks and disturbances, so
resampling them would give intervals that are too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kvlab.messages import Message, Said, several

FEWEST = 3  # repeats below which no interval is given
ENOUGH = 6  # repeats from which an interval of the median can reach 95 %
BUSY = 0.90  # share of the measured window; a GPU that is busy for less is limited by its host
SPREAD = 1.5  # the slowest decode steps ÷ the usual one with as many rows: beyond, something else slowed them
SATURATED_FULL = 0.90  # the pool counts as filled from this share of allocated slots on
SATURATED_TIME = 0.20  # part of the measured time in which requests wait
NOISY = 0.10  # distance from the arm's median throughput


@dataclass(frozen=True)
class Settings:
    """`bootstrap_resamples`, and `confidence` as a share (0.95)."""

    bootstrap_resamples: int
    confidence: float


def median(samples: Sequence[float]) -> float:
    """The middle one; the mean of the two middle ones where there is an even number."""
    return float(np.median(samples))


def interval(samples: Sequence[float], settings: Settings) -> tuple[tuple[float, float], str] | None:
    """How far repeats of a quantity spread, and what kind of interval it is; None below three of them.

    Below six repeats no interval of the median reaches 95 %: lowest and highest of three cover it three times in four.
    So below six the interval is the range of the repeats; from six on, a bootstrap interval (percentiles) of the
    median.
    """
    if len(samples) < FEWEST:
        return None
    if len(samples) < ENOUGH:
        return (min(samples), max(samples)), "range"
    return _bootstrap([samples], lambda a, axis: np.median(a, axis=axis), settings), "bootstrap"


def ratio_interval(top: Sequence[float], bottom: Sequence[float], settings: Settings) -> tuple[float, float] | None:
    """t interval of the ratio: of the mean logarithm of top ÷ bottom, block by block; None below three blocks.

    `top` and `bottom`: positive, one a block, in the same order. A block is a process with its own order of the
    requests, the same for both; what all of a block share (clocks, heat, the requests) then cancels.
    """
    logs = _logs(top, bottom)
    if len(logs) < FEWEST:
        return None
    if np.ptp(logs) <= 1e-12:
        return math.exp(logs[0]), math.exp(logs[0])
    from scipy import stats

    found = stats.ttest_1samp(logs, 0.0).confidence_interval(settings.confidence)
    return math.exp(found.low), math.exp(found.high)


def ratio(top: Sequence[float], bottom: Sequence[float]) -> float:
    """Geometric mean of top ÷ bottom, block by block: ratios of ratios then multiply to the whole."""
    return math.exp(np.mean(_logs(top, bottom)))


def _logs(top: Sequence[float], bottom: Sequence[float]) -> np.ndarray:
    """By the C library: NumPy's own log and exp give another last bit on a processor with AVX-512."""
    return np.array([math.log(a / b) for a, b in zip(top, bottom, strict=True)])


def _bootstrap(
    samples: list[Sequence[float]], statistic: Callable[..., Any], settings: Settings
) -> tuple[float, float]:
    if all(len(set(s)) == 1 for s in samples):  # no spread: the interval is the value, and SciPy would warn
        value = float(statistic(*[np.asarray(s, dtype=float) for s in samples], axis=-1))
        return value, value
    from scipy import stats

    found = stats.bootstrap(
        [np.asarray(s, dtype=float) for s in samples],
        statistic,
        n_resamples=settings.bootstrap_resamples,
        confidence_level=settings.confidence,
        method="percentile",
        rng=np.random.default_rng(0),  # the same logs give the same interval
    ).confidence_interval
    return float(found.low), float(found.high)


@dataclass(frozen=True)
class Observed:
    """What decides how one run counts. Shares are 0 to 1, of the measured time or the pool."""

    faults: list[Said]  # what makes its numbers wrong: token counts, prefix-cache hits, another budget
    disturbances: list[Said]  # what makes them doubtful: other processes, throttling
    throughput: float
    arm_median: float
    time_full: float
    time_waiting: float


def classify(run: Observed) -> tuple[str, Said]:
    """(class, reason). Rules, the first that fits: broken, noisy, saturated, steady.

    broken: any fault. noisy: any disturbance, or a throughput more than 10 % off the arm's median. saturated: at least
    90 % of the pool allocated and requests waiting, each in at least 20 % of the time. steady: the rest. Only broken
    runs are left out of the figures.
    """
    if run.faults:
        return "broken", several(run.faults)
    if run.disturbances:
        return "noisy", several(run.disturbances)
    off = abs(run.throughput / run.arm_median - 1) if run.arm_median else 0.0
    if off > NOISY:
        return "noisy", Message("off-median", {"off": f"{off:.0%}"})
    shown = {"full": f"{run.time_full:.0%}", "time": f"{run.time_waiting:.0%}"}
    if run.time_full >= SATURATED_TIME and run.time_waiting >= SATURATED_TIME:
        return "saturated", Message("saturated", shown)
    return "steady", Message("had-room" if run.time_full < SATURATED_TIME else "little-waited", shown)
