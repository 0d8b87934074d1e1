"""What a simulation did: which request held cache from which iteration to which.

Between its admission and its end a request grows by one token an iteration, so one line for each stay is enough
to rebuild every iteration's record exactly, at a hundredth of the size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from kvlab.accounting import BUDDY, Accounting, Columns, Floats, account
from kvlab.allocators.contiguous import Allocator, Ints
from kvlab.errors import LogError
from kvlab.records import Run, Step

_ENTRIES = 2_000_000  # of (iteration, request) unfolded at a time, to bound memory


@dataclass(frozen=True, slots=True)
class Stay:
    """The time from one admission of a request until it leaves, iterations `start` ≤ i < `stop`: a line of
    `stays.jsonl`.

    It has `tokens` token states at `start`, one more an iteration, and after its prompt is in, each iteration yields
    an output token. `end`: finished, preempted, chunk (more of its prompt follows), stored (its last token is
    being computed), running (the simulation ended).
    """

    request: int
    prompt: int
    output: int
    arrival: float
    start: int
    stop: int
    tokens: int
    end: str


@dataclass(frozen=True)
class Finished:
    """Requests whose last token came: arrays [k]. `first` and `last`: when the first and the last output token came.

    Times are the timeline's, in iterations or seconds; `output` is tokens.
    """

    request: Ints
    arrival: Floats
    first: Floats
    last: Floats
    output: Ints

    def per_token(self) -> Floats:
        """Time from arrival to the last token ÷ output tokens, [k]: the normalized latency of the paper's Fig. 12."""
        return (self.last - self.arrival) / self.output


