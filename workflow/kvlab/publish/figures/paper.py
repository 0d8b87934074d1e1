"""The paper's figures on the engine that was measured: Fig. 2, 12 and 13a, and what preemption costs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from kvlab.accounting import SHARES
from kvlab.publish.figures.canvas import Canvas, Nothing
from kvlab.publish.figures.palette import INK
from kvlab.quantities import Quantity
from kvlab.records import read_text
from kvlab.roles import ADMITTING
from kvlab.simulate.studies import paper_values

MARKS = {"orca-max": "s", "orca-pow2": "^", "orca-oracle": "D", "reserved": "v", "paged": "o"}  # by policy
Cells = list[tuple[float, Quantity]]  # (requests per second, what was measured at it)
PAPERS_POOL = 15728  # Table 1, OPT-13B


def shares(canvas: Canvas) -> None:
    """Fig. 2: a stacked bar a policy, the paper's boundaries as marks where its lengths and pool were used."""
    found = []
    at_rates = {share: cells(canvas, f"queued.share.{share}") for share in SHARES}
    for arm in admitting(canvas, canvas.metrics.roles.arms):
        mine = [
            canvas.quantity(f"{arm}.queued.share.{share}")
            or (at_rates[share][arm][-1][1] if arm in at_rates[share] else None)
            for share in SHARES
        ]
        if all(mine):
            found.append((arm, [100 * (q.value or 0.0) for q in mine if q]))
    if len(found) < 3 and not (found and _papers(canvas)):
        raise Nothing("fewer than three admission policies")
    canvas.figure.set_size_inches(7.6, 1.0 + 0.5 * len(found))
    axes = canvas.figure.add_subplot()
    left = np.zeros(len(found))
    for at, share in enumerate(SHARES):
        width = np.array([values[at] for _, values in found])
        bars = axes.barh(
            range(len(found)), width, left=left, height=0.6, color=canvas.colour(share), label=canvas.word(share)
        )
        labels = [f"{w:.1f}" if w >= 6 else "" for w in width]
        axes.bar_label(bars, labels, label_type="center", fontsize=9, color="#ffffff" if not at else "#000000")
        left += width
    if _papers(canvas):
        _marks(canvas, axes, [arm for arm, _ in found])
    axes.set_xlim(0, 100)
    axes.set_yticks(range(len(found)), [arm for arm, _ in found])
    axes.invert_yaxis()
    axes.set_xlabel(canvas.word("share_queued"))
    canvas.figure.legend(loc="outside upper center", ncols=3, fontsize=9)


def policy(canvas: Canvas, arm: str) -> str:
    """Who an arm admits, by the simulator's name."""
    return str(canvas.metrics.roles.about(arm, "policy") or "")


def mark(canvas: Canvas, arm: str) -> str:
    """The shape of an arm's points."""
    return MARKS.get(policy(canvas, arm), "o")


def admitting(canvas: Canvas, arms: Iterable[str]) -> list[str]:
    """Those of `arms` that differ in who is admitted, in the order of MARKS."""
    found = canvas.metrics.roles.every(ADMITTING, arms)
    order = [*MARKS]
    return sorted(found, key=lambda arm: order.index(p) if (p := policy(canvas, arm)) in order else len(order))


def _papers(canvas: Canvas) -> bool:
    """Whether the workload has the paper's lengths and its pool, so that its numbers can be compared with these."""
    asked = _settings(canvas)
    kind = asked.get("requests", {}).get("kind")
    return kind in ("paper", "sharegpt") and asked.get("kv_slots") == PAPERS_POOL


def _settings(canvas: Canvas) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(read_text(canvas.root / "config.json"))["workloads"].get(canvas.workload, {})
    return found


def _marks(canvas: Canvas, axes: Axes, arms: list[str]) -> None:
    printed = {claim["id"]: claim["paper"] for claim in paper_values.read()["claims"]}
    label = canvas.word("in_paper")
    for row, arm in enumerate(arms):
        ends, total = [], 0.0
        for share in SHARES[:3]:
            value = printed.get(f"fig2.{policy(canvas, arm)}.{share}")
            if value is None:
                break
            total += 100 * value
            ends.append(total)
        if ends:
            axes.plot(ends, [row - 0.38] * len(ends), "v", color=INK, markersize=6, label=label, clip_on=False)
            label = ""


def cells(canvas: Canvas, name: str) -> dict[str, Cells]:
    """Of each arm that was measured at request rates, (rate, the quantity `name`), by rate."""
    pattern = re.compile(rf"{re.escape(canvas.workload)}\.([\w-]+)@([\d.e+-]+)\.{re.escape(name)}")
    found: dict[str, Cells] = {}
    for quantity in canvas.metrics.quantities:
        hit = pattern.fullmatch(quantity.id)
        if hit and quantity.value is not None:
            found.setdefault(hit[1], []).append((float(hit[2]), quantity))
    order = dict.fromkeys((*admitting(canvas, found), *found))
    return {arm: sorted(found[arm], key=lambda one: one[0]) for arm in order}


def by_block(canvas: Canvas, arm: str, line: Cells) -> list[Cells]:
    """An arm's cells block by block, each with its own draw of requests; as one where blocks have equal rates."""
    asked = _settings(canvas).get("arrivals", {}).get("rates", {}).get(arm, [])
    if not all(isinstance(rates, list) for rates in asked):
        return [line]
    return [[cell for cell in line if cell[0] in rates] for rates in asked]


