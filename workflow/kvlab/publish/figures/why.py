"""Figures of why: throughput as an area, and how long a step takes with so many requests in it."""

from __future__ import annotations

import numpy as np
from matplotlib.patches import Patch, Rectangle

from kvlab.publish.figures.canvas import Canvas, Nothing, thinned
from kvlab.raw import RawRun

MOST_STEPS = 700  # of an arm that are drawn


def identity(canvas: Canvas) -> None:
    """A rectangle an arm: requests together × tokens a second of each; its area is the throughput."""
    found = []
    for arm in canvas.metrics.roles.with_paging(canvas.arms):
        running, tpot = canvas.quantity(f"{arm}.running.mean"), canvas.quantity(f"{arm}.tpot.median")
        if running and tpot and running.value and tpot.value:
            found.append((arm, running.value, 1000 / tpot.value))
    if len(found) < 2:
        raise Nothing("fewer than two batch arms of one engine")
    canvas.figure.set_size_inches(7.6, 3.0)
    axes = canvas.figure.add_subplot()
    lowest = min(high for _, _, high in found)
    for at, (arm, wide, high) in enumerate(sorted(found, key=lambda one: -one[1])):
        shade = canvas.arm_colour(arm)
        axes.add_patch(Rectangle((0, 0), wide, high, facecolor=shade, alpha=0.16, linewidth=0))
        axes.add_patch(Rectangle((0, 0), wide, high, fill=False, edgecolor=shade, linewidth=2))
        text = canvas.word("area", arm=arm, n=f"{wide:.1f}", each=f"{high:.1f}", all=f"{wide * high:,.0f}")
        below = (-6, -14 - 16 * at)  # a line each, under the lowest edge: no label meets another, or an edge
        axes.annotate(text, (wide, lowest), xytext=below, textcoords="offset points", ha="right", fontsize=9)
    axes.set_xlim(0, 1.08 * max(wide for _, wide, _ in found))
    axes.set_ylim(0, 1.15 * max(high for _, _, high in found))
    axes.set_xlabel(canvas.word("together"))
    axes.set_ylabel(canvas.word("tokens_each"))


def step_time(canvas: Canvas) -> None:
    """A dot a step: its time against its requests, apart for steps that also compute prompts; and what they take."""
    together = canvas.metrics.roles.with_paging(canvas.first_runs)
    runs = {arm: run for arm in together if len((run := canvas.first_runs[arm]).steps) > 2}
    if not runs:
        raise Nothing("no batch arm recorded its steps")
    canvas.figure.set_size_inches(7.6, 3.4)
    left, right = canvas.figure.subplots(1, 2, width_ratios=(3, 2))
    rows, seen = [], []
    for arm, run in runs.items():
        rows_, seconds, prefill, again = _steps(run)
        kept = thinned(len(seconds), MOST_STEPS)
        for mine, mark, size in ((prefill[kept] == 0, "o", 1.6), (prefill[kept] > 0, "+", 3.2)):
            left.plot(
                rows_[kept][mine],
                1000 * seconds[kept][mine],
                mark,
                color=canvas.arm_colour(arm),
                markersize=size,
                alpha=0.7,
            )
        rows.append((arm, _minutes(seconds, prefill, again)))
        seen.append(1000 * seconds)
    left.set_xlabel(canvas.word("running"))
    left.set_ylabel(canvas.word("step_ms"))
    left.set_xlim(left=0)
    left.set_ylim(0, 1.15 * max(float(np.percentile(times, 99)) for times in seen))
    left.grid(axis="y")
    _stack(canvas, right, rows)


def _steps(run: RawRun) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of each step but the last: requests in it, its seconds, prompt tokens computed in it, of those computed again."""
    before: dict[int, int] = {}
    reached: dict[int, int] = {}
    rows, prefill, again = [], [], []
    for step in run.steps:
        now = {request: stored for request, stored, _ in step.held}
        new = lost = 0
        for request, stored in now.items():
            more = stored - before.get(request, 0)
            if more > 1:
                new += more
                lost += max(0, min(stored, reached.get(request, 0)) - before.get(request, 0))
            reached[request] = max(reached.get(request, 0), stored)
        rows.append(len(now))
        prefill.append(new)
        again.append(lost)
        before = now
    t = np.array([step.t_s for step in run.steps])
    return np.array(rows)[:-1], np.diff(t), np.array(prefill)[:-1], np.array(again)[:-1]


def _minutes(seconds: np.ndarray, prefill: np.ndarray, again: np.ndarray) -> dict[str, float]:
    """Seconds of steps that only decode, of those with prompts, and the part of these for tokens computed again."""
    mixed = prefill > 0
    part = np.divide(again, prefill, out=np.zeros(len(again)), where=mixed)
    total = float(seconds[mixed].sum())
    repeated = float((seconds * part)[mixed].sum())
    return {"decode": float(seconds[~mixed].sum()), "prefill": total - repeated, "recomputed": repeated}


def _stack(canvas: Canvas, axes, rows: list[tuple[str, dict[str, float]]]) -> None:  # type: ignore[no-untyped-def]
    faces = {"decode": canvas.colour("decode"), "prefill": canvas.colour("prefill"), "recomputed": "none"}
    for at, (_, parts) in enumerate(rows):
        start = 0.0
        for name, seconds in parts.items():
            hatch = (
                {"hatch": "////", "edgecolor": canvas.colour("prefill")} if name == "recomputed" else {"linewidth": 0}
            )
            axes.barh(at, seconds, left=start, height=0.6, facecolor=faces[name], **hatch)
            start += seconds
    axes.set_yticks(range(len(rows)), [_without_engine(canvas, arm) for arm, _ in rows])
    axes.invert_yaxis()
    axes.set_xlabel(canvas.word("seconds_of_steps"))
    marks = [
        Patch(facecolor=faces["decode"], label=canvas.word("only_decode")),
        Patch(facecolor=faces["prefill"], label=canvas.word("with_prefill")),
        Patch(facecolor="none", hatch="////", edgecolor=canvas.colour("prefill"), label=canvas.word("again")),
    ]
    arms = [Patch(facecolor=canvas.arm_colour(arm), label=arm) for arm, _ in rows]
    canvas.figure.legend(handles=[*arms, *marks], loc="outside upper center", ncols=3, fontsize=9)


def _without_engine(canvas: Canvas, arm: str) -> str:
    """An arm's name without its engine's in front: all arms of the figure have the same."""
    return arm.removeprefix(f"{canvas.metrics.roles.about(arm, 'engine')}-")


KINDS = {"identity": identity, "step-time": step_time}
