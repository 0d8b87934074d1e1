"""The scheduler: first come, first served, one iteration after another, with any allocator.

One iteration is one step of an engine, in the order of vLLM's scheduler. First each running request gets the slots for
its next token; where the pool has none, the newest request is preempted, and computed again from its start later. Then
waiting requests are admitted in order, until one does not fit. An admitted request's prompt is stored in that
iteration, which yields its first output token; each later iteration stores a token and yields the next. (Yu et al.,
OSDI 2022; sections 4.3 and 4.5 of Kwon et al., SOSP 2023.)

Events (a request ends, a request needs a block) are listed by iteration, so the time that an iteration without events
takes does not depend on the number of requests. Time is a count of iterations, or seconds where step times are given.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from operator import itemgetter

import numpy as np

from kvlab.allocators.contiguous import Allocator, SimulatedRequest
from kvlab.errors import KvlabError
from kvlab.simulate.clock import Clock
from kvlab.simulate.step_times import StepTimes
from kvlab.simulate.timeline import Stay, Timeline

_number = itemgetter(0)


class Scheduler:
    """Serves `jobs`, in order of arrival, from `allocator`'s pool.

    `max_running`: most requests at once. `token_budget`: most tokens an iteration computes; a prompt beyond it is
    stored in several, or, without `chunk_prompts`, waits for an iteration whose budget holds all of it. Both None: no
    bound, as in the paper's simulation of memory.
    `asynchronous`: an iteration is scheduled while the one before it runs, so a request whose last token is computed
    holds its slots one iteration longer (vllm/v1/core/sched/async_scheduler.py, 0.26.0). `step_times`: arrivals and
    the timeline's clock are in seconds, and an iteration lasts as long as what it computes takes; without, both are in
    iterations.
    """

    def __init__(
        self,
        jobs: Sequence[SimulatedRequest],
        allocator: Allocator,
        *,
        max_running: int | None = None,
        token_budget: int | None = None,
        chunk_prompts: bool = True,
        asynchronous: bool = False,
        step_times: StepTimes | None = None,
    ) -> None:
        for name, value in (("max_running", max_running), ("token_budget", token_budget)):
            if value is not None and value < 1:
                raise KvlabError(f"{name} {value}: at least 1, or none")
        for job in jobs:
            allocator.check(job)
            if token_budget is not None and not chunk_prompts and job.final > token_budget:
                raise KvlabError(f"request {job.id}: {job.final} tokens, above token_budget {token_budget}")
            if not (math.isfinite(job.arrival) and job.arrival >= 0):
                raise KvlabError(f"request {job.id}: arrives at {job.arrival}; a finite number of at least 0 is needed")
        if len({job.id for job in jobs}) < len(jobs):
            raise KvlabError("two requests have the same id")
        self.allocator = allocator
        self.max_running = len(jobs) if max_running is None else max_running
        self.token_budget = math.inf if token_budget is None else token_budget
        self.chunk_prompts = chunk_prompts
        self.asynchronous = asynchronous
        self.clock = Clock(step_times, ahead=asynchronous)
        self.stays: list[Stay] = []
        self._not_arrived = deque(sorted(jobs, key=lambda job: job.arrival))
        self._waiting: deque[SimulatedRequest] = deque()
        self._running: dict[int, SimulatedRequest] = {}  # by id, in order of admission
        self._prefilling: list[SimulatedRequest] = []
        self._draining: dict[int, SimulatedRequest] = {}  # all tokens stored, the last one still to be returned
        self._known_tokens = {job.id: job.prompt for job in jobs}  # of prompt and output so far
        self._stay_start: dict[int, tuple[int, int]] = {}  # of the stay that is open: iteration, tokens
        self._token_offset = 0  # sum of tokens − start over the open stays; plus the row of each: token states
        # Of the requests whose prompt is stored in this iteration: tokens stored in all, tokens stored now.
        self._prompt_stored: dict[int, tuple[int, int]] = {}
        self._admission_number: dict[int, int] = {}  # of each running request; events of older admissions are ignored
        self._admission_count = 0
        self._end_events: dict[int, list[tuple[int, SimulatedRequest]]] = {}
        self._growth_events: dict[int, list[tuple[int, SimulatedRequest]]] = {}

    def run(
        self,
        iterations: int | None = None,
        watch: Callable[[int], None] | None = None,
        until: float = math.inf,
    ) -> Timeline:
        """Serve until all are done, for `iterations`, or `until` a time.

        `watch(i)` is called once the slots of iteration i are allocated.
        """
        counts: list[tuple[int, int, int, int]] = []
        row, retry, clock = 0, True, self.clock
        while iterations is None or row < iterations:
            for number, job in self._end_events.pop(row, ()):
                if self._admission_number.get(job.id) == number:
                    if self.asynchronous and job.id not in self._draining:
                        self._drain(job, row)
                        continue
                    self._leave(job, row, "finished")
                    retry = True
            now = clock.now(busy=bool(self._running))
            while self._not_arrived and self._not_arrived[0].arrival <= now:
                self._waiting.append(self._not_arrived.popleft())
                retry = True
            if now >= until:
                break
            if not self._running and not self._waiting:
                if not self._not_arrived:
                    break
                clock.wait(self._not_arrived[0].arrival)
                continue
            self._prompt_stored.clear()
            preempted = self._grow(row)
            budget = self.token_budget - (len(self._running) - len(self._prefilling) - len(self._draining))
            if self._prefilling:
                preempted, budget = self._prefill(row, preempted, budget)
            if preempted:
                retry = True
            elif retry:
                retry = self._admit(row, budget)
            if self._draining and len(self._draining) == len(self._running):
                # Nothing is left to compute: no iteration is made, and the last tokens are waited for.
                for job in list(self._draining.values()):
                    self._leave(job, row, "finished")
                clock.settle()
                retry = True
                continue
            counts.append((len(self._running), len(self._waiting), preempted, self.allocator.blocks))
            clock.step(now, *(self._work(row) if clock.step_times else (0, 0, 0)))
            if watch:
                watch(row)
            row += 1
        for job in list(self._running.values()):
            self._leave(job, row, "running")
        begins, ends = np.array([clock.begins, clock.ends], dtype=np.float64)
        return Timeline(self.stays, begins, ends, *np.array(counts, dtype=np.int64).reshape(-1, 4).T)

    def _work(self, row: int) -> tuple[int, int, int]:
        """Rows that decode, the token states they read, and prompt tokens that this iteration computes."""
        stored = self._token_offset + len(self._running) * row - sum(job.final for job in self._draining.values())
        rows = len(self._running) - len(self._draining) - len(self._prompt_stored)
        prompts = self._prompt_stored.values()
        return rows, stored - sum(tokens for tokens, _ in prompts), sum(new for _, new in prompts)

    def _grow(self, row: int) -> int:
        """Slots for the next token of each running request, the oldest first; returns how many were preempted."""
        events = self._growth_events.pop(row, None)
        if events is None:
            return 0
        preempted = 0
        events.sort(key=_number)
        for number, job in events:
            if self._admission_number.get(job.id) != number:
                continue
            start, had = self._stay_start[job.id]
            tokens = had + row - start
            if not self.allocator.grow(job, tokens):
                preempted += self._make_room(job, tokens, row)
                if job.id not in self._running:
                    continue
            self._plan_growth(job, row, tokens)
        return preempted

    def _make_room(self, job: SimulatedRequest, tokens: int, row: int) -> int:
        """Grow `job` to `tokens`, preempting the newest requests, `job` itself last; returns how many."""
        preempted = 0
        while job.id in self._running and not self.allocator.grow(job, tokens):
            newest = next(reversed(self._running.values()))
            if newest.id in self._draining:
                self._leave(newest, row, "finished")  # its last token is returned all the same
                preempted += 1
                continue
            start, had = self._stay_start[newest.id]
            if newest in self._prefilling:
                self._prefilling.remove(newest)
            else:
                self._known_tokens[newest.id] = had + row - start
            self._leave(newest, row, "preempted")
            self._waiting.appendleft(newest)
            preempted += 1
        return preempted

    def _prefill(self, row: int, preempted: int, budget: float) -> tuple[int, float]:
        """Store the next chunk of prompts that exceeded the budget of an earlier iteration."""
        for job in list(self._prefilling):
            if job.id not in self._running:
                continue
            had = self._stay_start[job.id][1]
            tokens = had + int(max(0, min(budget, self._known_tokens[job.id] - had)))
            preempted += self._make_room(job, tokens, row)
            if job.id in self._running:
                self._close(job, row, "chunk")
                self._store_prompt(job, row, tokens, had)
                budget -= tokens - had
        return preempted, budget

    def _admit(self, row: int, budget: float) -> bool:
        """Admit in order until one does not fit; returns whether the next iteration is to try again at any rate."""
        while self._waiting and len(self._running) < self.max_running:
            job = self._waiting[0]
            tokens = int(min(self._known_tokens[job.id], max(budget, 0)))
            if not tokens or (tokens < self._known_tokens[job.id] and not self.chunk_prompts):
                return True
            if not self.allocator.admit(job, self._known_tokens[job.id], tokens, alone=not self._running):
                break
            self._waiting.popleft()
            self._running[job.id] = job
            self._admission_count += 1
            self._admission_number[job.id] = self._admission_count
            self._prefilling.append(job)
            self._store_prompt(job, row, tokens, 0)
            budget -= tokens
        return False

    def _store_prompt(self, job: SimulatedRequest, row: int, tokens: int, had: int) -> None:
        self._open(job, row, tokens)
        self._prompt_stored[job.id] = (tokens, tokens - had)
        if tokens == self._known_tokens[job.id]:
            self._prefilling.remove(job)
            self._end_events.setdefault(row + job.final - tokens + 1, []).append((self._admission_number[job.id], job))
            self._plan_growth(job, row, tokens)

    def _plan_growth(self, job: SimulatedRequest, row: int, tokens: int) -> None:
        beyond = self.allocator.capacity(job) + 1
        if beyond <= job.final:
            self._growth_events.setdefault(row + beyond - tokens, []).append((self._admission_number[job.id], job))

    def _drain(self, job: SimulatedRequest, row: int) -> None:
        """Hold the request's slots for one more iteration, in which it stores nothing."""
        self._close(job, row, "stored")
        self._open(job, row, job.final)
        self._draining[job.id] = job
        self._end_events.setdefault(row + 1, []).append((self._admission_number[job.id], job))

    def _leave(self, job: SimulatedRequest, row: int, end: str) -> None:
        self._close(job, row, end)
        self._draining.pop(job.id, None)
        self._prompt_stored.pop(job.id, None)
        self.allocator.release(job)
        del self._running[job.id], self._stay_start[job.id], self._admission_number[job.id]

    def _open(self, job: SimulatedRequest, row: int, tokens: int) -> None:
        self._stay_start[job.id] = (row, tokens)
        self._token_offset += tokens - row

    def _close(self, job: SimulatedRequest, row: int, end: str) -> None:
        start, tokens = self._stay_start[job.id]
        self._token_offset -= tokens - start
        if row > start:
            self.stays.append(Stay(job.id, job.prompt, job.output, job.arrival, start, row, tokens, end))
