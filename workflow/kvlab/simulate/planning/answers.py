"""The answers of a plan. What is simulated for several seeds has its range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Spread:
    """A value over seeds: mean, least, largest."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """At least one value."""
        return cls(float(np.mean(values)), float(min(values)), float(max(values)))


@dataclass(frozen=True)
class Together:
    """Requests that hold cache together while others wait: mean over seeds, and how it is spread over time."""

    policy: str
    mean: Spread
    p5: float
    p50: float
    p95: float
    tokens: Spread  # part of the pool that stores tokens
    gain: Spread | None  # paged ÷ this policy, seed by seed; None for paged
    throughput: Spread | None  # output tokens a second, with a calibration
    sustained: Spread | None  # requests a second within the bound, with a calibration
    refused: str | None = None  # why it can't serve these lengths


@dataclass(frozen=True)
class Loaded:
    """Paged at a rate, with a calibration."""

    rate: float
    running: Spread
    ttft: Spread
    tpot: Spread
    latency: Spread
    latency_p95: Spread
    per_token: Spread
    preempted: Spread
    outside: float


@dataclass(frozen=True)
class Plan:
    """All answers. `slots` are tokens; shares 0 to 1; times in seconds; rates in requests a second."""

    model: str
    kv_bytes: int
    slots: int
    max_model_len: int
    block: int
    requests: int
    seeds: int
    prompt_mean: float
    output_mean: float
    together: list[Together]
    fits: bool  # the pool holds all requests of the batch at once: reserving and paging gain the same
    preempts_from: int | None  # least requests together at which one is preempted; None: never
    preempted: Spread  # preemptions a request with the queue full
    recomputed: Spread  # token states computed again ÷ all that were computed
    waste: dict[int, Spread]  # block size -> part of held slots that stores nothing
    max_num_seqs: int
    loaded: list[Loaded]
    bound_s: float
    calibration: str | None
    outside: float | None  # part of the time beyond what was calibrated
