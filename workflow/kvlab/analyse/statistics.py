"""Medians, bootstrap intervals of quantities and ratios, and the rules by which a run counts.

The unit of repetition is the process: requests and steps within one run share its warm caches, clocks and luck, so
resampling them would give intervals that are too narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

FEWEST = 3  # repeats below which no interval is given
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


def interval(samples: Sequence[float], settings: Settings) -> tuple[float, float] | None:
    """Bootstrap interval (percentiles) of the median; None below three repeats."""
    return _bootstrap([samples], lambda a, axis: np.median(a, axis=axis), settings)


def ratio_interval(top: Sequence[float], bottom: Sequence[float], settings: Settings) -> tuple[float, float] | None:
    """Bootstrap interval of median(top) / median(bottom), the two resampled apart; None below three repeats of each."""
    return _bootstrap([top, bottom], lambda a, b, axis: np.median(a, axis=axis) / np.median(b, axis=axis), settings)


def _bootstrap(
    samples: list[Sequence[float]], statistic: Callable[..., Any], settings: Settings
) -> tuple[float, float] | None:
    if min(len(s) for s in samples) < FEWEST:
        return None
    if all(len(set(s)) == 1 for s in samples):  # no spread: the interval is the value, and SciPy would warn
        value = float(statistic(*[np.asarray(s, dtype=float) for s in samples], axis=-1))
        return value, value
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

    faults: list[str]  # what makes its numbers wrong: token counts, prefix-cache hits, another budget
    disturbances: list[str]  # what makes them doubtful: other processes, throttling
    throughput: float
    arm_median: float
    peak_allocated: float
    time_waiting: float


def classify(run: Observed) -> tuple[str, str]:
    """(class, reason). Rules, the first that fits: broken, noisy, saturated, steady.

    broken: any fault. noisy: any disturbance, or a throughput more than 10 % off the arm's median. saturated: at least
    90 % of the pool allocated at the peak and requests waiting in at least 20 % of the time. steady: the rest. Only
    broken runs are left out of the figures.
    """
    if run.faults:
        return "broken", "; ".join(run.faults)
    if run.disturbances:
        return "noisy", "; ".join(run.disturbances)
    off = abs(run.throughput / run.arm_median - 1) if run.arm_median else 0.0
    if off > NOISY:
        return "noisy", f"throughput {off:.0%} off the arm's median"
    if run.peak_allocated >= SATURATED_FULL and run.time_waiting >= SATURATED_TIME:
        return (
            "saturated",
            f"pool {run.peak_allocated:.0%} allocated at the peak, requests waiting {run.time_waiting:.0%}",
        )
    return "steady", "the pool had room" if run.peak_allocated < SATURATED_FULL else "little waited"
