"""The figure of a small pool, slot by slot over time, for a contiguous and a paged allocator."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path as Outline

from kvlab.publish.figures.palette import INK
from kvlab.simulate.studies.small_pool import INTERNAL, RESERVED, ROUNDING, TOKEN, PoolPicture, picture

# Okabe and Ito's colours that carry dark text, distinct with any colour vision; a number says which request it is.
COLOURS = ("#56B4E9", "#E69F00", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#9AA5B1")
_LIGHT = 0.32
_POLICIES = ("orca-max", "paged")


def draw(figure: Figure, section: dict[str, Any], words: dict[str, Any]) -> None:
    """Both allocators on the requests of `section` (`Simulation.picture`), on one time axis."""
    pictures = [picture(section, policy) for policy in _POLICIES]
    figure.set_size_inches(7.6, 6.4)
    panels = figure.subplots(len(pictures), 1, sharex=True)
    for axes, one in zip(panels, pictures, strict=True):
        _panel(axes, one, section["max_model_len"], words)
    panels[-1].set_xlabel(words["labels"]["iteration"])
    panels[-1].set_xlim(0, max(one.kind.shape[1] for one in pictures))
    figure.supylabel(words["labels"]["slot"], fontsize=10)
    grey = COLOURS[-1]
    shown = [
        Patch(facecolor=grey, label=words["labels"]["filled"]),
        Patch(facecolor=_tint(grey), label=words["labels"]["will_fill"]),
        Patch(facecolor="none", edgecolor=grey, hatch="////", linewidth=0, label=words["labels"]["never_filled"]),
    ]
    if any((one.kind == ROUNDING).any() for one in pictures):
        shown.append(
            Patch(facecolor="none", edgecolor=grey, hatch="....", linewidth=0, label=words["labels"]["rounding"])
        )
    figure.legend(handles=shown, loc="outside upper center", ncols=len(shown), fontsize=9)


def _panel(axes: Axes, one: PoolPicture, longest: int, words: dict[str, Any]) -> None:
    pool, iterations = one.kind.shape
    for request in range(int(one.request.max()) + 1):
        colour = COLOURS[request % len(COLOURS)]
        for kind, style in (
            (TOKEN, {"facecolor": colour}),
            (RESERVED, {"facecolor": _tint(colour)}),
            (INTERNAL, {"facecolor": "none", "edgecolor": colour, "hatch": "////"}),
            (ROUNDING, {"facecolor": "none", "edgecolor": colour, "hatch": "...."}),
        ):
            outline = _outline((one.request == request) & (one.kind == kind))
            if outline is not None:
                axes.add_patch(PathPatch(outline, linewidth=0, **style))
        held = one.request == request
        if held.any():
            start = int(np.argmax(held.any(axis=0)))
            slot = int(np.argmax(held[:, start]))
            axes.text(start + 0.25, slot + 0.6, str(request + 1), fontsize=7, color="#000000", va="bottom")
    step = longest if one.policy != "paged" else one.unit
    axes.hlines(np.arange(0, pool + 1, step), 0, iterations, color=INK, linewidth=0.35, alpha=0.5)
    axes.set_ylim(0, pool)
    axes.set_yticks(np.arange(0, pool + 1, longest))
    share = 100 * one.accounting.mean_share("tokens")
    title = words["labels"]["done"].format(policy=words["policies"][one.policy], n=iterations, share=f"{share:.0f}")
    axes.set_title(title, loc="left", fontsize=10)


def _tint(colour: str) -> tuple[float, ...]:
    return tuple(1 - _LIGHT * (1 - part) for part in to_rgb(colour))


def _outline(cells: np.ndarray) -> Outline | None:
    """One path of all rectangles that cover `cells` [slots, iterations]: runs of time, joined over equal neighbours."""
    corners: list[tuple[float, float]] = []
    open_runs: dict[tuple[int, int], int] = {}
    for slot in range(cells.shape[0] + 1):
        row = cells[slot] if slot < cells.shape[0] else np.zeros(cells.shape[1], dtype=bool)
        edges = np.flatnonzero(np.diff(np.concatenate(([False], row, [False]))))
        runs = set(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
        for begin, end in sorted(set(open_runs) - runs):
            bottom = open_runs.pop((begin, end))
            corners += [(begin, bottom), (end, bottom), (end, slot), (begin, slot), (begin, bottom)]
        for run in runs - set(open_runs):
            open_runs[run] = slot
    if not corners:
        return None
    codes = [Outline.MOVETO, Outline.LINETO, Outline.LINETO, Outline.LINETO, Outline.CLOSEPOLY] * (len(corners) // 5)
    return Outline(corners, codes)
