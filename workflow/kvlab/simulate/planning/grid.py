"""When paging gains, for other settings too: one grid over pool, block size, maximum length and rate, simulated
beforehand.

`predicted/grid.json` holds every point; the map is its slice at the run's own block size and maximum length. Requests
are the run's own. With step times the points have throughput and latency; without, requests together alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from kvlab.allocators.contiguous import SimulatedRequest
from kvlab.errors import KvlabError
from kvlab.raw import RawRun
from kvlab.simulate.counterfactual import jobs_of
from kvlab.simulate.forecasts.calibration import Calibration
from kvlab.simulate.forecasts.forecast import Setting, forecast, poisson, serve
from kvlab.simulate.step_times import StepTimes
from kvlab.simulate.timeline import run_record

UTILISATION, ALLOWANCE = 0.92, 2 * 2**30  # of the whole GPU as pool: vLLM's default, and 2 GiB beside the weights
BLOCKS = (16, 64, 256)
LOADS = (0.5, 0.8, 1.2)  # rates, as parts of what the run's own pool serves of a full queue under paging
ARRIVE_S = 40.0
ENDS = 1.02  # paging's gain below which it counts as none


@dataclass(frozen=True)
class GridPoint:
    """One simulated point. `rate`: requests a second, None: a queue that is full from the start.

    `gain` is filled for paged: throughput (requests together where there are no times) ÷ that of orca-max on the same
    pool and load, at the run's own maximum length; None where one of the two can't serve.
    """

    policy: str
    pool: int
    block: int
    max_len: int
    rate: float | None
    together: float
    throughput: float | None
    per_token_s: float | None
    preempted: float
    outside: float | None
    gain: float | None = None


def make(raw: RawRun, calibration: Calibration | None) -> dict[str, Any]:
    """The grid of one run's requests: `axes`, `own` (the run's point on them), `points`, and where the gain ends."""
    run = raw.run
    jobs = jobs_of(raw.steps, raw.served)
    pools, lengths = _pools(raw), _lengths(raw, jobs)
    rates: list[float | None] = [None]
    if calibration is not None:
        full = _point(raw, jobs, "paged", run.pool_slots, run.block_size, run.max_model_len, None, calibration)
        assert full is not None
        assert full.throughput is not None
        capacity = full.throughput / float(np.mean([job.output for job in jobs]))
        rates += [float(f"{load * capacity:.2g}") for load in LOADS]
    points = list(_points(raw, jobs, pools, lengths, rates, calibration))
    full_queue = [one for one in points if one.gain is not None and one.rate is None and one.block == run.block_size]
    ends = next((one.pool for one in full_queue if one.gain is not None and one.gain < ENDS), None)
    return {
        "schema": 1,
        "workload": run.workload,
        "run": raw.name,
        "timed": calibration is not None,
        "axes": {"pool": pools, "block": list(_blocks(raw)), "max_len": lengths, "rate": rates},
        "own": {"pool": run.pool_slots, "block": run.block_size, "max_len": run.max_model_len, "rate": None},
        "whole_gpu": pools[-1] if run.device_total_bytes and run.weights_bytes and run.device == "cuda" else None,
        "gain_ends_at_pool": ends,
        "sources": [asdict(raw.source(name)) for name in ("run.json", "requests.jsonl", "steps.jsonl")],
        "points": [asdict(one) for one in points],
    }


def _pools(raw: RawRun) -> list[int]:
    """From starved to the whole GPU, the run's own among them, slots."""
    run, own = raw.run, raw.run.pool_slots
    longest = max((one.prompt_tokens + one.output_tokens for one in raw.served), default=1)
    most = 4 * own
    if run.device == "cuda" and run.device_total_bytes and run.weights_bytes:
        left = run.device_total_bytes * UTILISATION - run.weights_bytes - ALLOWANCE
        most = max(own, int(left / run.kv_bytes_per_slot) // run.block_size * run.block_size)
    steps = [own // 4, own // 2, own, 2 * own, 4 * own, most]
    return sorted({slots for slots in steps if longest <= slots <= max(most, own)})


def _lengths(raw: RawRun, jobs: Sequence[SimulatedRequest]) -> list[int]:
    longest = max((job.final + 1 for job in jobs), default=1)
    own = raw.run.max_model_len
    return sorted({own, 2 * own, 4 * own, 8 * own, *([1 << (longest - 1).bit_length()] if longest > 1 else [])})


def _blocks(raw: RawRun) -> list[int]:
    return sorted({raw.run.block_size, *BLOCKS})


def _points(
    raw: RawRun,
    jobs: Sequence[SimulatedRequest],
    pools: Sequence[int],
    lengths: Sequence[int],
    rates: Sequence[float | None],
    calibration: Calibration | None,
) -> Iterator[GridPoint]:
    own = raw.run.max_model_len
    for pool in pools:
        for rate in rates:
            reserving = {
                length: _point(raw, jobs, "orca-max", pool, raw.run.block_size, length, rate, calibration)
                for length in lengths
            }
            yield from (one for one in reserving.values() if one is not None)
            against = reserving.get(own)
            for block in _blocks(raw):
                one = _point(raw, jobs, "paged", pool, block, own, rate, calibration)
                if one is not None:
                    yield GridPoint(**asdict(one) | {"gain": _gain(one, against)})


def _gain(paged: GridPoint, against: GridPoint | None) -> float | None:
    if against is None:
        return None
    if paged.throughput is not None and against.throughput:
        return paged.throughput / against.throughput
    return paged.together / against.together


def _point(
    raw: RawRun,
    jobs: Sequence[SimulatedRequest],
    policy: str,
    pool: int,
    block: int,
    max_len: int,
    rate: float | None,
    calibration: Calibration | None,
) -> GridPoint | None:
    """One point; None where a request can't be served there."""
    run = raw.run
    budget = run.engine.get("max_num_batched_tokens")
    setting = Setting(policy, pool, max_len, block, run.max_num_seqs, budget, bool(run.engine.get("async_scheduling")))
    try:
        if calibration is None:
            allocator, timeline = serve(jobs, setting, StepTimes(1.0))
            found = timeline.accounting(run_record(allocator, "grid", policy, 0, len(timeline)), allocator)
            queued = (found.waiting > 0).astype(np.float64)
            together = found.mean("holding", queued)
            preempted = float(timeline.preempted.sum()) / len(jobs)
            return GridPoint(policy, pool, block, max_len, rate, together, None, None, preempted, None)
        arriving, until = list(jobs), math.inf
        if rate is not None:
            count = math.ceil(rate * ARRIVE_S)
            pairs = [(one.prompt, one.output) for one in (jobs[n % len(jobs)] for n in range(count))]
            arriving, until = poisson(pairs, rate, 0), 1.5 * ARRIVE_S
        seen = forecast(arriving, setting, calibration, until=until)
    except KvlabError:
        return None
    return GridPoint(
        policy=policy,
        pool=pool,
        block=block,
        max_len=max_len,
        rate=rate,
        together=seen.running if seen.running_queued is None else seen.running_queued,
        throughput=seen.throughput,
        per_token_s=seen.per_token_mean,
        preempted=seen.preempted / max(1, seen.requests),
        outside=seen.outside,
    )