def rates(canvas: Canvas) -> None:
    """Fig. 12: normalized latency against the request rate, a line a policy and block, the bound, sustained rates."""
    found = cells(canvas, "normalized")
    if not found:
        raise Nothing("no arm was measured at request rates")
    unfinished = {
        q.id.removesuffix(".bound") for line in cells(canvas, "normalized.bound").values() for _, q in line if q.value
    }
    canvas.figure.set_size_inches(7.6, 3.6)
    axes = canvas.figure.add_subplot()
    for arm, line in found.items():
        seconds = [(q.value or 0.0) / 1000 for _, q in line]
        for block in by_block(canvas, arm, line):
            values = [(q.value or 0.0) / 1000 for _, q in block]
            axes.plot([rate for rate, _ in block], values, "-", color=canvas.arm_colour(arm), linewidth=1.6)
        for (rate, q), value in zip(line, seconds, strict=True):
            face = "none" if q.id in unfinished else canvas.arm_colour(arm)
            axes.plot(
                [rate], [value], mark(canvas, arm), color=canvas.arm_colour(arm), markerfacecolor=face, markersize=6
            )
            if q.interval:
                axes.plot([rate, rate], [end / 1000 for end in q.interval], color=canvas.arm_colour(arm), linewidth=1)
    bound = _settings(canvas).get("arrivals", {}).get("bound_s_per_token")
    if bound:
        axes.axhline(bound, color=INK, linewidth=1, linestyle=(0, (4, 2)))
        for arm in found:
            if sustained := canvas.quantity(f"{arm}.sustained"):
                axes.plot(
                    [sustained.value or 0.0],
                    [bound],
                    "|",
                    color=canvas.arm_colour(arm),
                    markersize=22,
                    markeredgewidth=2.4,
                )
    axes.set_yscale("log")
    axes.set_xlim(left=0)
    axes.set_xlabel(canvas.word("rate"))
    axes.set_ylabel(canvas.word("normalized"))
    axes.grid()
    marks = [_line(canvas, arm) for arm in found]
    if bound:
        marks.append(Line2D([], [], color=INK, linestyle=(0, (4, 2)), label=canvas.word("bound")))
        marks.append(
            Line2D([], [], color=INK, marker="|", linestyle="none", markersize=11, label=canvas.word("sustained"))
        )
    if unfinished:
        marks.append(Line2D([], [], color=INK, marker="o", mfc="none", linestyle="none", label=canvas.word("lower")))
    canvas.figure.legend(handles=marks, loc="outside upper center", ncols=3, fontsize=9)


def batched(canvas: Canvas) -> None:
    """Fig. 13a: requests that run together against the request rate, and the paper's batch sizes as crosses."""
    found = cells(canvas, "running.mean")
    if not found:
        raise Nothing("no arm was measured at request rates")
    canvas.figure.set_size_inches(7.6, 3.2)
    axes = canvas.figure.add_subplot()
    printed = {claim["id"]: claim["paper"] for claim in paper_values.read()["claims"]}
    for arm, line in found.items():
        shade = canvas.arm_colour(arm)
        for block in by_block(canvas, arm, line):
            values = [q.value or 0.0 for _, q in block]
            axes.plot([r for r, _ in block], values, f"{mark(canvas, arm)}-", color=shade, markersize=6)
        paper = printed.get(f"fig13a.{policy(canvas, arm)}.running")
        if paper is not None and _papers(canvas):
            axes.plot([2], [paper], "x", color=shade, markersize=9, markeredgewidth=2)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(canvas.word("rate"))
    axes.set_ylabel(canvas.word("together"))
    axes.grid()
    marks = [_line(canvas, arm) for arm in found]
    if _papers(canvas):
        marks.append(Line2D([], [], color=INK, marker="x", linestyle="none", label=canvas.word("in_paper_at")))
    canvas.figure.legend(handles=marks, loc="outside upper center", ncols=3, fontsize=9)


def preemption(canvas: Canvas) -> None:
    """What preemption costs at each rate: the part of the token states that was computed again."""
    found = {a: line for a, line in cells(canvas, "recomputed.share").items() if any(q.value for _, q in line)}
    if not found:
        raise Nothing("no arm that was measured at request rates computed anything again")
    canvas.figure.set_size_inches(7.6, 2.8)
    axes = canvas.figure.add_subplot()
    for arm, line in found.items():
        for block in by_block(canvas, arm, line):
            values = [100 * (q.value or 0.0) for _, q in block]
            axes.plot(
                [r for r, _ in block], values, f"{mark(canvas, arm)}-", color=canvas.arm_colour(arm), markersize=6
            )
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(canvas.word("rate"))
    axes.set_ylabel(canvas.word("recomputed"))
    axes.grid()
    canvas.figure.legend(handles=[_line(canvas, arm) for arm in found], loc="outside upper center", ncols=3, fontsize=9)


def _line(canvas: Canvas, arm: str) -> Line2D:
    return Line2D([], [], color=canvas.arm_colour(arm), marker=mark(canvas, arm), label=arm)


KINDS = {"paper-shares": shares, "rates": rates, "batched": batched, "preemption": preemption}
