"""The recorded steps that the page's pool view plays; a long run is thinned.

Every frame is a step as it was recorded, nothing is averaged. The page computes the four shares from a frame by the
rules of `kvlab.accounting`: what a request still fills is known from its final length.

Encoding, since a long run has many steps and requests: a stretch is [request, first frame, tokens, slots]. `tokens`
are run lengths [value, count, …] of how far the stored tokens are from growing by one a step, `slots` of how far the
slots are from the tokens rounded up to whole blocks; both are almost always one run of zeros. `chunks`: where a
policy reserved slots for each request, what it asked for and the chunk that it took; `whole`: a chunk is one piece.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Any

import numpy as np

from kvlab.accounting import final_tokens
from kvlab.raw import RawRun
from kvlab.records import Step

MOST_FRAMES = 280
SMALL = 64  # columns from which on a cell is small
USUAL_CELL, LARGEST_CELL = 16, 128  # slots; a contiguous piece is drawn as many cells
MOST_HELD = 60_000  # entries of all frames together; a run with very many requests gets fewer frames


def pool_view(run: RawRun) -> dict[str, Any]:
    """Frames of one part of a run. Times in milliseconds since its first request arrived."""
    zero = min((one.arrival_s for one in run.served), default=run.window[0])
    kept = thin(run.steps, run.accounting.allocated)
    frames = [run.steps[i] for i in kept]
    preempted = np.cumsum([step.preempted for step in run.steps])
    block = run.run.block_size
    return {
        "pool": run.run.pool_slots,
        "block": block,
        "reserve": run.run.reserve_slots or 0,
        "chunks": run.chunks,
        "whole": (run.run.policy or "").startswith("orca"),
        "end": round(1000 * (run.end_s - zero), 1),
        "t": [round(1000 * (step.t_s - zero), 1) for step in frames],
        "step": kept,
        "waiting": _runs([step.waiting for step in frames]),
        "preempted": _runs([int(preempted[i]) for i in kept]),
        "final": final_tokens(run.served),
        "prompt": {one.id: one.prompt_tokens for one in run.served},
        "held": _stretches(frames, kept, block),
    }


def thin(steps: Sequence[Step], allocated: Any) -> list[int]:
    """Indices of the steps that are kept: evenly in time, with the fullest and the last one."""
    if not steps:
        return []
    mean_held = max(1.0, sum(len(step.held) for step in steps) / len(steps))
    most = int(max(60, min(MOST_FRAMES, MOST_HELD / mean_held)))
    if len(steps) <= most:
        return list(range(len(steps)))
    times = np.array([step.t_s for step in steps])
    even = np.searchsorted(times, np.linspace(times[0], times[-1], most - 2))
    return sorted({int(i) for i in even} | {int(np.argmax(allocated)), len(steps) - 1})


def _stretches(frames: Sequence[Step], kept: Sequence[int], block: int) -> list[list[Any]]:
    """Each request's unbroken stretches of holding cache; a preempted request has more than one."""
    open_: dict[int, list[tuple[int, int, int]]] = {}
    done: list[list[Any]] = []

    def close(request: int) -> None:
        done.append(_encode(request, open_.pop(request), kept, block))

    for at, frame in enumerate(frames):
        here = {request for request, _, _ in frame.held}
        for request in [one for one in open_ if one not in here]:
            close(request)
        for request, stored, slots in frame.held:
            open_.setdefault(request, []).append((at, stored, slots))
    for request in list(open_):
        close(request)
    return sorted(done, key=lambda one: (one[1], one[0]))


def _encode(request: int, seen: list[tuple[int, int, int]], kept: Sequence[int], block: int) -> list[Any]:
    first, stored, _ = seen[0]
    off = [stored]
    off += [b[1] - a[1] - (kept[b[0]] - kept[a[0]]) for a, b in pairwise(seen)]
    extra = [slots - -(-tokens // block) * block for _, tokens, slots in seen]
    return [request, first, _runs(off), _runs(extra)]


def _runs(values: Sequence[int]) -> list[int]:
    return [number for value, group in groupby(values) for number in (value, len(list(group)))]


def grid(pools: Sequence[int], units: Sequence[int], parts: int = 1) -> tuple[int, int]:
    """Columns and rows of cells in which pools of so many slots are drawn, about square; 1/`parts` of the columns.

    report/script/pool.js has the same rule.
    """
    cells = max((pool / cell_slots(units) for pool in pools), default=1)
    columns = (1 << math.ceil(math.log2(math.sqrt(max(cells, 1))))) // parts
    return columns, math.ceil(cells / columns)


def aspects(pools: Sequence[int], units: Sequence[int]) -> tuple[str, str]:
    """CSS aspect ratios of the grid, wide and on a phone: small cells are twice as high as wide, on a phone square."""
    columns, rows = grid(pools, units)
    if columns < SMALL:
        return (f"{columns}/{rows}",) * 2
    narrow = grid(pools, units, 2)
    return f"{columns}/{2 * rows}", f"{narrow[0]}/{narrow[1]}"


def cell_slots(units: Sequence[int]) -> int:
    """Slots of one cell: the smallest block that is more than one slot, or the usual size of one."""
    blocks = [unit for unit in units if 1 < unit <= LARGEST_CELL]
    return min(blocks, default=USUAL_CELL)
