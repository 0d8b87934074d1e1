"""What happened at an instant: a sample of the device, a preemption. Lines of `device.jsonl`, `preemptions.jsonl`."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ConfigDict


class Record:
    """What can be read from a line: other keys than the fields, other types, NaN and infinity are refused."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Sample(Record):
    """Device memory at one instant, seen from outside: `device.jsonl`. Fields that the source lacks are None."""

    t_s: float
    used_bytes: int
    utilisation: float | None = None  # share of the interval in which the GPU was busy, 0 to 1
    sm_clock_mhz: int | None = None
    temperature_c: int | None = None
    power_w: float | None = None
    throttle: int | None = None  # NVML's bit mask of clock event reasons
    other_processes: int | None = None  # processes on the device that are not of this run
    energy_j: float | None = None  # NVML's total energy counter, all GPUs in use; differences count, not the value
    used_bytes_each: list[int] | None = None  # of each GPU in use, where there are several
    energy_j_each: list[float] | None = None


@dataclass(frozen=True)
class Preemption(Record):
    """One request lost its cache in step `step`: `preemptions.jsonl`. Its `tokens` are computed again later, unless its
    `last_token_under_way` was being sampled (asynchronous scheduling).
    """

    t_s: float
    step: int
    request: int
    tokens: int
    last_token_under_way: bool = False
    part: str = "all"
