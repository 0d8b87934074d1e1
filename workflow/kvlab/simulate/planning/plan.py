"""What fits: requests together, where preemption starts, what blocks waste, what paging gains, for given lengths.

Every answer is simulated with the project's own scheduler and allocators, for several seeds; with a calibration the
same simulation has a clock, and gives throughput and latency too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from kvlab.accounting import Accounting, Floats
from kvlab.allocators.contiguous import SimulatedRequest
from kvlab.errors import ConfigError, KvlabError
from kvlab.simulate.forecasts.calibration import Calibration
from kvlab.simulate.forecasts.forecast import Outcome, Setting, forecast, poisson, serve
from kvlab.simulate.forecasts.predictions import sustained
from kvlab.simulate.planning.answers import Loaded, Plan, Spread, Together
from kvlab.simulate.planning.shape import ModelShape
from kvlab.simulate.step_times import StepTimes
from kvlab.simulate.timeline import run_record

POLICIES = ("orca-max", "orca-pow2", "orca-oracle", "reserved", "paged")
BLOCKS = (1, 8, 16, 32, 64, 128)
GRAPHS = (1, 2, 4, *range(8, 257, 8), *range(272, 513, 16))  # batch sizes with a CUDA graph
MOST_REQUESTS = 1500  # of a closed batch: enough for three pools full, within seconds
STEP = StepTimes(1.0)

Draw = Callable[[int, int], list[tuple[int, int]]]  # so many pairs (prompt, output), of this seed


def make(
    shape: ModelShape,
    dtype: str,
    slots: int,
    draw: Draw,
    *,
    max_model_len: int,
    block: int = 16,
    max_num_seqs: int | None = None,
    seeds: int = 3,
    rate: float | None = None,
    bound_s: float = 0.05,
    calibration: Calibration | None = None,
) -> Plan:
    """The plan. `draw` gives lengths; ConfigError or KvlabError where a request can't be served at all."""
    if seeds < 1 or not bound_s > 0 or (max_num_seqs is not None and max_num_seqs < 1):
        raise ConfigError(f"--seeds {seeds}, --bound {bound_s}, --max-num-seqs {max_num_seqs}: above 0 each")
    if rate is not None and not (calibration and math.isfinite(rate) and rate > 0):
        raise ConfigError(f"--rate {rate}: requests a second, above 0; --rate needs --calibration, the times of a step")
    if slots < block:
        raise ConfigError(f"--kv-slots {slots}: less than one block of {block} tokens")
    if shape.longest is not None and max_model_len > shape.longest:
        raise ConfigError(f"--max-model-len {max_model_len}: above the model's maximum of {shape.longest} positions")
    sample = np.array(draw(2000, 0), dtype=np.int64)
    mean_tokens = float((sample[:, 0] + sample[:, 1] / 2).mean())
    count = int(min(MOST_REQUESTS, max(64, math.ceil(4 * slots / mean_tokens))))
    batches = [_batch(draw(count, seed)) for seed in range(seeds)]
    steps = calibration.step_times if calibration else STEP
    settings = {
        policy: Setting(policy, slots, max_model_len, block, max_num_seqs, 8192, asynchronous=True)
        for policy in POLICIES
    }
    runs = {policy: _runs(settings[policy], batches, steps) for policy in POLICIES}
    paged = runs["paged"]
    if isinstance(paged, str):
        raise KvlabError(f"{paged}; lower the lengths or raise the pool")
    together = []
    for policy in POLICIES:
        found = runs[policy]
        rates = None
        if calibration and not isinstance(found, str):
            rates = [
                one
                for seed in range(min(seeds, 2))
                if (one := _sustained(draw, seed, settings[policy], calibration, bound_s, found)) is not None
            ]
        together.append(_together(policy, found, paged, rates, bool(calibration)))
    fullest = together[-1]
    return Plan(
        model=shape.name,
        kv_bytes=shape.kv_bytes(dtype),
        slots=slots,
        max_model_len=max_model_len,
        block=block,
        requests=count,
        seeds=seeds,
        prompt_mean=float(sample[:, 0].mean()),
        output_mean=float(sample[:, 1].mean()),
        together=together,
        fits=all(one.gain is None or one.gain.high < 1.005 for one in together if one.refused is None),
        preempts_from=_preempts_from(settings["paged"], batches[0], fullest.p95),
        preempted=Spread.of([one.preempted / count for one in paged]),
        recomputed=Spread.of([one.recomputed for one in paged]),
        waste={size: _waste(settings["paged"], size, batches, steps) for size in BLOCKS if size <= slots},
        max_num_seqs=next((size for size in GRAPHS if size >= 1.1 * fullest.p95), GRAPHS[-1]),
        loaded=_loaded(settings["paged"], draw, fullest, rate, seeds, calibration) if calibration else [],
        bound_s=bound_s,
        calibration=calibration.run if calibration else None,
        outside=max(one.outside for one in paged) if calibration else None,
    )


@dataclass(frozen=True)
class _Ran:
    """One closed batch: requests together by time, and their weights, while others wait or throughout."""

    together: Floats
    weights: Floats
    tokens: float
    throughput: float
    preempted: int
    recomputed: float
    efficiency: float
    outside: float = 0.0

    @property
    def mean(self) -> float:
        return float(np.average(self.together, weights=self.weights))


