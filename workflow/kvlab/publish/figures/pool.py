"""Figures of memory: the four shares, the pool over time, the device over time."""

from __future__ import annotations

import numpy as np

from kvlab.accounting import SHARES
from kvlab.publish.figures.canvas import Canvas, Nothing, thinned
from kvlab.publish.figures.palette import INK

GIB = 2**30
HELD = ("tokens", "reserved", "internal")
MOST_POINTS = 360  # of a series that are drawn: more than a panel is wide in pixels


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
    """A panel an arm on one axis of time: its pool over the measured time, token states, reserved, never filled."""
    runs = {arm: run for arm, run in canvas.first_runs.items() if run.steps}
    if not runs:
        raise Nothing("no arm recorded its steps")
    canvas.figure.set_size_inches(7.6, 0.8 + 1.25 * len(runs))
    panels = canvas.figure.subplots(len(runs), 1, sharex=True, sharey=True, squeeze=False).flatten()
    for axes, (arm, run) in zip(panels, runs.items(), strict=True):
        account = run.accounting
        kept = thinned(len(account), MOST_POINTS)
        t = (account.t_s - min((one.arrival_s for one in run.served), default=run.window[0]))[kept]
        below = np.zeros(len(kept))
        for share in HELD:
            top = below + 100 * account.series(share)[kept] / account.pool
            axes.fill_between(
                t, below, top, step="post", color=canvas.colour(share), linewidth=0, label=canvas.word(share)
            )
            below = top
        queued = np.flatnonzero(account.waiting > 0)
        if len(queued):
            empty = t[np.searchsorted(kept, queued[-1])]
            axes.axvline(empty, color=INK, linewidth=1, linestyle=(0, (2, 2)), label=canvas.word("queue_ends"))
        axes.set_title(canvas.word("of_slots", arm=arm, n=f"{account.pool:,}"), fontsize=10, loc="left")
        axes.set_ylim(0, 100)
        axes.grid(axis="y")
    panels[-1].set_xlim(0, max(run.span_s for run in runs.values()))
    panels[-1].set_xlabel(canvas.word("seconds"))
    canvas.figure.supylabel(canvas.word("share_now"), fontsize=10)
    known = {label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    canvas.figure.legend(known.values(), known.keys(), loc="outside upper center", ncols=len(known), fontsize=9)


def memory_over_time(canvas: Canvas) -> None:
    """Device memory of each arm, seen from outside, from before loading to the end."""
    runs = {arm: run for arm, run in canvas.first_runs.items() if run.samples}
    if not runs:
        raise Nothing("no arm sampled device memory")
    canvas.figure.set_size_inches(7.6, 3.2)
    axes = canvas.figure.add_subplot()
    for arm, run in runs.items():
        samples = [run.samples[i] for i in thinned(len(run.samples), MOST_POINTS)]
        t = np.array([s.t_s for s in samples])
        used = np.array([s.used_bytes for s in samples]) / GIB
        axes.plot(t, used, color=canvas.arm_colour(arm), linewidth=1.4, label=arm)
        start, end = run.window
        inside = (t >= start) & (t <= end)
        axes.plot(t[inside], used[inside], color=canvas.arm_colour(arm), linewidth=3.2, solid_capstyle="butt")
    axes.set_xlabel(canvas.word("seconds_since_start"))
    axes.set_ylabel(canvas.word("device_memory"))
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.grid(axis="y")
    canvas.figure.legend(loc="outside upper center", ncols=3, fontsize=9)


KINDS = {"kv-shares": kv_shares, "occupancy": occupancy, "memory-over-time": memory_over_time}
