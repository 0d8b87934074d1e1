"""What `kvlab predict` prints: a line an arm and rate, means over seeds with the least and the largest."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from kvlab.simulate.forecasts.predictions import Cell, Predictions
from kvlab.terminal import say

HEAD = ("arm", "req/s", "tokens/s", "together", "s/token", "waiting", "tokens", "reserved", "internal", "external", "")


def show(found: Predictions) -> None:
    """The cells, the sustained rates, what was left out and why."""
    rows = [list(HEAD)]
    for (_, arm, rate), group in groupby(found.cells, key=lambda cell: (cell.workload, cell.arm, cell.rate)):
        rows.append([arm, "all at once" if rate is None else f"{rate:g}", *_line(list(group))])
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    for row in rows:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for (workload, arm), same in groupby(found.sustained, key=lambda one: (one.workload, one.arm)):
        every = list(same)
        rates = [one.rate for one in every if one.rate is not None]
        text = _spread(rates) if rates else "not between 0.02 and 100 requests/s"
        say(f"{workload} {arm}: sustains {text} requests/s within {every[0].bound_s:g} s a token")
    for what, why in found.head["left_out"].items():
        say(f"{what}: not predicted; {why}")


def _line(cells: Sequence[Cell]) -> list[str]:
    expected = [cell.expected for cell in cells]
    shares = [one.shares_queued for one in expected if one.shares_queued is not None]
    together = [one.running_queued for one in expected if one.running_queued is not None]
    outside = max(one.outside or 0.0 for one in expected)
    return [
        _spread([one.throughput for one in expected]),
        _spread(together or [one.running for one in expected]),
        _spread([one.per_token_mean for one in expected]),
        f"{sum(one.waiting for one in expected) / len(expected):.0%}",
        *(
            f"{sum(one[name] for one in shares) / len(shares):.1%}" if shares else "-"
            for name in ("tokens", "reserved", "internal", "external")
        ),
        f"{outside:.0%} of the time outside what was calibrated" if outside > 0.05 else "",
    ]


def _spread(values: Sequence[float]) -> str:
    mean = sum(values) / len(values)
    return f"{mean:.3g}" if len(values) == 1 else f"{mean:.3g} ({min(values):.3g}-{max(values):.3g})"
