"""Figures of time: throughput, the ladder, latency."""

from __future__ import annotations

import numpy as np

from kvlab.publish.figures.canvas import Canvas, Nothing
from kvlab.publish.figures.palette import INK
from kvlab.quantities import Quantity
from kvlab.roles import BASELINE, PAGING, RUNGS


def throughput(canvas: Canvas) -> None:
    """A bar an arm, with its interval and every repeat as a dot."""
    found = [(arm, q) for arm in canvas.arms if (q := canvas.quantity(f"{arm}.throughput"))]
    if not found:
        raise Nothing("no arm finished a request")
    canvas.figure.set_size_inches(7.6, 0.8 + 0.42 * len(found))
    axes = canvas.figure.add_subplot()
    for row, (arm, quantity) in enumerate(found):
        axes.barh(row, _value(quantity), color=canvas.arm_colour(arm), height=0.62, linewidth=0)
        _interval(axes, row, quantity)
        axes.plot(quantity.samples, [row] * len(quantity.samples), "o", color=INK, markersize=3, alpha=0.7)
        axes.annotate(
            f"{quantity.value:,.0f}" if _value(quantity) >= 100 else f"{quantity.value:.1f}",
            (max([_value(quantity), *quantity.samples]), row),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    axes.set_yticks(range(len(found)), [arm for arm, _ in found])
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlim(left=0)
    axes.set_xlabel(canvas.word("tokens_per_second"))
    axes.grid(axis="x")


def _value(quantity: Quantity) -> float:
    """Of a quantity that `Canvas.quantity` found, which has one."""
    assert quantity.value is not None
    return quantity.value


def _interval(axes, row: float, quantity: Quantity) -> None:  # type: ignore[no-untyped-def]
    if quantity.interval:
        axes.plot(quantity.interval, [row, row], color=INK, linewidth=1.4)


def ladder(canvas: Canvas) -> None:
    """The speedup as a waterfall on a log scale: each factor a step from the rung below."""
    factors: list[tuple[str, Quantity]] = []
    skipped: list[str] = []
    for role in RUNGS[1:]:
        skipped.append(role)
        if quantity := canvas.quantity(f"factor.{'-and-'.join(skipped)}"):
            factors.append(("-and-".join(skipped), quantity))
            skipped = []
    total = canvas.quantity("speedup")
    if not factors or total is None:
        raise Nothing("the ladder needs a baseline and an arm that pages")
    canvas.figure.set_size_inches(7.6, 3.3)
    axes = canvas.figure.add_subplot()
    at = 1.0
    for column, (_, quantity) in enumerate(factors):
        value = _value(quantity)
        face = canvas.role_colour(PAGING if value >= 1 else BASELINE)
        axes.bar(column, at * value - at, bottom=at, color=face, width=0.6, linewidth=0, alpha=0.9)
        if quantity.interval:
            axes.plot(
                [column, column], [at * quantity.interval[0], at * quantity.interval[1]], color=INK, linewidth=1.4
            )
        axes.annotate(
            f"{value:.2f}×", (column, at * max(value, 1)), xytext=(0, 5), textcoords="offset points", ha="center"
        )
        axes.plot([column + 0.3, column + 0.7], [at * value] * 2, color="#777777", linewidth=0.8)
        at *= value
    axes.bar(len(factors), _value(total) - 1, bottom=1, color=canvas.colour("tokens"), width=0.6, linewidth=0)
    axes.annotate(
        f"{total.value:.2f}×",
        (len(factors), max(_value(total), 1)),
        xytext=(0, 5),
        textcoords="offset points",
        ha="center",
    )
    axes.set_yscale("log")
    axes.axhline(1, color="#777777", linewidth=0.8)
    names = [" + ".join(canvas.word(part) for part in name.split("-and-")) for name, _ in factors]
    axes.set_xticks(range(len(factors) + 1), [*names, canvas.word("whole")])
    axes.set_ylabel(canvas.word("times_baseline"))
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.8), high * 1.35)
    ticks = [t for t in (0.25, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500) if min(low, 0.8) <= t <= high * 1.35]
    axes.set_yticks(ticks, [f"{t:g}×" for t in ticks])
    axes.minorticks_off()
    axes.grid(axis="y")


def latency(canvas: Canvas) -> None:
    """Throughput against latency: an arm a point, its requests' spread as a line."""
    found = [
        (arm, rate, run)
        for arm, run in canvas.first_runs.items()
        if (rate := canvas.quantity(f"{arm}.throughput")) and run.latencies()
    ]
    if not found:
        raise Nothing("no arm finished a request")
    canvas.figure.set_size_inches(7.6, 3.2)
    axes = canvas.figure.add_subplot()
    for arm, rate, run in found:
        low, middle, high = np.percentile(run.latencies(), [5, 50, 95])
        axes.plot([low, high], [_value(rate)] * 2, color=canvas.arm_colour(arm), linewidth=2, alpha=0.6)
        axes.plot([middle], [_value(rate)], "o", color=canvas.arm_colour(arm), markersize=8, label=arm)
    axes.set_xlabel(canvas.word("latency"))
    axes.set_ylabel(canvas.word("tokens_per_second"))
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1.15 * max(_value(rate) for _, rate, _ in found))
    axes.grid()
    canvas.figure.legend(loc="outside upper center", ncols=3, fontsize=9)


KINDS = {"throughput": throughput, "ladder": ladder, "latency": latency}
