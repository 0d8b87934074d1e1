"""What is computed for each arm of a workload: the four shares of its KV pool, its memory, its time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from kvlab.accounting import SHARES
from kvlab.analyse.sheet import Sheet
from kvlab.raw import RawRun

STEPS = ("steps.jsonl", "requests.jsonl", "run.json")
TIMES = ("requests.jsonl",)

SHARE_TEXT = {
    "tokens": "slots that hold keys and values",
    "reserved": "slots allocated to a request that will fill them",
    "internal": "slots allocated to a request that will never fill them",
    "external": "slots in no request's hands",
}


def describe_arm(sheet: Sheet, prefix: str, runs: Sequence[RawRun]) -> None:
    """Put the quantities `<prefix>.<name>` of one arm on the sheet. `runs`: its repeats that count."""
    _pool(sheet, prefix, runs)
    _memory(sheet, prefix, runs)
    _time(sheet, prefix, runs)
    _sampler(sheet, prefix, runs)


def _pool(sheet: Sheet, prefix: str, runs: Sequence[RawRun]) -> None:
    for name in SHARES:
        sheet.arm(
            f"{prefix}.share.{name}",
            "share",
            runs,
            lambda r, name=name: r.accounting.mean_share(name, r.weights),  # type: ignore[misc]
            f"time-weighted mean of ({SHARE_TEXT[name]}) / pool slots",
            STEPS,
        )
    sheet.arm(
        f"{prefix}.efficiency",
        "share",
        runs,
        lambda r: r.accounting.efficiency(r.weights),
        "memory efficiency: time-weighted mean of token states / time-weighted mean of KV slots the arm held",
        STEPS,
    )
    sheet.arm(
        f"{prefix}.waste",
        "share",
        runs,
        lambda r: None if (e := r.accounting.efficiency(r.weights)) is None else 1 - e,
        "1 - memory efficiency: part of the held KV slots that stores nothing",
        STEPS,
    )
    counts: tuple[tuple[str, str, Callable[[RawRun], float], str], ...] = (
        (
            "slots.mean",
            "slots",
            lambda r: r.accounting.mean("allocated", r.weights),
            "time-weighted mean of KV slots held",
        ),
        ("slots.peak", "slots", lambda r: r.accounting.peak("allocated"), "largest number of KV slots held at a step"),
        ("tokens.peak", "tokens", lambda r: r.accounting.peak("tokens"), "largest number of token states at a step"),
        (
            "running.mean",
            "requests",
            lambda r: r.accounting.mean("holding", r.weights),
            "time-weighted mean of requests that hold KV cache",
        ),
        (
            "running.max",
            "requests",
            lambda r: r.accounting.peak("holding"),
            "most requests that held KV cache at a step",
        ),
        ("waiting.max", "requests", lambda r: r.accounting.peak("waiting"), "most requests that waited at a step"),
        ("waiting.time", "share", RawRun.time_waiting, "part of the measured time in which requests waited"),
        ("preemptions", "count", lambda r: int(r.accounting.preempted.sum()), "requests preempted, all steps"),
        ("steps", "count", lambda r: len(r.steps), "engine steps in the measure phase"),
    )
    for name, unit, of, formula in counts:
        sheet.arm(f"{prefix}.{name}", unit, runs, of, formula, STEPS)


def _memory(sheet: Sheet, prefix: str, runs: Sequence[RawRun]) -> None:
    def field(name: str) -> Callable[[RawRun], float | None]:
        return lambda r: getattr(r.run, name)

    def over_idle(r: RawRun) -> float | None:
        peak = r.device_peak()
        return None if peak is None or r.run.idle_device_bytes is None else peak - r.run.idle_device_bytes

    def kv_peak(r: RawRun) -> float:
        return r.accounting.peak("allocated") * r.run.kv_bytes_per_slot

    stored: tuple[tuple[str, str, Callable[[RawRun], float | None], str], ...] = (
        ("pool.slots", "slots", field("pool_slots"), "KV slots of the arm's pool, read back from the engine"),
        ("pool.bytes", "bytes", lambda r: r.run.pool_slots * r.run.kv_bytes_per_slot, "pool slots x KV bytes a slot"),
        (
            "slot.bytes",
            "bytes",
            field("kv_bytes_per_slot"),
            "2 (K and V) x layers x KV heads x head size x bytes an element",
        ),
        ("weights.bytes", "bytes", field("weights_bytes"), "bytes of the model's parameters as loaded"),
        ("torch.allocated.peak", "bytes", field("torch_allocated_peak_bytes"), "torch's own peak of allocated memory"),
        ("torch.reserved.peak", "bytes", field("torch_reserved_peak_bytes"), "torch's own peak of reserved memory"),
        ("device.idle", "bytes", field("idle_device_bytes"), "device memory before anything was loaded"),
        ("device.total", "bytes", field("device_total_bytes"), "memory that the device has"),
    )
    for name, unit, of, formula in stored:
        sheet.arm(f"{prefix}.{name}", unit, runs, of, formula, ("run.json",), "this device or engine does not tell")
    sheet.arm(f"{prefix}.kv.peak", "bytes", runs, kv_peak, "largest number of KV slots held x KV bytes a slot", STEPS)
    device = ("device.jsonl", "phases.jsonl")
    sheet.arm(f"{prefix}.device.peak", "bytes", runs, RawRun.device_peak, "largest sample in the measure phase", device)
    sheet.arm(
        f"{prefix}.device.rise",
        "bytes",
        runs,
        over_idle,
        "largest sample in the measure phase - device memory before anything was loaded",
        (*device, "run.json"),
    )


def _time(sheet: Sheet, prefix: str, runs: Sequence[RawRun]) -> None:
    totals: tuple[tuple[str, str, Callable[[RawRun], float | None], str], ...] = (
        (
            "throughput",
            "tokens/s",
            lambda r: r.throughput,
            "output tokens / seconds from the first arrival to the last token",
        ),
        (
            "request_rate",
            "requests/s",
            lambda r: len(r.served) / r.span_s,
            "requests / seconds from the first arrival to the last token",
        ),
        ("span", "s", lambda r: r.span_s, "seconds from the first arrival to the last token"),
        ("requests", "requests", lambda r: len(r.served), "requests served"),
        ("output_tokens", "tokens", lambda r: r.output_tokens, "output tokens of all requests"),
    )
    for name, unit, of, formula in totals:
        sheet.arm(f"{prefix}.{name}", unit, runs, of, formula, TIMES)
    latencies: tuple[tuple[str, str, float, Callable[[RawRun], list[float]], str], ...] = (
        ("latency", "s", 1, RawRun.latencies, "seconds from a request's arrival to its last token"),
        ("ttft", "ms", 1000, RawRun.ttft, "time to first token, from a request's arrival"),
        ("tpot", "ms", 1000, RawRun.tpot, "time per output token after the first, a request's mean"),
    )
    for name, unit, factor, of_each, formula in latencies:
        for statistic, percentile in (("median", 50), ("p95", 95)):
            sheet.arm(
                f"{prefix}.{name}.{statistic}",
                unit,
                runs,
                lambda r, of=of_each, p=percentile, f=factor: float(np.percentile(v, p)) * f if (v := of(r)) else None,  # type: ignore[misc]
                f"{'median' if percentile == 50 else '95th percentile'} over requests of: {formula}",
                TIMES,
                "no request made two tokens" if name == "tpot" else "no request finished",
            )
    for phase in ("load", "compile", "warmup"):
        sheet.arm(
            f"{prefix}.phase.{phase}",
            "s",
            runs,
            lambda r, phase=phase: r.phase_s(phase),  # type: ignore[misc]
            f"seconds spent in the phase {phase}",
            ("phases.jsonl",),
        )


def _sampler(sheet: Sheet, prefix: str, runs: Sequence[RawRun]) -> None:
    sheet.arm(
        f"{prefix}.sampler.interval",
        "ms",
        runs,
        RawRun.median_gap_ms,
        "median time between neighbouring samples of device memory",
        ("device.jsonl",),
    )
    sheet.arm(
        f"{prefix}.sampler.gap.max",
        "ms",
        runs,
        lambda r: max(r.sample_gaps_ms(), default=None),
        "longest time between neighbouring samples of device memory",
        ("device.jsonl",),
    )
