"""The accounting: where the slots of a KV pool are, at every step, in the terms of the PagedAttention paper.

At an instant a pool of slots divides (section 3.1, Fig. 2 and 3 of Kwon et al., SOSP 2023) into

* tokens: token states, the keys and values that are there;
* reserved: allocated to a request that will fill them before it finishes;
* internal: allocated to a request that will never fill them (internal fragmentation);
* external: the rest. `rounding`: an allocator's chunks are larger than was asked for; `free`: allocated to no request.

One function serves measured and simulated logs, so that their numbers stand in one figure. What a request will still
fill is known afterwards, from its final length. Sizes are slots (one token).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from kvlab.errors import LogError
from kvlab.messages import Message
from kvlab.records import Run, Served, Step

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

SHARES = ("tokens", "reserved", "internal", "external")
BUDDY = "buddy"  # Run.engine["allocator"] of a log whose blocks may exceed what its requests asked for


def final_tokens(served: Iterable[Served]) -> dict[int, int]:
    """Token states that each request, by id, holds at its end: prompt + output − 1.

    The last output token is returned and never fed back, so its keys and values are never computed. A request that was
    stopped before its end would have gone on to `asked_tokens`.
    """
    return {one.id: one.prompt_tokens + max(one.asked_tokens or one.output_tokens, 1) - 1 for one in served}


@dataclass(frozen=True)
class Columns:
    """A step log by columns: n steps, and the m entries of all their `held` lists, in any order.

    `step`, `t_s`, `running`, `waiting`, `preempted`, `blocks`: [n]. `row`, the index of an entry's step, `request`,
    `stored` and `slots`: [m].
    """

    step: Ints
    t_s: Floats
    running: Ints
    waiting: Ints
    preempted: Ints
    blocks: Ints
    row: Ints
    request: Ints
    stored: Ints
    slots: Ints

    @classmethod
    def of(cls, steps: Sequence[Step]) -> Columns:
        """LogError where a `held` entry is not three numbers, or a number is not a whole one."""
        for one in steps:
            if any(len(entry) != 3 for entry in one.held):
                raise LogError(Message("log.held-entry", {"step": one.step, "found": str(one.held)}))
        flat = list(chain.from_iterable(chain.from_iterable(one.held for one in steps)))
        held = _whole(flat, "held").reshape(-1, 3)

        def column(name: str) -> Ints:
            return _whole([getattr(one, name) for one in steps], name)

        return cls(
            step=column("step"),
            t_s=np.array([one.t_s for one in steps], dtype=np.float64),
            running=column("running"),
            waiting=column("waiting"),
            preempted=column("preempted"),
            blocks=column("blocks"),
            row=np.repeat(np.arange(len(steps)), _whole([len(one.held) for one in steps], "held")),
            request=held[:, 0],
            stored=held[:, 1],
            slots=held[:, 2],
        )


@dataclass(frozen=True)
class Accounting:
    """The division of a pool of `pool` slots at each of n steps. All arrays [n]; int64 but for `t_s`, seconds.

    `tokens + reserved + internal + external == pool` and `external == rounding + free` at every step. `running`,
    `waiting` and `preempted` are the engine's own counts of requests; `holding` counts those that hold cache and have
    not finished. `held`: slots that the engine itself holds, where `allocated` are those that are charged. Of a padded
    batch, `padded` counts the rows whose requests have finished and `padding` the slots that they hold: they store
    nothing, and are part of `internal`.
    """

    pool: int
    step: Ints
    t_s: Floats
    tokens: Ints
    reserved: Ints
    internal: Ints
    rounding: Ints
    free: Ints
    running: Ints
    waiting: Ints
    preempted: Ints
    blocks: Ints
    holding: Ints
    held: Ints
    padding: Ints
    padded: Ints

    def __len__(self) -> int:
        return len(self.step)

    @property
    def external(self) -> Ints:
        """Slots that no request asked for: rounding and free."""
        return self.rounding + self.free

    @property
    def allocated(self) -> Ints:
        """Slots allocated to requests: tokens, reserved and internal."""
        return self.tokens + self.reserved + self.internal

    def series(self, name: str) -> Ints:
        """The column or property called `name`, [n]."""
        values: Ints = getattr(self, name)
        return values

    def time_weights(self, end_s: float | None = None) -> Floats:
        """Seconds that each step's state lasted, [n]: until the next step's record, the last one's until `end_s`.

        Without `end_s` the last step counts as long as the median step.
        """
        if not len(self):
            raise LogError("no steps to weigh; the run recorded none")
        gaps = np.diff(self.t_s)
        last = float(np.median(gaps)) if len(gaps) else 1.0
        if end_s is not None:
            last = end_s - float(self.t_s[-1])
            if not last >= 0:
                raise LogError(f"step {self.step[-1]}: recorded at {self.t_s[-1]} s, after the end at {end_s} s")
        return np.append(gaps, last)

    def mean(self, name: str, weights: Floats | None = None) -> float:
        """Mean of `name` over the steps, in its own unit; weighted by `weights` [n], equally without."""
        if not len(self):
            raise LogError(f"no steps to take the mean of {name} over; the run recorded none")
        if weights is None or not weights.sum() > 0:
            return float(self.series(name).mean())
        return float(np.average(self.series(name), weights=weights))

    def mean_share(self, name: str, weights: Floats | None = None) -> float:
        """Mean of `name` as a part of the pool, 0 to 1."""
        return self.mean(name, weights) / self.pool

    def efficiency(self, weights: Floats | None = None) -> float | None:
        """Token states ÷ allocated slots, each its mean over the steps; None where nothing was ever allocated."""
        allocated = self.mean("allocated", weights)
        return self.mean("tokens", weights) / allocated if allocated else None

    def peak(self, name: str) -> int:
        """The largest value of `name` at any step."""
        return int(self.series(name).max(initial=0))


def account(
    run: Run,
    steps: Sequence[Step] | Columns,
    final: Mapping[int, int],
    chunks: Mapping[int, tuple[int, int]] | None = None,
    ended: Mapping[int, float] | None = None,
) -> Accounting:
    """Divide `run`'s pool at each step. `final`: token states that each request holds at its end (`final_tokens`).

    `chunks`: where a reserving policy admitted a request, the slots it asked for and the chunk it took
    are charged from the first step to the last in which the request holds cache; what the engine's blocks hold of the
    chunk is inside it. `ended`: of a padded batch, when each request finished, seconds; its row is computed until the
    batch ends.

    Where `run.reserve_slots` is set, each request that holds cache is charged at least that many slots: what a
    contiguous allocator would have had to hold for it. LogError, naming the step, where a record contradicts itself.
    """
    log = steps if isinstance(steps, Columns) else Columns.of(steps)
    pool = run.pool_slots
    if pool < 1 or run.block_size < 1:
        raise LogError(Message("log.no-pool", {"pool": pool, "block": run.block_size}))

    def at_step(bad: npt.NDArray[np.bool_], what: str, **values: Any) -> None:
        if bad.any():
            raise LogError(Message(f"log.{what}", values | {"step": int(log.step[int(np.argmax(bad))])}))

    def at_entry(bad: npt.NDArray[np.bool_], what: str) -> None:
        if bad.any():
            entry = min(np.flatnonzero(bad).tolist(), key=lambda one: log.row[one])
            columns = {"request": log.request, "tokens": log.stored, "slots": log.slots, "step": log.step[log.row]}
            values = {name: int(column[entry]) for name, column in columns.items()}
            raise LogError(Message("log.entry", {"what": Message(f"log.{what}"), **values}))

    at_step(~np.isfinite(log.t_s) | (log.t_s < np.concatenate(([-np.inf], log.t_s[:-1]))), "time-backwards")
    for name in ("running", "waiting", "preempted", "blocks"):
        at_step(getattr(log, name) < 0, "negative", name=name)
    last = _column(log.request, final)
    at_entry(last < 0, "unknown-request")
    at_entry((log.stored < 0) | (log.slots < 0), "negative-entry")
    at_entry(log.stored > log.slots, "more-tokens-than-slots")
    stored = _without_the_step_too_many(run, log, last)
    at_entry(stored > last, "more-tokens-than-filled")

    charged = log.slots if run.reserve_slots is None else np.maximum(log.slots, run.reserve_slots)
    beyond = np.zeros_like(charged)
    if chunks:
        charged = _column(log.request, {one: asked for one, (asked, _) in chunks.items()})
        taken = _column(log.request, {one: chunk for one, (_, chunk) in chunks.items()})
        at_entry(charged < 0, "no-chunk")
        at_entry((log.slots > taken) | (charged > taken), "more-slots-than-chunk")
        beyond = taken - charged
    live = _live(log, ended)
    filled_at_last = np.minimum(charged, last) * live
    asked, allocated, tokens, filled = (_per_step(log, a) for a in (log.slots, charged, stored * live, filled_at_last))
    rounding = log.blocks * run.block_size - asked
    if run.engine.get("allocator") == BUDDY:
        at_step(rounding < 0, "chunks-too-small")
    else:
        at_step(rounding != 0, "blocks-are-not-slots", block=run.block_size)
    rounding = rounding + _per_step(log, beyond)
    free = pool - allocated - rounding
    at_step(free < 0, "beyond-pool", pool=pool)
    return Accounting(
        pool=pool,
        step=log.step,
        t_s=log.t_s,
        tokens=tokens,
        reserved=filled - tokens,
        internal=allocated - filled,
        rounding=rounding,
        free=free,
        running=log.running,
        waiting=log.waiting,
        preempted=log.preempted,
        holding=_per_step(log, live),
        blocks=log.blocks,
        held=asked,
        padding=_per_step(log, charged * (1 - live)),
        padded=_per_step(log, 1 - live),
    )


def _without_the_step_too_many(run: Run, log: Columns, last: Ints) -> Ints:
    """Tokens that each entry stores, [m], without the one of a step too many, which counts as internal.

    transformers' continuous batching (5.17.0, `use_async_batching`) plans a step before it knows the tokens of the one
    before, and so runs each request once more after its last token, in its last step. vLLM plans no such step.
    """
    if not run.engine.get("async_scheduling"):
        return log.stored
    requests, where = np.unique(log.request, return_inverse=True)
    ends = np.full(len(requests), -1)
    np.maximum.at(ends, where, log.row)
    too_many: Ints = (log.row == ends[where]) & (log.stored == last + 1)
    return log.stored - too_many


def _live(log: Columns, ended: Mapping[int, float] | None) -> Ints:
    """Of each entry 1 where its request has not finished when the step begins, else 0: [m]."""
    if not ended:
        return np.ones(len(log.request), dtype=np.int64)
    ends = np.array([ended.get(one, np.inf) for one in log.request.tolist()])
    return (log.t_s[log.row] < ends).astype(np.int64)


def _whole(values: list[int], name: str) -> Ints:
    column = np.array(values or np.empty(0, dtype=np.int64))
    if column.dtype.kind != "i":
        raise LogError(Message("log.not-whole", {"name": name}))
    return column.astype(np.int64)


def _per_step(log: Columns, values: Ints) -> Ints:
    # Floats hold whole numbers exactly up to 2^53, far beyond any pool.
    sums: Ints = np.bincount(log.row, weights=values, minlength=len(log.step)).astype(np.int64)
    return sums


def _column(request: Ints, final: Mapping[int, int]) -> Ints:
    """Each entry's number in `final`, by its request; −1 where the request is unknown."""
    if len(request) and request.min() >= 0 and request.max() <= 10 * len(request):  # faster than sorting
        table = np.full(int(request.max()) + 1, -1, dtype=np.int64)
        for one in (one for one in final if 0 <= one < len(table)):
            table[one] = final[one]
        return table[request]
    ids, where = np.unique(request, return_inverse=True)
    column: Ints = np.array([final.get(one, -1) for one in ids.tolist()], dtype=np.int64)[where]
    return column
