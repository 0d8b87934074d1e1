"""What is noted while one part of a workload is served. It is formatted after the clock has stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from kvlab.errors import OutOfTime
from kvlab.messages import Message
from kvlab.records import Output, Preemption, Request, Served, Step


@dataclass
class Entry:
    """One request, as it is served. Times are `time.monotonic_ns`."""

    request: Request
    arrival_ns: int | None = None  # planned, where requests arrive over time
    sent_ns: int | None = None
    seen_ns: int | None = None
    admitted_ns: int | None = None
    chunk: tuple[int, int] | None = None  # slots asked for and taken by a reserving policy
    preemptions: int = 0
    token_ns: list[int] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    finish_ns: int | None = None
    finish_reason: str | None = None
    cached_tokens: int = 0


class Journal:
    """The requests and steps of one part. Raises OutOfTime, from within the engine's loop, past `deadline_ns`."""

    def __init__(
        self,
        requests: Sequence[Request],
        part: str = "all",
        deadline_ns: int | None = None,
        on_finish: Callable[[Journal], None] | None = None,
    ) -> None:
        self.part = part
        self.entries = {request.id: Entry(request) for request in requests}
        self.steps: list[tuple[int, int, int, int, int, list[list[int]]]] = []
        self.lost: list[tuple[int, int, int, int, bool]] = []
        self.finished = 0
        self.output_tokens = 0
        self.complete = True  # False: stopped at its time limit; unfinished requests give lower bounds
        self._deadline_ns = deadline_ns
        self._on_finish = on_finish

    def arrive(self, ids: Iterable[int], t_ns: int) -> None:
        """These requests were handed to the engine at `t_ns`."""
        for id in ids:
            self.entries[id].arrival_ns = t_ns

    def plan(self, id: int, t_ns: int) -> None:
        """This request is to arrive at `t_ns`."""
        self.entries[id].arrival_ns = t_ns

    def sent(self, id: int, t_ns: int) -> None:
        """This request was handed to the engine at `t_ns`."""
        self.entries[id].sent_ns = t_ns

    def preempt(self, t_ns: int, step: int, id: int, tokens: int, last_under_way: bool) -> None:
        """A request lost its cache of `tokens` in the part's step number `step`, from 0."""
        self.entries[id].preemptions += 1
        self.lost.append((t_ns, step, id, tokens, last_under_way))

    def tokens(self, id: int, token_ids: Sequence[int], t_ns: int) -> None:
        """`token_ids` of a request reached the caller at `t_ns`."""
        entry = self.entries[id]
        entry.token_ids += token_ids
        if len(token_ids) == 1:
            entry.token_ns.append(t_ns)
        else:
            entry.token_ns += [t_ns] * len(token_ids)
        self.output_tokens += len(token_ids)
        if self._deadline_ns is not None and t_ns > self._deadline_ns:
            self.check_time(t_ns)

    def stop(self, t_ns: int) -> None:
        """The time limit is reached: a request that was not sent by now would have been sent later."""
        self.complete = False
        self.arrive((id for id, entry in self.entries.items() if entry.arrival_ns is None), t_ns)

    def check_time(self, t_ns: int) -> None:
        """Raises OutOfTime past the deadline."""
        if self._deadline_ns is not None and t_ns > self._deadline_ns:
            done = {"done": self.finished, "of": len(self.entries), "part": self.part}
            raise OutOfTime(Message("out-of-time", done))

    def finish(self, id: int, reason: str, t_ns: int, cached_tokens: int = 0) -> None:
        """A request is over; `cached_tokens` of its prompt came from a prefix cache."""
        entry = self.entries[id]
        entry.finish_ns, entry.finish_reason, entry.cached_tokens = t_ns, reason, cached_tokens
        self.finished += 1
        if self._on_finish:
            self._on_finish(self)

    def step(self, t_ns: int, running: int, waiting: int, preempted: int, blocks: int, held: list[list[int]]) -> None:
        """The cache after one engine step that began at `t_ns`; the fields are those of `records.Step`."""
        self.steps.append((t_ns, running, waiting, preempted, blocks, held))

    def served(self, origin_ns: int) -> list[Served]:
        """A line a request, in the workload's order."""

        def since_origin(t_ns: int | None) -> float | None:
            return None if t_ns is None else seconds(t_ns, origin_ns)

        return [
            Served(
                id=entry.request.id,
                prompt_tokens=len(entry.request.prompt_token_ids),
                output_tokens=len(entry.token_ids),
                arrival_s=seconds(entry.arrival_ns or origin_ns, origin_ns),
                token_s=[seconds(t, origin_ns) for t in entry.token_ns],
                finish_s=since_origin(entry.finish_ns),
                finish_reason=entry.finish_reason,
                cached_tokens=entry.cached_tokens,
                part=self.part,
                sent_s=since_origin(entry.sent_ns),
                seen_s=since_origin(entry.seen_ns),
                admitted_s=since_origin(entry.admitted_ns),
                asked_slots=entry.chunk[0] if entry.chunk else None,
                chunk_slots=entry.chunk[1] if entry.chunk else None,
                preemptions=entry.preemptions,
                asked_tokens=None if entry.finish_ns is not None else entry.request.max_new_tokens,
            )
            for entry in self.entries.values()
        ]

    def preempted(self, origin_ns: int, first: int = 0) -> list[Preemption]:
        """A line a preemption; `first`: the number of the part's first step."""
        return [
            Preemption(seconds(t_ns, origin_ns), first + step, id, tokens, under_way, self.part)
            for t_ns, step, id, tokens, under_way in self.lost
        ]

    def stepped(self, origin_ns: int, first: int = 0) -> list[Step]:
        """A line an engine step, numbered from `first`."""
        return [
            Step(first + number, seconds(t_ns, origin_ns), running, waiting, preempted, blocks, held, self.part)
            for number, (t_ns, running, waiting, preempted, blocks, held) in enumerate(self.steps)
        ]

    def outputs(self, decode: Callable[[list[int]], str]) -> list[Output]:
        """What each request got; `decode` turns token ids into text."""
        return [
            Output(entry.request.id, entry.token_ids, decode(entry.token_ids), self.part)
            for entry in self.entries.values()
        ]

    def check(self) -> None:
        """Raises RuntimeError where a request did not get exactly the tokens that it asked for: unequal work.

        One that was stopped when its time was over has requests that are not done.
        """
        if not self.complete:
            return
        for id, entry in self.entries.items():
            if len(entry.token_ids) != entry.request.max_new_tokens or entry.finish_ns is None:
                raise RuntimeError(
                    f"request {id} of part {self.part!r} got {len(entry.token_ids)} of "
                    f"{entry.request.max_new_tokens} tokens (finish reason {entry.finish_reason})"
                )


def seconds(t_ns: int, origin_ns: int) -> float:
    """Seconds since the run's origin, to the microsecond."""
    return round((t_ns - origin_ns) / 1e9, 6)


def now_ns() -> int:
    """The clock of all raw logs: CLOCK_MONOTONIC, one for all processes of a machine."""
    return time.monotonic_ns()
