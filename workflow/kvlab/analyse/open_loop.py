"""Requests that arrive over time: what each cell (an arm at a rate) gives, and the rate that an arm sustains.

Latency counts from the planned arrival. Requests of the first seconds are left out, until the queue has built up. One
that had not finished when the cell ended counts until then: a lower bound. Normalized latency is the paper's (section
6.1): the mean over requests of end-to-end latency ÷ output length.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from kvlab.accounting import Floats
from kvlab.analyse.arm_quantities import TIMES, describe_arm
from kvlab.analyse.sheet import Sheet
from kvlab.quantities import Message
from kvlab.raw import RawRun
from kvlab.records import Served
from kvlab.roles import PAGING, Roles

LATE_MS = 1.0  # a request sent later than this after its planned arrival waits for the sender, not for the engine
Cells = Mapping[str, Sequence["OpenCell"]]


class OpenCell(RawRun):
    """One arm at one rate: pool and latencies are of the time and the requests that count."""

    @classmethod
    def of_run(cls, run: RawRun) -> OpenCell:
        """The cell that a raw folder holds."""
        return cls(**{field.name: getattr(run, field.name) for field in fields(run)})

    @property
    def rate(self) -> float:
        """Requests a second."""
        return float(self.run.rate or 0.0)

    @property
    def plan(self) -> dict[str, Any]:
        """As configured: `duration_s`, `leave_out_s`, `bound_s_per_token` …"""
        return self.run.arrivals

    @property
    def counting(self) -> tuple[float, float]:
        """Start and end of the time in which the requests that count arrive, seconds of the run."""
        start = self.window[0]
        return start + float(self.plan["leave_out_s"]), start + float(self.plan["duration_s"])

    @cached_property
    def weights(self) -> Floats:
        """Seconds that each step's state lasted, within the time that counts."""
        lo, hi = self.counting
        starts = self.accounting.t_s
        ends = np.append(starts[1:], max(self.end_s, float(starts[-1])))
        inside: Floats = np.clip(np.minimum(ends, hi) - np.maximum(starts, lo), 0.0, None)
        return inside

    @cached_property
    def logged(self) -> list[Served]:
        """The requests that count, as they were logged."""
        lo, hi = self.counting
        return [one for one in self.served if lo <= one.arrival_s <= hi]

    @cached_property
    def counted(self) -> list[Served]:
        """The requests that count; one that had not finished ends when the cell does."""
        end = self.window[1]
        return [
            one if one.finish_s is not None else replace(one, finish_s=end, token_s=one.token_s or [end])
            for one in self.logged
        ]

    @property
    def unfinished(self) -> int:
        """How many of them had not finished."""
        return sum(one.finish_s is None for one in self.logged)

    def normalized_ms(self) -> list[float]:
        """Milliseconds from planned arrival to end ÷ output tokens, one a request that counts."""
        return [
            1000 * ((one.finish_s or 0.0) - one.arrival_s) / (one.asked_tokens or one.output_tokens)
            for one in self.counted
            if one.asked_tokens or one.output_tokens
        ]

    def latencies(self) -> list[float]:
        """Seconds from planned arrival to end, one a request that counts."""
        return [(one.finish_s or 0.0) - one.arrival_s for one in self.counted]

    def ttft(self) -> list[float]:
        """Seconds from planned arrival to the first token, one a request that counts."""
        return [one.token_s[0] - one.arrival_s for one in self.counted if one.token_s]

    def tpot(self) -> list[float]:
        """Mean seconds between a request's later tokens, one a request that counts and made two or more."""
        return [
            (one.token_s[-1] - one.token_s[0]) / (len(one.token_s) - 1) for one in self.counted if len(one.token_s) > 1
        ]

    def lateness_ms(self) -> float | None:
        """95th percentile of sent − planned arrival."""
        late = [1000 * (one.sent_s - one.arrival_s) for one in self.served if one.sent_s is not None]
        return float(np.percentile(late, 95)) if late else None

    def goodput(self) -> float:
        """Requests a second that finished within the bound, of those that count."""
        lo, hi = self.counting
        bound = float(self.plan["bound_s_per_token"])
        taken = [(one, one.finish_s - one.arrival_s) for one in self.logged if one.finish_s is not None]
        return sum(seconds <= bound * one.output_tokens for one, seconds in taken) / (hi - lo)


