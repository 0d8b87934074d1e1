"""Who is admitted: an allocator of the simulator's classes decides before vLLM's own KV cache manager.

vLLM 0.26.0 asks `kv_cache_manager.allocate_slots` for every request of every step, and its loop over waiting requests
stops at the first that gets None (v1/core/sched/scheduler.py:935): first come, first served, the head blocks. `free`
covers a request's end, its preemption and its abort. Both are replaced on the instance. A request holds its chunk from
admission to end; the tokens are stored in vLLM's blocks as usual, which the chunk always covers.
"""

from __future__ import annotations

import time
from typing import Any

from kvlab.allocators.contiguous import Allocator, SimulatedRequest
from kvlab.allocators.policies import allocator_of
from kvlab.errors import KvlabError, NotRunnable
from kvlab.messages import Message

PAGED = "paged"


def reserving(policy: str | None, slots: int, max_model_len: int, block_size: int) -> Allocator | None:
    """The shadow allocator of a policy; None where vLLM's own admission is the policy."""
    if policy is None or policy == PAGED:
        return None
    return allocator_of(policy, slots, max_model_len, block_size, in_blocks=True)


def check(policy: str | None, slots: int, max_model_len: int, block_size: int, lengths: list[tuple[int, int]]) -> None:
    """Raises NotRunnable, naming the request, where the policy could never admit one of these (prompt, output).

    vLLM itself would try again for ever.
    """
    try:
        allocator = reserving(policy, slots // block_size * block_size, max_model_len, block_size)
        for id, (prompt, output) in enumerate(lengths if allocator else []):
            allocator.check(SimulatedRequest(id, prompt, output))  # type: ignore[union-attr]
    except KvlabError as error:
        raise NotRunnable(Message("cannot-hold", {"policy": policy, "why": error.why})) from None


class Gate:
    """In front of one KV cache manager of vLLM. `admitted`: request id → (time, slots asked for, slots taken)."""

    def __init__(self, manager: Any, slots: int, max_model_len: int, block_size: int) -> None:
        self.pool = (slots, max_model_len, block_size)
        self.policy: str = PAGED
        self.shadow: Allocator | None = None
        self.holding: dict[str, SimulatedRequest] = {}
        self.admitted: dict[str, tuple[int, int | None, int | None]] = {}
        self._number = 0
        self._allocate, self._free = manager.allocate_slots, manager.free
        manager.allocate_slots, manager.free = self.allocate_slots, self.free

    def choose(self, policy: str) -> None:
        """Admit by another policy from now on; only while no request holds a chunk."""
        if policy == self.policy:
            return
        if self.holding:
            raise RuntimeError(f"policy {policy} was chosen while {len(self.holding)} requests hold chunks")
        self.policy, self.shadow = policy, reserving(policy, *self.pool)

    def allocate_slots(self, request: Any, num_new_tokens: int, *arguments: Any, **named: Any) -> Any:
        """vLLM's own, after the shadow allocator has admitted the request; None where it does not fit in either."""
        id = request.request_id
        if self.shadow is None or id in self.holding:
            got = self._allocate(request, num_new_tokens, *arguments, **named)
            if got is not None and id not in self.admitted:
                self.admitted[id] = (time.monotonic_ns(), None, None)
            return got
        job = SimulatedRequest(self._number, request.num_prompt_tokens, request.max_tokens)
        before = self.shadow.blocks
        if not self.shadow.admit(job, request.num_tokens, num_new_tokens, alone=not self.holding):
            return None
        got = self._allocate(request, num_new_tokens, *arguments, **named)
        if got is None:
            raise RuntimeError(f"policy {self.policy} admitted {id}, but vLLM's pool has too few free blocks for it")
        self._number += 1
        self.holding[id] = job
        taken = (self.shadow.blocks - before) * self.shadow.block
        self.admitted[id] = (time.monotonic_ns(), self._asked(job), taken)
        return got

    def _asked(self, job: SimulatedRequest) -> int:
        import numpy as np

        assert self.shadow is not None
        prompt, output = np.array([job.prompt]), np.array([job.output])
        return int(self.shadow.held(prompt, output, prompt)[1][0])

    def free(self, request: Any) -> Any:
        """vLLM's own, and the chunk given back."""
        job = self.holding.pop(request.request_id, None)
        if job is not None and self.shadow is not None:
            self.shadow.release(job)
        return self._free(request)
