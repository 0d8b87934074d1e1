"""Predictions: what a run that is not yet made is expected to give, in a file that can be committed before the run.

A cell is an arm at a rate (None: all requests are there from the start) with a seed. The file says what it rests on:
the calibration's runs by their digests, the lengths, the windows of time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvlab.allocators.contiguous import SimulatedRequest
from kvlab.errors import LogError
from kvlab.records import read_text, write_json
from kvlab.simulate.forecasts.calibration import Calibration
from kvlab.simulate.forecasts.forecast import Outcome, Setting, poisson, serve

HALVINGS = 10  # of the interval that contains a sustained rate

Pairs = Sequence[tuple[int, int]]  # (prompt, output) tokens
Draw = Callable[[int, int], Pairs]  # so many requests, of this seed


@dataclass(frozen=True)
class Cell:
    """One arm in one block at one rate (requests a second; None: a closed batch), and what is expected of it."""

    workload: str
    arm: str
    rate: float | None
    block: int
    expected: Outcome


@dataclass(frozen=True)
class Sustained:
    """The rate at which the mean time from arrival to the last token reaches `bound_s` an output token."""

    workload: str
    arm: str
    seed: int
    bound_s: float
    arrive_s: float
    rate: float | None  # None: below the bound at every rate that was tried, or never below it


def sustained(
    draw: Draw,
    seed: int,
    setting: Setting,
    calibration: Calibration,
    *,
    bound_s: float,
    arrive_s: float,
    lowest: float = 0.02,
    highest: float = 100.0,
    halvings: int = HALVINGS,
) -> float | None:
    """The highest rate at which the mean time a token stays within `bound_s`, by halving on a log scale.

    All requests that arrive in `arrive_s` are served to their end. None where even `lowest` is above the bound, or
    `highest` is not.
    """

    def within(rate: float) -> bool:
        jobs = _arriving(draw, rate, arrive_s, seed)
        _, timeline = serve(jobs, setting, calibration.step_times)
        return float(timeline.finished().per_token().mean()) <= bound_s

    low, high = lowest, lowest
    if not within(low):
        return None
    while within(high):
        low, high = high, 2 * high
        if high > highest:
            return None
    for _ in range(halvings):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if within(middle) else (low, middle)
    return math.sqrt(low * high)


def _arriving(draw: Draw, rate: float, seconds: float, seed: int) -> list[SimulatedRequest]:
    """Requests that arrive within `seconds` at random, `rate` a second; the first one in any case."""
    count = math.ceil(rate * seconds + 6 * math.sqrt(rate * seconds) + 10)
    first, *others = poisson(draw(count, seed), rate, seed)
    return [first, *(job for job in others if job.arrival < seconds)]


def write(path: Path, document: Mapping[str, Any]) -> None:
    """The prediction file; the same predictions give the same bytes."""
    write_json(path, document)


@dataclass(frozen=True)
class Predictions:
    """A prediction file, read back: what it rests on, its cells, its sustained rates."""

    head: dict[str, Any]
    cells: list[Cell]
    sustained: list[Sustained]


def read(path: Path) -> Predictions:
    """LogError where the file is not one of predictions."""
    try:
        document = json.loads(read_text(path))
        cells = [Cell(**cell | {"expected": Outcome(**cell["expected"])}) for cell in document.pop("cells")]
        rates = [Sustained(**rate) for rate in document.pop("sustained")]
    except (KeyError, TypeError, ValueError) as error:
        raise LogError(f"{path}: not a file of predictions ({error}); make it with: kvlab predict") from None
    return Predictions(document, cells, rates)