def describe_open_loop(sheet: Sheet, workload: str, cells: Cells, roles: Roles) -> None:
    """Put what each cell gives, and what each arm sustains, on the sheet.

    `cells`: by `<arm>@<rate>`, its blocks that count.
    """
    arms: dict[str, list[OpenCell]] = {}
    for name, blocks in cells.items():
        prefix = f"{workload}.{name}"
        describe_arm(sheet, prefix, blocks)
        _latency(sheet, prefix, blocks)
        arms.setdefault(name.partition("@")[0], []).extend(blocks)
    sustained = {arm: _sustained(sheet, f"{workload}.{arm}", mine) for arm, mine in arms.items()}
    paged = roles.first(PAGING, sustained)
    for arm, quantity in sustained.items():
        if paged is not None and arm != paged:
            formula = Message("sustained-ratio", {"top": paged, "bottom": arm})
            sheet.ratio(f"{workload}.sustained.{arm}", sustained[paged], quantity, formula)


def _latency(sheet: Sheet, prefix: str, blocks: Sequence[OpenCell]) -> None:
    def of(value: Callable[[OpenCell], float | None]) -> Callable[[RawRun], float | None]:
        return lambda run: value(run) if isinstance(run, OpenCell) else None

    def mean(cell: OpenCell) -> float | None:
        return float(np.mean(found)) if (found := cell.normalized_ms()) else None

    def open_share(cell: OpenCell) -> float | None:
        return cell.unfinished / len(cell.counted) if cell.counted else None

    files = (*TIMES, "phases.jsonl", "run.json")
    bound = Message("goodput", {"bound": f"{1000 * float(blocks[0].plan['bound_s_per_token']):g}"})
    sheet.arm(prefix, "normalized", blocks, of(mean), files, "none-finished")
    sheet.arm(prefix, "normalized.bound", blocks, of(open_share), files, "none-finished")
    sheet.arm(prefix, "goodput", blocks, of(OpenCell.goodput), files, formula=bound)
    sheet.arm(prefix, "lateness.p95", blocks, of(OpenCell.lateness_ms), TIMES)


def _sustained(sheet: Sheet, prefix: str, cells: Sequence[OpenCell]) -> Any:
    """The rate at which normalized latency crosses the bound: of each block that has rates on both sides of it; of all
    blocks together where none has."""
    bound = 1000 * float(cells[0].plan["bound_s_per_token"])
    blocks = sorted({cell.run.repeat for cell in cells})
    found = [
        (block, rate)
        for block in blocks
        if (rate := crossing(_curve([c for c in cells if c.run.repeat == block]), bound)) is not None
    ]
    if not found and (together := crossing(_curve(cells), bound)) is not None:
        found = [(blocks[0], together)]
    rates = ", ".join(f"{rate:g}" for rate in sorted({cell.rate for cell in cells}))
    sources = [cell.source("requests.jsonl") for cell in cells]
    formula = Message("sustained", {"bound": f"{bound:g}"})
    why = Message("not-enclosed", {"bound": f"{bound:g}", "rates": rates})
    return sheet.samples(f"{prefix}.sustained", found, sources, formula, why)


def _curve(cells: Sequence[OpenCell]) -> dict[float, float]:
    """Rate → normalized latency, ms a token; the mean where several blocks have a rate."""
    by_rate: dict[float, list[float]] = {}
    for cell in cells:
        if values := cell.normalized_ms():
            by_rate.setdefault(cell.rate, []).append(float(np.mean(values)))
    return {rate: float(np.mean(values)) for rate, values in sorted(by_rate.items())}


def crossing(curve: Mapping[float, float], bound: float) -> float | None:
    """The rate at which `curve` (rate → latency, by rate) first rises above `bound`; None where it does not enclose it.

    Between two rates the logarithm of the latency is taken to be straight: it rises by orders of magnitude at the knee.
    """
    points = list(curve.items())
    for (low, below), (high, above) in pairwise(points):
        if below <= bound < above:
            part = (math.log(bound) - math.log(below)) / (math.log(above) - math.log(below))
            return low + part * (high - low)
    return None


def on_time(cells: Sequence[OpenCell]) -> dict[str, Any]:
    """The guard that requests were sent close to their planned arrivals."""
    late = {cell.name: cell.lateness_ms() for cell in cells}
    behind = sorted(name for name, ms in late.items() if ms is not None and ms >= LATE_MS)
    if behind:
        detail = Message("late", {"names": ", ".join(behind), "most": f"{LATE_MS:g}"})
        on_gpu = all(cell.run.device == "cuda" for cell in cells)
        return {"id": "on-time", "outcome": "fail" if on_gpu else "not decided", "detail": detail}
    if not late or None in late.values():
        return {"id": "on-time", "outcome": "not decided", "detail": Message("not-recorded")}
    return {"id": "on-time", "outcome": "pass", "detail": Message("on-time", {"most": f"{LATE_MS:g}"})}
