"""What a run gives, from its requests' lengths and arrivals alone: the simulator with a clock in seconds.

The same numbers, by the same function, for a run that was measured (`measured`) and for one that was not (`forecast`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from kvlab.accounting import SHARES, Accounting, Floats
from kvlab.allocators.contiguous import Allocator, Ints, SimulatedRequest
from kvlab.allocators.policies import allocator_of
from kvlab.errors import KvlabError
from kvlab.messages import Message
from kvlab.raw import RawRun
from kvlab.simulate.counterfactual import jobs_of
from kvlab.simulate.forecasts.calibration import Calibration, Work
from kvlab.simulate.scheduler import Scheduler
from kvlab.simulate.step_times import StepTimes
from kvlab.simulate.timeline import Timeline, run_record


@dataclass(frozen=True)
class Setting:
    """What serves: a policy (`allocator_of`) on a pool of slots, and the engine's bounds on a step."""

    policy: str
    pool: int
    max_len: int
    block: int = 16
    max_running: int | None = None
    token_budget: int | None = None
    asynchronous: bool = True
    sequential: bool = False  # the next request is sent when the one before has ended

    def allocator(self) -> Allocator:
        """An empty pool under the policy."""
        return allocator_of(self.policy, self.pool, self.max_len, self.block, in_blocks=True)


@dataclass(frozen=True)
class Outcome:
    """What a run gave or is expected to give. Times in seconds, shares 0 to 1, None where nothing decides it.

    `per_token_mean`: mean over requests of (last token − arrival) ÷ output tokens, the paper's normalized latency;
    requests that did not end count with their time so far ÷ the tokens asked for. `…_queued`: time-weighted means while
    requests wait.
    `outside`: part of the time in which more ran, was read or was computed than the calibration saw; None where the run
    was measured.
    """

    requests: int
    unfinished: int
    throughput: float
    running: float
    running_queued: float | None
    shares_queued: dict[str, float] | None
    waiting: float
    ttft_median: float
    ttft_p95: float
    tpot_median: float | None
    latency_mean: float
    latency_p95: float
    per_token_mean: float
    preempted: int
    span_s: float
    outside: float | None = None


def outcome(
    arrival: Floats,
    first: Floats,
    last: Floats,
    output: Ints,
    accounting: Accounting,
    weights: Floats,
    *,
    late: tuple[Floats, Ints] | None = None,
    made: int,
    span: float,
    outside: float | None = None,
) -> Outcome:
    """The numbers of one run. `first`, `last`: when a request's first and last token came, [k]; `weights`: seconds [n].

    `made`: output tokens of all requests, in `span` seconds; `late`: (time so far, output tokens) of those that did
    not end.
    """
    if not len(last):
        raise KvlabError(Message("none-ended"))
    latency = last - arrival
    per_token = latency / output
    so_far = np.empty(0)
    if late is not None:
        so_far = late[0] / late[1]
    several = output > 1
    queued = accounting.waiting > 0
    total = float(weights.sum())
    held_up = weights * queued
    some = held_up.sum() > 0
    return Outcome(
        requests=len(last),
        unfinished=len(so_far),
        throughput=made / span,
        running=accounting.mean("holding", weights),
        running_queued=accounting.mean("holding", held_up) if some else None,
        shares_queued={name: accounting.mean_share(name, held_up) for name in SHARES} if some else None,
        waiting=float(held_up.sum()) / total if total else 0.0,
        ttft_median=float(np.median(first - arrival)),
        ttft_p95=float(np.percentile(first - arrival, 95)),
        tpot_median=float(np.median((last - first)[several] / (output - 1)[several])) if several.any() else None,
        latency_mean=float(latency.mean()),
        latency_p95=float(np.percentile(latency, 95)),
        per_token_mean=float(np.concatenate((per_token, so_far)).mean()),
        preempted=int(accounting.preempted.sum()),
        span_s=span,
        outside=outside,
    )


def measured(raw: RawRun) -> Outcome:
    """The numbers of a measured part, from its logs: of an open loop after its first seconds, as it was set up."""
    arrivals, start = _open_loop(raw)
    done = [one for one in raw.served if one.finish_s is not None and one.token_s]
    after = start + arrivals.get("leave_out_s", 0.0)
    counted = [one for one in done if one.arrival_s >= after]
    late = [one for one in raw.served if one.finish_s is None and one.arrival_s >= after]

    def column(values: Sequence[float]) -> Floats:
        return np.array(values, dtype=np.float64)

    return outcome(
        column([one.arrival_s for one in counted]),
        column([one.token_s[0] for one in counted]),
        column([one.token_s[-1] for one in counted]),
        np.array([one.output_tokens for one in counted], dtype=np.int64),
        raw.accounting,
        raw.weights,
        made=sum(len(one.token_s) for one in raw.served),
        span=raw.span_s,
        late=(
            column([raw.end_s - one.arrival_s for one in late]),
            np.array([one.asked_tokens or max(one.output_tokens, 1) for one in late], dtype=np.int64),
        ),
    )


