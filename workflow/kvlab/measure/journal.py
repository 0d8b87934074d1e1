"""What is noted while one part of a workload is served. Nothing is formatted until it is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from kvlab.errors import NotRunnable
from kvlab.records import Output, Request, Served, Step


@dataclass
class Entry:
    """One request, as it is served. Times are `time.monotonic_ns`."""

    request: Request
    arrival_ns: int | None = None
    token_ns: list[int] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    finish_ns: int | None = None
    finish_reason: str | None = None
    cached_tokens: int = 0


class Journal:
    """The requests and steps of one part. Raises NotRunnable, from within the engine's loop, past `deadline_ns`."""

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
        self.finished = 0
        self.output_tokens = 0
        self._deadline_ns = deadline_ns
        self._on_finish = on_finish

    def arrive(self, ids: Iterable[int], t_ns: int) -> None:
        """These requests were handed to the engine at `t_ns`."""
        for id in ids:
            self.entries[id].arrival_ns = t_ns

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

    def check_time(self, t_ns: int) -> None:
        """Raises NotRunnable past the deadline."""
        if self._deadline_ns is not None and t_ns > self._deadline_ns:
            raise NotRunnable(
                f"stopped at the time budget, {self.finished} of {len(self.entries)} requests of part {self.part!r} "
                "were done; raise measure.time_budget_s or serve fewer requests"
            )

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
        return [
            Served(
                id=entry.request.id,
                prompt_tokens=len(entry.request.prompt_token_ids),
                output_tokens=len(entry.token_ids),
                arrival_s=seconds(entry.arrival_ns or origin_ns, origin_ns),
                token_s=[seconds(t, origin_ns) for t in entry.token_ns],
                finish_s=None if entry.finish_ns is None else seconds(entry.finish_ns, origin_ns),
                finish_reason=entry.finish_reason,
                cached_tokens=entry.cached_tokens,
                part=self.part,
            )
            for entry in self.entries.values()
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
        """Raises RuntimeError where a request did not get exactly the tokens that it asked for: unequal work."""
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