def _batch(pairs: Sequence[tuple[int, int]]) -> list[SimulatedRequest]:
    return [SimulatedRequest(n, prompt, output) for n, (prompt, output) in enumerate(pairs)]


def _runs(setting: Setting, batches: Sequence[list[SimulatedRequest]], steps: StepTimes) -> list[_Ran] | str:
    """Each batch served; or why one can't be."""
    try:
        return [_run(setting, jobs, steps) for jobs in batches]
    except KvlabError as error:
        return str(error)


def _run(setting: Setting, jobs: list[SimulatedRequest], steps: StepTimes) -> _Ran:
    allocator, timeline = serve(jobs, setting, steps)
    found: Accounting = timeline.accounting(run_record(allocator, "plan", setting.policy, 0, len(timeline)), allocator)
    lasted = np.minimum(np.append(timeline.clock[1:], timeline.ends[-1]), timeline.ends) - timeline.clock
    queued = found.waiting > 0
    weights = lasted * queued if (lasted * queued).sum() > 0 else lasted
    computed = sum(job.prompt + job.output - 1 for job in jobs)
    again = sum(stay.tokens + stay.stop - stay.start - 1 for stay in timeline.stays if stay.end == "preempted")
    return _Ran(
        found.holding.astype(np.float64),
        weights,
        found.mean_share("tokens", weights),
        sum(job.output for job in jobs) / float(timeline.ends[-1]),
        int(timeline.preempted.sum()),
        again / (computed + again),
        found.efficiency(weights) or 0.0,
    )


def _together(
    policy: str, found: list[_Ran] | str, paged: Sequence[_Ran], rates: list[float] | None, timed: bool
) -> Together:
    if isinstance(found, str):
        nothing = Spread(0.0, 0.0, 0.0)
        return Together(policy, nothing, 0, 0, 0, nothing, None, None, None, refused=found)
    low, middle, high = (float(np.mean([_quantile(one, share) for one in found])) for share in (0.05, 0.5, 0.95))
    return Together(
        policy=policy,
        mean=Spread.of([one.mean for one in found]),
        p5=low,
        p50=middle,
        p95=high,
        tokens=Spread.of([one.tokens for one in found]),
        gain=None if policy == "paged" else Spread.of([a.mean / b.mean for a, b in zip(paged, found, strict=True)]),
        throughput=Spread.of([one.throughput for one in found]) if timed else None,
        sustained=Spread.of(rates) if rates else None,
    )


def _quantile(one: _Ran, share: float) -> float:
    order = np.argsort(one.together)
    upto = np.cumsum(one.weights[order])
    return float(one.together[order][np.searchsorted(upto, share * upto[-1])])


def _preempts_from(setting: Setting, jobs: list[SimulatedRequest], most: float) -> int | None:
    """The least number of requests together at which one loses its cache, by halving; None where none ever does."""

    def preempts(together: int) -> bool:
        bounded = Setting(setting.policy, setting.pool, setting.max_len, setting.block, together, setting.token_budget)
        return bool(serve(jobs, bounded, STEP)[1].preempted.any())

    low, high = 1, max(2, math.ceil(most))
    if not preempts(high):
        return None
    while high - low > max(1, low // 50):
        middle = (low + high) // 2
        low, high = (low, middle) if preempts(middle) else (middle, high)
    return high


def _waste(setting: Setting, size: int, batches: Sequence[list[SimulatedRequest]], steps: StepTimes) -> Spread:
    sized = Setting("paged", setting.pool, setting.max_len, size, setting.max_running, setting.token_budget)
    return Spread.of([1 - _run(sized, jobs, steps).efficiency for jobs in batches[:2]])


def _sustained(
    draw: Draw, seed: int, setting: Setting, calibration: Calibration, bound_s: float, closed: Sequence[_Ran]
) -> float | None:
    """From arrivals over a minute, sought around what the pool serves of a full queue."""
    output = float(np.mean([pair[1] for pair in draw(500, seed)]))
    serves = closed[0].throughput / output
    return sustained(draw, seed, setting, calibration, bound_s=bound_s, arrive_s=60.0, halvings=4, lowest=serves / 3)


def _loaded(
    setting: Setting, draw: Draw, paged: Together, rate: float | None, seeds: int, calibration: Calibration
) -> list[Loaded]:
    knee = paged.sustained.mean if paged.sustained else None
    rates = [share * knee for share in (0.25, 0.5, 0.75, 0.9, 1.0)] if knee else []
    rows = []
    for one in sorted({*rates, *([rate] if rate else [])}):
        found: list[Outcome] = []
        for seed in range(min(seeds, 2)):
            jobs = poisson(draw(max(8, math.ceil(one * 60)), seed), one, seed)
            found.append(forecast(jobs, setting, calibration))
        rows.append(
            Loaded(
                rate=one,
                running=Spread.of([each.running for each in found]),
                ttft=Spread.of([each.ttft_median for each in found]),
                tpot=Spread.of([each.tpot_median or 0.0 for each in found]),
                latency=Spread.of([each.latency_mean for each in found]),
                latency_p95=Spread.of([each.latency_p95 for each in found]),
                per_token=Spread.of([each.per_token_mean for each in found]),
                preempted=Spread.of([each.preempted / each.requests for each in found]),
                outside=max(each.outside or 0.0 for each in found),
            )
        )
    return rows
