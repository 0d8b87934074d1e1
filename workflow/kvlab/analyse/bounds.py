"""A run that its time budget stopped: what it did until then bounds what it would have given.

All requests would have taken longer than it had, so their time is no shorter and their throughput no higher; what only
grows while a run goes on (peaks, preemptions) is no smaller. A mean over the whole run is not bounded by a part of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

from kvlab.raw import RawRun

LEAST, MOST = "least", "most"
OPPOSITE = {LEAST: MOST, MOST: LEAST}
BOUNDS = {
    **dict.fromkeys(("throughput", "cut.throughput", "request_rate"), MOST),
    **dict.fromkeys((f"{time}.{of}" for time in ("latency", "ttft") for of in ("median", "p95", "p99")), LEAST),
    **dict.fromkeys(("span", "stall.max", "steps", "preemptions", "preempted.requests", "recomputed.tokens"), LEAST),
    **dict.fromkeys(("slots.peak", "held.peak", "tokens.peak", "running.max", "waiting.max", "kv.peak"), LEAST),
    **dict.fromkeys(("torch.allocated.peak", "torch.reserved.peak", "device.peak", "device.rise"), LEAST),
}
# What a run's end does not change: sizes, what was asked for, the time before it was measured.
EXACT = (
    *("pool.slots", "pool.bytes", "slot.bytes", "weights.bytes", "device.idle", "device.total"),
    *("phase.load", "phase.compile", "phase.warmup", "requests", "output_tokens"),
    *("sampler.interval", "sampler.gap.max"),
)


class StoppedRun(RawRun):
    """The part of a run in which its time was over. Times are those that it can't have been faster than."""

    @classmethod
    def of_run(cls, run: RawRun) -> StoppedRun:
        """The part `run.run.stopped` of a raw folder."""
        return cls(**{field.name: getattr(run, field.name) for field in fields(run)} | {"part": run.run.stopped})

    def of(self, part: str) -> RawRun | None:
        """Another part, which was measured to its end."""
        if part == self.part:
            return self
        whole = RawRun(**{field.name: getattr(self, field.name) for field in fields(self)})
        return whole.of(part)

    @property
    def output_tokens(self) -> int:
        """Output tokens that its requests asked for."""
        return sum(one.asked_tokens or one.output_tokens for one in self.served)

    def latencies(self) -> list[float]:
        """Seconds from arrival to end, one a request; of what was unfinished, to the stop."""
        return [(self.end_s if one.finish_s is None else one.finish_s) - one.arrival_s for one in self.served]

    def ttft(self) -> list[float]:
        """Seconds from arrival to the first token, one a request; without one, to the stop."""
        return [(one.token_s[0] if one.token_s else self.end_s) - one.arrival_s for one in self.served]


def within_bounds(
    name: str, runs: list[RawRun], of: Callable[[RawRun], float | None]
) -> tuple[list[tuple[RawRun, float]], str | None, bool]:
    """The runs that have a value of `name`, with it; what the median of them bounds, None where it is exact; and
    whether runs were left out because they were stopped.
    """
    stopped = any(isinstance(run, StoppedRun) for run in runs)
    bound = BOUNDS.get(name) if stopped else None
    kept = [run for run in runs if bound or name in EXACT or not isinstance(run, StoppedRun)]
    return [(run, float(value)) for run in kept if (value := of(run)) is not None], bound, len(kept) < len(runs)
