"""Figures of memory: the four shares, the pool over time, the device over time."""

from __future__ import annotations

import numpy as np

from kvlab.accounting import SHARES
from kvlab.publish.figures.canvas import Canvas, Nothing

MIB = 1 << 20
MOST_POINTS = 600  # of a series that are drawn: more than a panel is wide in pixels


def _thinned(count: int) -> np.ndarray:
    """Indices of at most MOST_POINTS of `count` points, evenly spread, the last one among them."""
    return np.unique(np.linspace(0, count - 1, min(count, MOST_POINTS)).round().astype(int))


def kv_shares(canvas: Canvas) -> None:
    """A bar an arm: its pool divided into the four shares (the paper's Fig. 2)."""
    arms = [arm for arm in canvas.arms if canvas.quantity(f"{arm}.share.tokens")]
    if not arms:
        raise Nothing("no arm recorded its KV pool")
    canvas.figure.set_size_inches(7.6, 0.9 + 0.42 * len(arms))
    axes = canvas.figure.add_subplot()
    left = np.zeros(len(arms))
    for share in SHARES:
        width = np.array(
            [100 * (q.value or 0) if (q := canvas.quantity(f"{arm}.share.{share}")) else 0 for arm in arms]
        )
        bars = axes.barh(
            arms, width, left=left, color=canvas.colour(share), height=0.66, label=canvas.word(share), linewidth=0
        )
        dark = share in ("tokens",)
        labels = [f"{w:.0f}" if w >= 6 else "" for w in width]
        axes.bar_label(bars, labels, label_type="center", fontsize=9, color="#ffffff" if dark else "#000000")
        left += width
    axes.set_xlim(0, 100)
    axes.set_xlabel(canvas.word("share_of_pool"))
    axes.invert_yaxis()
    axes.spines["left"].set_visible(False)
    axes.tick_params(left=False)
    canvas.figure.legend(loc="outside upper center", ncols=4, fontsize=9)


def occupancy(canvas: Canvas) -> None:
    """A panel an arm: slots held and token states stored, over the measured time, against the pool."""
    runs = {arm: run for arm, run in canvas.first_runs.items() if run.steps}
    if not runs:
        raise Nothing("no arm recorded its steps")
    columns = 2 if len(runs) > 1 else 1
    rows = -(-len(runs) // columns)
    canvas.figure.set_size_inches(7.6, 0.5 + 1.75 * rows)
    panels = canvas.figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, (arm, run) in zip(panels, runs.items(), strict=False):
        account = run.accounting
        kept = _thinned(len(account))
        t = (account.t_s - run.window[0])[kept]
        tokens, allocated = account.tokens[kept], account.allocated[kept]
        axes.fill_between(
            t, 0, allocated, step="post", color=canvas.colour("internal"), linewidth=0, label=canvas.word("held")
        )
        axes.fill_between(
            t, 0, tokens, step="post", color=canvas.colour("tokens"), linewidth=0, label=canvas.word("tokens")
        )
        axes.axhline(account.pool, color="#777777", linewidth=1, linestyle=(0, (4, 2)), label=canvas.word("pool"))
        axes.set_title(arm, fontsize=10, loc="left")
        axes.set_ylim(0, account.pool * 1.08)
        axes.set_xlim(left=0)
        axes.grid(axis="y")
    for axes in panels[len(runs) :]:
        axes.set_visible(False)
    canvas.figure.supxlabel(canvas.word("seconds"), fontsize=10)
    canvas.figure.supylabel(canvas.word("slots"), fontsize=10)
    handles, labels = panels[0].get_legend_handles_labels()
    canvas.figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=9)


def memory_over_time(canvas: Canvas) -> None:
    """Device memory of each arm, seen from outside, from before loading to the end."""
    runs = {arm: run for arm, run in canvas.first_runs.items() if run.samples}
    if not runs:
        raise Nothing("no arm sampled device memory")
    canvas.figure.set_size_inches(7.6, 3.2)
    axes = canvas.figure.add_subplot()
    for arm, run in runs.items():
        samples = [run.samples[i] for i in _thinned(len(run.samples))]
        t = np.array([s.t_s for s in samples])
        used = np.array([s.used_bytes for s in samples]) / MIB
        axes.plot(t, used, color=canvas.colour(arm), linewidth=1.4, label=arm)
        start, end = run.window
        inside = (t >= start) & (t <= end)
        axes.plot(t[inside], used[inside], color=canvas.colour(arm), linewidth=3.2, solid_capstyle="butt")
    axes.set_xlabel(canvas.word("seconds_since_start"))
    axes.set_ylabel(canvas.word("device_memory"))
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.grid(axis="y")
    canvas.figure.legend(loc="outside upper center", ncols=3, fontsize=9)


KINDS = {"kv-shares": kv_shares, "occupancy": occupancy, "memory-over-time": memory_over_time}
