"""KV-cache allocators behind one small protocol; here the contiguous one, in `paged.py` the other.

Definitions from sections 3.1 and 6.1 of Kwon et al., SOSP 2023. Allocators keep the address of every slot, so
its owner is known at any time. Time and order are the scheduler's (`scheduler.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from kvlab.allocators.buddy import Buddy, chunk_for
from kvlab.errors import KvlabError
from kvlab.messages import Message

Ints = npt.NDArray[np.int64]

NOBODY = -1
NEVER = 1 << 62  # tokens that no request reaches


@dataclass(frozen=True, slots=True)
class SimulatedRequest:
    """A request as the simulator serves it: its lengths in tokens, and when it arrives, in iterations."""

    id: int
    prompt: int
    output: int
    arrival: float = 0.0

    @property
    def final(self) -> int:
        """Token states at its end: the last output token's keys and values are never computed."""
        return self.prompt + self.output - 1


class Allocator(Protocol):
    """What the scheduler asks of a pool. `tokens` counts a request's token states, of one sequence."""

    pool: int  # slots
    block: int  # slots an allocation grows by; 1 for contiguous chunks
    pinned: int  # slots held throughout, by a shared prefix

    @property
    def blocks(self) -> int:
        """Blocks in use: `blocks * block` slots are not free."""

    def check(self, job: SimulatedRequest) -> None:
        """KvlabError where `job` could never be served."""

    def admit(self, job: SimulatedRequest, known: int, tokens: int, alone: bool) -> bool:
        """Take what `job` needs to start with `tokens` of its `known` tokens; False where it does not fit now."""

    def grow(self, job: SimulatedRequest, tokens: int) -> bool:
        """Extend the request to `tokens` in all; False where the pool has too few free slots."""

    def capacity(self, job: SimulatedRequest) -> int:
        """Tokens that `job` can reach before it must `grow`."""

    def release(self, job: SimulatedRequest) -> None:
        """Free all that `job` holds."""

    def held(self, prompt: Ints, output: Ints, tokens: Ints) -> tuple[Ints, Ints]:
        """Token states stored and slots held by requests of these lengths when they have `tokens`. All [m]."""

    def taken(self, slots: Ints) -> Ints:
        """Slots that leave the pool for requests that hold `slots`: what is not free. [m]"""

    def places(self, request: int) -> Ints:
        """Addresses of the slots that a request holds, in the order in which its tokens fill them."""

    def owners(self) -> Ints:
        """Which request holds each slot: its id, or NOBODY. [pool]"""


class Contiguous:
    """One chunk a request, for prompt and output, held from admission to completion (Orca, section 6.1).

    Slots asked for: "max" the longest length there is; "pow2" prompt + the next power of two of the output, at most
    the longest; "oracle" exactly what will be stored; each at least `least`. The buddy pool rounds the chunk up.
    """

    block = 1
    pinned = 0

    def __init__(self, pool: int, policy: str, max_len: int, least: int = 1) -> None:
        if policy not in ("max", "pow2", "oracle"):
            raise KvlabError(f"contiguous policy {policy!r}: one of max, pow2, oracle")
        if max_len < 1:
            raise KvlabError(f"max_model_len {max_len}: at least 1")
        self.pool = pool
        self.policy = policy
        self.max_len = max_len
        self.least = least
        self.buddy = Buddy(pool)
        self.chunks: dict[int, tuple[int, int]] = {}

    @property
    def blocks(self) -> int:
        """Slots in chunks."""
        return self.buddy.used

    def asks(self, prompt: int, output: int) -> int:
        """Slots that a request asks for."""
        if self.policy == "max":
            return max(self.max_len, self.least)
        if self.policy == "pow2":
            return max(min(prompt + chunk_for(output), self.max_len), self.least)
        return max(prompt + output - 1, self.least)

    def check(self, job: SimulatedRequest) -> None:
        """KvlabError where the request is longer than the maximum or its chunk than the pool's largest region."""
        check_lengths(job)
        if job.final > self.max_len:
            longer = {"id": job.id, "tokens": job.final, "most": self.max_len}
            raise KvlabError(Message("request-too-long", longer))
        chunk = chunk_for(self.asks(job.prompt, job.output))
        if chunk > self.buddy.largest:
            sizes = {"id": job.id, "chunk": chunk, "pool": self.pool, "largest": self.buddy.largest}
            raise KvlabError(Message("request-needs-chunk", sizes))

    def admit(self, job: SimulatedRequest, known: int, tokens: int, alone: bool) -> bool:
        """Take one chunk, held until the request ends."""
        found = self.buddy.take(self.asks(job.prompt, job.output))
        if found is not None:
            self.chunks[job.id] = found
        return found is not None

    def grow(self, job: SimulatedRequest, tokens: int) -> bool:
        """Nothing to do: the chunk was taken at admission."""
        return True

    def capacity(self, job: SimulatedRequest) -> int:
        """Its chunk holds all."""
        return NEVER

    def release(self, job: SimulatedRequest) -> None:
        """Give the chunk back to the buddy pool."""
        self.buddy.give(*self.chunks.pop(job.id))

    def held(self, prompt: Ints, output: Ints, tokens: Ints) -> tuple[Ints, Ints]:
        """Slots are what was asked for; the chunk's rounding is the pool's."""
        if self.policy == "max":
            asked = np.full_like(tokens, self.max_len)
        elif self.policy == "pow2":
            asked = np.minimum(prompt + _chunks_for(output), self.max_len)
        else:
            asked = prompt + output - 1
        return tokens, np.maximum(asked, self.least)

    def taken(self, slots: Ints) -> Ints:
        """Whole chunks."""
        return _chunks_for(slots)

    def places(self, request: int) -> Ints:
        """Its chunk, from the first slot to the last."""
        offset, chunk = self.chunks[request]
        return np.arange(offset, offset + chunk)

    def owners(self) -> Ints:
        """The whole chunk is its request's, rounding included."""
        slots = np.full(self.pool, NOBODY, dtype=np.int64)
        for job, (offset, chunk) in self.chunks.items():
            slots[offset : offset + chunk] = job
        return slots


def check_lengths(job: SimulatedRequest) -> None:
    """KvlabError where a length is no whole number of at least 1 (NaN is none)."""
    for name, tokens in (("prompt", job.prompt), ("output", job.output)):
        if not (isinstance(tokens, int) and tokens >= 1):
            raise KvlabError(Message(f"request-{name}-length", {"id": job.id, "tokens": str(tokens)}))


def _chunks_for(slots: Ints) -> Ints:
    exponent = np.ceil(np.log2(np.maximum(slots, 1))).astype(np.int64)  # exact for powers of two below 2^53
    chunks: Ints = np.left_shift(np.int64(1), exponent)
    return chunks
