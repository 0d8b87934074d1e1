"""When requests arrive, drawn once with the workload: at a rate of one a second, which each cell divides by its own."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from kvlab.errors import ConfigError
from kvlab.records import Request

STAMP = "TIMESTAMP"


def planned(requests: Sequence[Request], kind: str, wanted: dict[str, Any], seed: int) -> list[Request]:
    """`requests` with `arrival_s`, ascending. `kind`: poisson, or trace: the time stamps of `wanted["trace"]`.

    ConfigError where the trace has no time stamps, fewer than there are requests, or stamps that run backwards.
    """
    if kind == "poisson":
        times = np.cumsum(np.random.default_rng([seed, 5]).exponential(1.0, len(requests)))
    else:
        times = _stamps(str(wanted["trace"]), len(requests))
    return [replace(one, arrival_s=round(float(t), 6)) for one, t in zip(requests, times, strict=True)]


def _stamps(trace: str, count: int) -> Any:
    """Seconds since the trace began of its first `count` requests, scaled to one a second in the mean."""
    try:
        rows = list(csv.DictReader(io.StringIO(Path(trace).read_text(encoding="utf-8-sig"))))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"requests.trace {trace}: cannot be read ({error}); arrivals need its stamps") from None
    if not rows or STAMP not in rows[0]:
        raise ConfigError(f"requests.trace {trace}: has no column {STAMP}; arrivals of kind trace need time stamps")
    if len(rows) < count + 1:
        raise ConfigError(f"requests.trace {trace}: {len(rows)} time stamps, {count + 1} are needed; lower requests")
    stamps = []
    for number, row in enumerate(rows[: count + 1], start=2):
        text = row[STAMP].strip()
        whole, _, part = text.partition(".")
        try:
            stamps.append(datetime.fromisoformat(whole).timestamp() + float(f"0.{part or 0}"))
        except ValueError:
            raise ConfigError(f"{trace}:{number}: {text!r} is no time stamp; write 2023-11-16 18:15:46.68") from None
        if len(stamps) > 1 and stamps[-1] < stamps[-2]:
            raise ConfigError(f"{trace}:{number}: arrives before the request above it; sort the trace by its stamps")
    times = np.array(stamps[1:]) - stamps[0]
    if times[-1] <= 0:
        raise ConfigError(f"requests.trace {trace}: all its requests arrive at one time; there is no rate to scale")
    return times * (count / times[-1])
