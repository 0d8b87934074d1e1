"""What is computed for each arm of a workload: the four shares of its KV pool, its memory, its time.

What each number is, in words: `said.<name>` in the strings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from kvlab.accounting import SHARES
from kvlab.analyse import steps
from kvlab.analyse.bounds import StoppedRun
from kvlab.analyse.sheet import Sheet
from kvlab.quantities import Message
from kvlab.raw import RawRun
from kvlab.records import PREEMPTIONS

STEPS = ("steps.jsonl", "requests.jsonl", "run.json")
TIMES = ("requests.jsonl",)
DEVICE = ("device.jsonl", "phases.jsonl")
Number = Callable[[RawRun], float | None]


def describe_arm(sheet: Sheet, prefix: str, runs: Sequence[RawRun]) -> None:
    """Put the quantities `<prefix>.<name>` of one arm on the sheet. `runs`: its repeats that count."""
    for name in SHARES:
        sheet.arm(
            prefix,
            f"share.{name}",
            runs,
            lambda r, name=name: r.accounting.mean_share(name, r.weights),  # type: ignore[misc]
            STEPS,
        )
        sheet.arm(
            prefix,
            f"queued.share.{name}",
            runs,
            lambda r, name=name: None if (m := steps.queue_mean(r, name)) is None else m / r.accounting.pool,  # type: ignore[misc]
            STEPS,
            "never-queued",
            Message("while-queued", {"what": Message(f"share.{name}")}),
        )
    for name, of in _POOL.items():
        files: tuple[str, ...] = (*STEPS, PREEMPTIONS) if name in _LOST else STEPS
        sheet.arm(prefix, name, runs, of, files, "never-queued" if name.startswith("queued.") else "no-data")
    for name, of in _READ_BACK.items():
        sheet.arm(prefix, name, runs, of, ("run.json",), "not-told")
    for name, (of, files) in _DEVICE.items():
        sheet.arm(prefix, name, runs, of, files, "no-counter" if name == "energy.per_token" else "not-told")
    for name, of in _TIME.items():
        sheet.arm(prefix, name, runs, of, TIMES)
    describe_latencies(sheet, prefix, runs)
    for phase in ("load", "compile", "warmup"):
        sheet.arm(
            prefix,
            f"phase.{phase}",
            runs,
            lambda r, phase=phase: r.phase_s(phase),  # type: ignore[misc]
            ("phases.jsonl",),
        )


def describe_latencies(sheet: Sheet, prefix: str, runs: Sequence[RawRun]) -> None:
    """Median, 95th and 99th percentile over requests of the time to the first token, a further one, and the last."""
    for name, of_each, factor, why in _LATENCIES:
        what = Message(name)
        if runs[0].run.rate is not None and name != "tpot":
            what = Message("so-far", {"what": what})
        for statistic, percentile in (("median", 50), ("p95", 95), ("p99", 99)):
            sheet.arm(
                prefix,
                f"{name}.{statistic}",
                runs,
                lambda r, of=of_each, p=percentile, f=factor: float(np.percentile(v, p)) * f if (v := of(r)) else None,  # type: ignore[misc]
                TIMES,
                why,
                Message(f"{statistic}-over-requests", {"what": what}),
            )


_LATENCIES: tuple[tuple[str, Callable[[RawRun], list[float]], float, str], ...] = (
    ("latency", lambda r: r.latencies(), 1, "none-finished"),
    ("ttft", lambda r: r.ttft(), 1000, "none-finished"),
    ("tpot", lambda r: r.tpot(), 1000, "none-made-two"),
)


def _waste(run: RawRun) -> float | None:
    efficiency = run.accounting.efficiency(run.weights)
    return None if efficiency is None else 1 - efficiency


def _over_idle(run: RawRun) -> float | None:
    peak = run.device_peak()
    return None if peak is None or run.run.idle_device_bytes is None else peak - run.run.idle_device_bytes


def _recomputed_share(run: RawRun) -> float | None:
    found = steps.recomputed(run)
    return found.tokens / found.computed if found.computed else None


def _ended(run: RawRun) -> int:
    """Requests that finished; of a run that its time budget stopped all, for a bound."""
    return sum(one.finish_s is not None or isinstance(run, StoppedRun) for one in run.served)


def _padding(run: RawRun, name: str) -> float:
    return run.accounting.mean(name, run.weights)


_POOL: dict[str, Number] = {
    "efficiency": lambda r: r.accounting.efficiency(r.weights),
    "waste": _waste,
    "slots.mean": lambda r: r.accounting.mean("allocated", r.weights),
    "slots.peak": lambda r: r.accounting.peak("allocated"),
    "held.mean": lambda r: r.accounting.mean("held", r.weights),
    "held.peak": lambda r: r.accounting.peak("held"),
    "tokens.peak": lambda r: r.accounting.peak("tokens"),
    "running.mean": lambda r: r.accounting.mean("holding", r.weights),
    "running.max": lambda r: r.accounting.peak("holding"),
    "waiting.max": lambda r: r.accounting.peak("waiting"),
    "waiting.time": RawRun.time_waiting,
    "padding.rows": lambda r: _padding(r, "padded"),
    "padding.share": lambda r: _padding(r, "padding") / r.accounting.pool,
    "queued.running.mean": lambda r: steps.queue_mean(r, "holding"),
    "queued.span": steps.queue_span,
    "queued.throughput": steps.queue_throughput,
    "preemptions": lambda r: int(r.accounting.preempted.sum()),
    "preempted.requests": lambda r: steps.recomputed(r).requests,
    "recomputed.tokens": lambda r: steps.recomputed(r).tokens,
    "recomputed.share": _recomputed_share,
    "stall.max": steps.longest_stall,
    "step.spread": steps.step_spread,
    "steps": lambda r: len(r.steps),
    "kv.peak": lambda r: r.accounting.peak("allocated") * r.run.kv_bytes_per_slot,
    "kv.per_request": steps.per_request,
}

_LOST = ("preempted.requests", "recomputed.tokens", "recomputed.share")

_READ_BACK: dict[str, Number] = {
    "pool.slots": lambda r: r.run.pool_slots,
    "pool.bytes": lambda r: r.run.pool_slots * r.run.kv_bytes_per_slot,
    "slot.bytes": lambda r: r.run.kv_bytes_per_slot,
    "weights.bytes": lambda r: r.run.weights_bytes,
    "torch.allocated.peak": lambda r: r.run.torch_allocated_peak_bytes,
    "torch.reserved.peak": lambda r: r.run.torch_reserved_peak_bytes,
    "device.idle": lambda r: r.run.idle_device_bytes,
    "device.total": lambda r: r.run.device_total_bytes,
}

_DEVICE: dict[str, tuple[Number, tuple[str, ...]]] = {
    "device.peak": (RawRun.device_peak, DEVICE),
    "device.rise": (_over_idle, (*DEVICE, "run.json")),
    "device.busy": (steps.busy, DEVICE),
    "energy.per_token": (steps.joules_per_token, (*DEVICE, "requests.jsonl")),
    "sampler.interval": (RawRun.median_gap_ms, ("device.jsonl",)),
    "sampler.gap.max": (lambda r: max(r.sample_gaps_ms(), default=None), ("device.jsonl",)),
}

_TIME: dict[str, Number] = {
    "throughput": lambda r: r.throughput,
    "request_rate": lambda r: _ended(r) / r.span_s,
    "span": lambda r: r.span_s,
    "requests": lambda r: len(r.served),
    "output_tokens": lambda r: r.output_tokens,
    "halves": steps.halves,
}