@dataclass(frozen=True)
class Timeline:
    """A simulation's stays, and what its scheduler counted at each of n iterations: arrays [n].

    `clock` is when the iteration was scheduled and `ends` when it ended, both in iterations, or in seconds where
    the scheduler had step times; they leap where nothing runs and nothing waits. `blocks` is the allocator's own count.
    """

    stays: Sequence[Stay]
    clock: Floats
    ends: Floats
    running: Ints
    waiting: Ints
    preempted: Ints
    blocks: Ints

    def __len__(self) -> int:
        return len(self.clock)

    def accounting(self, run: Run, allocator: Allocator, first: int = 0) -> Accounting:
        """The pool's division at the iterations from `first` on, by the function that serves measured logs too."""
        window = self._window(allocator)
        final = self.final(allocator)
        parts = [
            account(run, self.columns(allocator, lo, min(lo + window, len(self))), final)
            for lo in range(first, len(self), window)
        ]
        if not parts:
            raise LogError(f"{len(self)} iterations were simulated, none is left after the first {first}")
        return join(parts)

    def columns(self, allocator: Allocator, lo: int, hi: int) -> Columns:
        """The step log of iterations `lo` ≤ i < `hi`."""
        request, prompt, output, tokens, row = self._unfold(lo, hi)
        stored, slots = allocator.held(prompt, output, tokens)
        if allocator.pinned:
            every = np.arange(hi - lo)
            row = np.concatenate((row, every))
            request, stored, slots = (
                np.concatenate((values, np.full(hi - lo, fixed, dtype=np.int64)))
                for values, fixed in ((request, self.prefix_id), (stored, allocator.pinned), (slots, allocator.pinned))
            )
        within = slice(lo, hi)
        return Columns(
            step=np.arange(lo, hi),
            t_s=self.clock[within],
            running=self.running[within],
            waiting=self.waiting[within],
            preempted=self.preempted[within],
            blocks=self.blocks[within],
            row=row,
            request=request,
            stored=stored,
            slots=slots,
        )

    def unshared_slots(self, allocator: Allocator, samples: int, lo: int = 0) -> tuple[int, int]:
        """Slots allocated to requests, summed over iterations, and what they were if sequences shared nothing."""
        _, prompt, output, tokens, _ = self._unfold(lo, len(self))
        _, slots = allocator.held(prompt, output, tokens)
        alone = samples * (-(-tokens // allocator.block) * allocator.block)
        return int(slots.sum()) + allocator.pinned * (len(self) - lo), int(alone.sum())

    def _unfold(self, lo: int, hi: int) -> tuple[Ints, Ints, Ints, Ints, Ints]:
        """request, prompt, output, tokens and row (from `lo`) of each (iteration, request) in the window: [m]."""
        table, latest = self._table
        # No stay before `first` reaches the window, none from `last` on has begun.
        first, last = np.searchsorted(latest, lo, side="right"), np.searchsorted(table[:, 4], hi)
        inside = table[first:last]
        request, prompt, output, tokens, start, stop = inside[inside[:, 5] > lo].T
        begin = np.maximum(start, lo)
        length = np.minimum(stop, hi) - begin
        within = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
        had, row = tokens + begin - start, begin - lo
        return (
            np.repeat(request, length),
            np.repeat(prompt, length),
            np.repeat(output, length),
            np.repeat(had, length) + within,
            np.repeat(row, length) + within,
        )

    @cached_property
    def _table(self) -> tuple[Ints, Ints]:
        """The stays by start: request, prompt, output, tokens, start, stop, [n, 6]; the latest stop so far, [n]."""
        rows = [(s.request, s.prompt, s.output, s.tokens, s.start, s.stop) for s in self.stays]
        table = np.array(rows, dtype=np.int64).reshape(-1, 6)
        table = table[np.argsort(table[:, 4], kind="stable")]
        return table, np.maximum.accumulate(table[:, 5])

    @property
    def prefix_id(self) -> int:
        """The id of a pinned prefix in the log: one that no request has."""
        return max((stay.request for stay in self.stays), default=-1) + 1

    def final(self, allocator: Allocator) -> dict[int, int]:
        """Token states that each request holds at its end."""
        lengths = {stay.request: (stay.prompt, stay.output) for stay in self.stays}
        prompt, output = np.array(list(lengths.values()), dtype=np.int64).reshape(-1, 2).T
        stored, _ = allocator.held(prompt, output, prompt + output - 1)
        return dict(zip(lengths, stored.tolist(), strict=True)) | {self.prefix_id: allocator.pinned}

    def steps(self, allocator: Allocator, every: int = 1) -> Iterator[Step]:
        """Every `every`-th iteration as engines log it, in time linear in what is held."""
        window = self._window(allocator)
        for lo in range(0, len(self), window):
            part = self.columns(allocator, lo, min(lo + window, len(self)))
            order = np.lexsort((part.request, part.row))
            held = np.stack((part.request, part.stored, part.slots), axis=1)[order]
            upto = np.searchsorted(part.row[order], np.arange(len(part.step) + 1))
            for row in range(-lo % every, len(part.step), every):
                yield Step(
                    step=lo + row,
                    t_s=float(part.t_s[row]),
                    running=int(part.running[row]),
                    waiting=int(part.waiting[row]),
                    preempted=int(part.preempted[row]),
                    blocks=int(part.blocks[row]),
                    held=held[upto[row] : upto[row + 1]].tolist(),
                )

    def _window(self, allocator: Allocator) -> int:
        """Iterations that are unfolded at a time."""
        return max(1, _ENTRIES // max(1, int(self.running.max(initial=1)) + (allocator.pinned > 0)))

    def finished(self) -> Finished:
        """The requests whose last token came, and when their tokens did."""
        rows = [(s.request, s.prompt, s.output, s.start, s.stop, s.tokens) for s in self.stays]
        request, prompt, output, start, stop, tokens = np.array(rows, dtype=np.int64).reshape(-1, 6).T
        last = start + prompt + output - 1 - tokens  # the row that yields the last token
        first_row, last_row = (np.full(int(request.max(initial=-1)) + 1, len(self)) for _ in range(2))
        whole, through = tokens >= prompt, (last >= start) & (last < stop)
        np.minimum.at(first_row, request[whole], start[whole])
        np.minimum.at(last_row, request[through], last[through])
        done, one = np.unique(request[through], return_index=True)
        arrival = np.array([s.arrival for s in self.stays], dtype=np.float64)[through][one]
        return Finished(done, arrival, self.ends[first_row[done]], self.ends[last_row[done]], output[through][one])


def rebuild(stays: Sequence[Stay], allocator: Allocator, requests: int, iterations: int) -> Timeline:
    """The timeline of a log of stays in which all `requests` were there from the start: the same as when it was made.

    LogError where a stay is not one, or a request is there twice at once or after it has finished.
    """
    left: dict[int, int] = {}
    for stay in sorted(stays, key=lambda one: (one.request, one.start)):
        if left.get(stay.request, 0) > stay.start:
            raise LogError(f"request {stay.request}: is there twice at iteration {stay.start}")
        left[stay.request] = iterations if stay.end == "finished" else stay.stop
        if not (0 <= stay.start < stay.stop <= iterations and stay.arrival == 0 and stay.tokens >= 1):
            raise LogError(f"request {stay.request}: not a stay in {iterations} iterations from a full queue: {stay}")

    def upto(rows: list[int]) -> Ints:
        counts: Ints = np.cumsum(np.bincount(np.array(rows, dtype=np.int64), minlength=iterations + 1))[:iterations]
        return counts

    done = [stay.stop for stay in stays if stay.end == "finished"]
    running = upto([stay.start for stay in stays]) - upto([stay.stop for stay in stays])
    preempted = np.diff(upto([stay.stop for stay in stays if stay.end == "preempted"]), prepend=0)
    clock = np.arange(iterations, dtype=np.float64)
    timeline = Timeline(stays, clock, clock + 1, running, requests - running - upto(done), preempted, running)
    blocks = [np.empty(0, dtype=np.int64)]
    window = timeline._window(allocator)
    for lo in range(0, iterations, window):
        hi = min(lo + window, iterations)
        _, prompt, output, tokens, row = timeline._unfold(lo, hi)
        taken = allocator.taken(allocator.held(prompt, output, tokens)[1])
        blocks.append((np.bincount(row, weights=taken, minlength=hi - lo) + allocator.pinned).astype(np.int64))
    return replace(timeline, blocks=np.concatenate(blocks) // allocator.block)


def run_record(allocator: Allocator, workload: str, policy: str, seed: int, iterations: int) -> Run:
    """`run.json` of a simulation."""
    return Run(
        workload=workload,
        arm=f"simulated-{policy}",
        repeat=seed,
        status="completed",
        engine={"name": "simulated", "allocator": BUDDY if allocator.block == 1 and policy != "paged" else "paged"},
        pool_slots=allocator.pool,
        block_size=allocator.block,
        settings={"iterations": iterations, "unit_of_t_s": "iteration"},
    )


def join(parts: Iterable[Accounting]) -> Accounting:
    """One accounting of neighbouring windows of a log."""
    every = list(parts)
    columns = {
        name: np.concatenate([getattr(part, name) for part in every])
        for name in every[0].__dataclass_fields__
        if name != "pool"
    }
    return Accounting(pool=every[0].pool, **columns)