def forecast_of(raw: RawRun, calibration: Calibration, policy: str) -> Outcome:
    """What `measured` is expected to be, from the run's requests alone: their lengths, order and arrivals."""
    run = raw.run
    arrivals, start = _open_loop(raw)
    arrives = {one.id: one.arrival_s - start for one in raw.served} if arrivals else {}
    jobs = [replace(job, arrival=max(0.0, arrives.get(job.id, 0.0))) for job in jobs_of(raw.steps, raw.served)]
    setting = Setting(
        policy=policy,
        pool=run.pool_slots,
        max_len=run.max_model_len,
        block=run.block_size,
        max_running=run.max_num_seqs,
        token_budget=run.engine.get("max_num_batched_tokens"),
        asynchronous=bool(run.engine.get("async_scheduling")),
        sequential=run.settings.get("arm", {}).get("feed") == "sequential",
    )
    if not arrivals:
        return forecast(jobs, setting, calibration)
    until = arrivals["duration_s"] + arrivals["drain_s"]
    return forecast(jobs, setting, calibration, until=until, skip_s=arrivals.get("leave_out_s", 0.0))


def _open_loop(raw: RawRun) -> tuple[dict[str, Any], float]:
    """How requests arrived over time, {} where all were there from the start, and when the first second began."""
    arrivals: dict[str, Any] = raw.run.arrivals
    first = min((one.arrival_s for one in raw.served), default=0.0)
    return (arrivals, min(raw.window[0], first)) if arrivals else ({}, first)


def serve(
    jobs: Sequence[SimulatedRequest], setting: Setting, step_times: StepTimes, until: float = math.inf
) -> tuple[Allocator, Timeline]:
    """Serve `jobs`, arrivals in seconds, with steps of `step_times`."""
    allocator = setting.allocator()
    scheduler = Scheduler(
        jobs,
        allocator,
        max_running=1 if setting.sequential else setting.max_running,
        token_budget=setting.token_budget,
        asynchronous=setting.asynchronous,
        step_times=step_times,
    )
    return allocator, scheduler.run(until=until)


def forecast(
    jobs: Sequence[SimulatedRequest],
    setting: Setting,
    calibration: Calibration,
    *,
    until: float = math.inf,
    skip_s: float = 0.0,
) -> Outcome:
    """Serve `jobs` (arrivals in seconds) with `calibration`'s step times. KvlabError where one can't be served.

    `until`: seconds after which it is stopped; those that have arrived and not ended by then enter as lower bounds.
    `skip_s`: latencies of requests that arrive before are left out: the queue has to build up first.
    """
    noted = _Noted(**asdict(calibration.step_times))
    allocator, timeline = serve(jobs, setting, noted, until)
    if not len(timeline):
        raise KvlabError(Message("none-arrives", {"s": f"{until:g}"}))
    accounting = timeline.accounting(run_record(allocator, "forecast", setting.policy, 0, len(timeline)), allocator)
    done, work = timeline.finished(), noted.work()
    arrival = done.arrival
    if setting.sequential:  # a request is sent when the one before has ended
        order = np.argsort(done.last)
        arrival = np.zeros(len(order))
        arrival[order[1:]] = done.last[order[:-1]]
    end = float(timeline.ends[-1])
    counted = arrival >= skip_s
    ended = set(done.request.tolist())
    late = [job for job in jobs if job.id not in ended and skip_s <= job.arrival < end]
    begun = sum(stay.end != "chunk" for stay in timeline.stays) - sum(stay.end == "stored" for stay in timeline.stays)
    return outcome(
        arrival[counted],
        done.first[counted],
        done.last[counted],
        done.output[counted],
        accounting,
        state_s(timeline),
        late=(np.array([end - job.arrival for job in late]), np.array([job.output for job in late], dtype=np.int64)),
        made=int(work.rows.sum()) + begun,
        span=end - min(float(arrival.min()), min((job.arrival for job in late), default=math.inf)),
        outside=calibration.outside(work),
    )


@dataclass(frozen=True)
class _Noted(StepTimes):
    """Step times that record the work of each iteration."""

    work_of_steps: list[tuple[int, int, int, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Checked when they were fitted."""

    def seconds(self, rows: int, kv_tokens: int, prefill_tokens: int) -> float:
        lasts = super().seconds(rows, kv_tokens, prefill_tokens)
        self.work_of_steps.append((rows, kv_tokens, prefill_tokens, lasts))
        return lasts

    def work(self) -> Work:
        return Work(*np.array(self.work_of_steps, dtype=np.float64).reshape(-1, 4).T)


def state_s(timeline: Timeline) -> Floats:
    """Seconds that each iteration's state lasted: until the next was scheduled, or until it ended. [n]"""
    until: Floats = np.minimum(np.append(timeline.clock[1:], timeline.ends[-1]), timeline.ends)
    return until - timeline.clock


def poisson(lengths: Sequence[tuple[int, int]], rate: float, seed: int) -> list[SimulatedRequest]:
    """`lengths` (prompt, output) arriving at random, `rate` a second; a seed's gaps are the same at every rate."""
    if not (math.isfinite(rate) and rate > 0):
        raise KvlabError(f"rate {rate}: requests a second, a finite number above 0")
    # A stream of its own, apart from the one that drew the lengths.
    arrivals = np.cumsum(np.random.default_rng([seed, 1]).exponential(1.0, len(lengths))) / rate
    return [
        SimulatedRequest(n, prompt, output, arrival)
        for n, ((prompt, output), arrival) in enumerate(zip(lengths, arrivals.tolist(), strict=True))
    ]
