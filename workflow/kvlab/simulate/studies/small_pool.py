"""A small pool slot by slot over time: what the picture for learners is drawn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kvlab.accounting import Accounting
from kvlab.allocators.contiguous import NOBODY, Ints, SimulatedRequest
from kvlab.simulate.scheduler import Scheduler
from kvlab.simulate.studies.cases import allocator_of
from kvlab.simulate.timeline import run_record

FREE, TOKEN, RESERVED, INTERNAL, ROUNDING = range(5)  # kinds of slots; free and rounding make up external


@dataclass(frozen=True)
class PoolPicture:
    """`request` [pool, n]: who holds each slot at each of n iterations, or NOBODY. `kind` [pool, n]: as above.

    `unit`: slots between the pool's drawn borders (a block). `accounting` says the same in numbers.
    """

    policy: str
    request: Ints
    kind: npt.NDArray[np.int8]
    unit: int
    accounting: Accounting


def picture(section: dict[str, Any], policy: str) -> PoolPicture:
    """Serve the configured requests, all there from the start, until all are done, and look at every slot.

    `section`: pool_slots, block_size, max_model_len and requests, [prompt, output] tokens each. KvlabError where a
    request does not fit.
    """
    pool, block = section["pool_slots"], section["block_size"]
    allocator = allocator_of(policy, pool, section["max_model_len"], block)
    jobs = [SimulatedRequest(number, prompt, output) for number, (prompt, output) in enumerate(section["requests"])]
    places: list[dict[int, Ints]] = []

    def look(row: int) -> None:
        held = set(allocator.owners().tolist()) - {NOBODY}
        places.append({request: allocator.places(request) for request in held})

    timeline = Scheduler(jobs, allocator).run(watch=look)
    owner = np.full((pool, len(timeline)), NOBODY, dtype=np.int64)
    kind = np.full((pool, len(timeline)), FREE, dtype=np.int8)
    for row, step in enumerate(timeline.steps(allocator)):
        for request, stored, slots in step.held:
            where = places[row][request]
            ends = (stored, max(stored, min(slots, jobs[request].final)), slots, len(where))
            owner[where, row] = request
            for code, begin, end in zip((TOKEN, RESERVED, INTERNAL, ROUNDING), (0, *ends[:-1]), ends, strict=True):
                kind[where[begin:end], row] = code
    record = run_record(allocator, "picture", policy, 0, len(timeline))
    return PoolPicture(policy, owner, kind, block, timeline.accounting(record, allocator))
