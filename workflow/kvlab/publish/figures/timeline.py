"""The timeline: every request a line, from its arrival to its last token, preemptions marked."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path as Outline

from kvlab.analyse.request_phases import RequestPhases, request_phases
from kvlab.publish.figures.canvas import Canvas, Nothing, thinned
from kvlab.publish.figures.palette import INK

MOST_LINES = 512  # requests of an arm; a run with more is thinned, and the caption says so
PHASES = ("waiting", "prefill", "decode")
FAINT = {"waiting": 0.45, "prefill": 1.0, "decode": 1.0}


def timeline(canvas: Canvas) -> None:
    """A panel an arm on one axis of time, a line a request: waiting, prefill until the first token, decode."""
    runs = {arm: run for arm, run in canvas.first_runs.items() if run.served}
    if not runs:
        raise Nothing("no arm recorded its requests")
    found = {arm: request_phases(run) for arm, run in runs.items()}
    shown = {arm: [all_[i] for i in thinned(len(all_), MOST_LINES)] for arm, all_ in found.items()}
    heights = [min(2.6, max(0.42, 0.055 * len(lines))) for lines in shown.values()]
    canvas.figure.set_size_inches(7.6, 0.8 + sum(heights) + 0.32 * len(heights))
    panels = canvas.figure.subplots(len(runs), 1, sharex=True, squeeze=False, height_ratios=heights).flatten()
    for axes, (arm, run) in zip(panels, runs.items(), strict=True):
        _panel(canvas, axes, shown[arm], min((one.arrival_s for one in run.served), default=run.window[0]))
        axes.set_title(canvas.word("of_requests", arm=arm, n=len(found[arm])), fontsize=10, loc="left")
    panels[-1].set_xlabel(canvas.word("seconds"))
    panels[-1].set_xlim(0, max(run.span_s for run in runs.values()))
    handles: list[Patch | Line2D] = [
        Patch(facecolor=canvas.colour(p), alpha=FAINT[p], label=canvas.word(p), linewidth=0) for p in PHASES
    ]
    if any(phases.preempted for lines in shown.values() for phases in lines):
        mark = Line2D([], [], color=INK, marker="|", linestyle="none", markersize=7, label=canvas.word("preempted"))
        handles.append(mark)
    canvas.figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), fontsize=9)
    if any(len(shown[arm]) < len(found[arm]) for arm in runs):
        canvas.note = canvas.word("thinned", most=MOST_LINES)


def _panel(canvas: Canvas, axes: Axes, lines: list[RequestPhases], zero: float) -> None:
    for phase in PHASES:
        boxes = [
            (start - zero, end - zero, row)
            for row, phases in enumerate(lines)
            for name, start, end in phases.spans
            if name == phase
        ]
        if boxes:
            axes.add_patch(PathPatch(_boxes(boxes), color=canvas.colour(phase), alpha=FAINT[phase], linewidth=0))
    marks = [(t - zero, row) for row, phases in enumerate(lines) for t in phases.preempted]
    if marks:
        size = max(2.0, min(6.0, 400 / len(lines)))
        axes.plot(*zip(*marks, strict=True), "|", color=INK, markersize=size, markeredgewidth=0.8)
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


def _boxes(boxes: list[tuple[float, float, int]]) -> Outline:
    """One path of all rectangles, so that a phase of an arm is one shape in the drawing."""
    corners = np.array(
        [[(a, r - 0.42), (b, r - 0.42), (b, r + 0.42), (a, r + 0.42), (a, r - 0.42)] for a, b, r in boxes]
    )
    codes = [Outline.MOVETO, Outline.LINETO, Outline.LINETO, Outline.LINETO, Outline.CLOSEPOLY] * len(boxes)
    return Outline(corners.reshape(-1, 2), codes)


KINDS = {"timeline": timeline}
