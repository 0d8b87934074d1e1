"""The paged allocator: blocks on demand, shared prefixes, parallel sampling with copy on write.

Sections 4.3 and 4.4 of Kwon et al., SOSP 2023.
"""

from __future__ import annotations

import numpy as np

from kvlab.allocators.contiguous import NOBODY, Ints, SimulatedRequest, check_lengths
from kvlab.errors import KvlabError
from kvlab.messages import Message


class Paged:
    """Blocks on demand (section 4.3), for requests of `samples` sequences that may share (section 4.4).

    With `share`, a request's sequences share its prompt's blocks; when they diverge, all but one copy the last, partly
    filled one (copy on write). All sequences of a request are of one length. `prefix` tokens that begin every prompt
    lie once in the pool, for all requests, in pinned blocks. `watermark`: part of the blocks that an admission leaves
    free, unless nothing runs.
    """

    def __init__(
        self,
        pool: int,
        block: int = 16,
        *,
        watermark: float = 0.0,
        samples: int = 1,
        share: bool = True,
        prefix: int = 0,
    ) -> None:
        if not 1 <= block <= pool:
            raise KvlabError(Message("block-beyond-pool", {"block": block, "pool": pool}))
        if not 0 <= watermark < 1:
            raise KvlabError(f"watermark {watermark}: a part of the pool, at least 0 and below 1")
        if samples < 1 or prefix < 0:
            raise KvlabError(f"samples {samples} must be at least 1, prefix {prefix} at least 0")
        self.pool = pool
        self.block = block
        self.samples = samples
        self.share = share
        self.total = pool // block
        self.watermark = int(watermark * self.total)
        self.prefix = prefix
        self.pinned = prefix // block * block  # only whole blocks can be shared between prompts that differ after it
        if self.pinned // block >= self.total:
            raise KvlabError(f"a prefix of {prefix} tokens leaves no block of the pool of {pool} slots")
        self._pinned_blocks = self.pinned // block
        self._free = list(range(self.total - 1, self._pinned_blocks - 1, -1))
        self._tables: dict[int, list[int]] = {}
        self._reach: dict[int, int] = {}

    @property
    def blocks(self) -> int:
        """Blocks in use, the pinned ones included."""
        return self.total - len(self._free)

    def needs(self, prompt: int, tokens: int) -> int:
        """Blocks of one request whose sequences have `tokens` each, the pinned ones not counted."""
        whole = -(-tokens // self.block) - self._pinned_blocks
        if self.samples == 1:
            return whole
        if not self.share:
            return self.samples * whole
        if tokens <= prompt:
            return whole
        common = prompt // self.block - self._pinned_blocks
        return common + self.samples * (whole - common)

    def check(self, job: SimulatedRequest) -> None:
        """KvlabError where the request's own blocks at its end are more than there are."""
        check_lengths(job)
        if job.prompt < self.prefix:
            raise KvlabError(f"request {job.id}: its prompt, {job.prompt} tokens, is shorter than the shared prefix")
        most = max(self.needs(job.prompt, job.final), self.needs(job.prompt, job.prompt))
        if most + self._pinned_blocks > self.total:
            sizes = {"blocks": most, "block": self.block, "pool": self.pool, "has": self.total - self._pinned_blocks}
            raise KvlabError(Message("request-needs-blocks", {"id": job.id} | sizes))

    def admit(self, job: SimulatedRequest, known: int, tokens: int, alone: bool) -> bool:
        """Admit where all `known` tokens fit, as vLLM does, and take blocks for the first `tokens` of them."""
        spare = 0 if alone else self.watermark
        if self.needs(job.prompt, known) + spare > len(self._free):
            return False
        self._tables[job.id] = []
        return self.grow(job, tokens)

    def grow(self, job: SimulatedRequest, tokens: int) -> bool:
        """Take the blocks that are missing, all or none."""
        table = self._tables[job.id]
        more = self.needs(job.prompt, tokens) - len(table)
        free = self._free
        if more > len(free):
            return False
        if more == 1:
            table.append(free.pop())
        elif more > 0:
            table.extend(free[-more:])
            del free[-more:]
        reach = -(-tokens // self.block) * self.block
        parting = self.share and self.samples > 1 and tokens <= job.prompt
        self._reach[job.id] = min(reach, job.prompt) if parting else reach  # the sequences diverge after the prompt
        return True

    def capacity(self, job: SimulatedRequest) -> int:
        """To the end of its last block, or of its prompt where its sequences diverge."""
        return self._reach[job.id]

    def release(self, job: SimulatedRequest) -> None:
        """Put its blocks on top of the free list."""
        del self._reach[job.id]
        self._free.extend(reversed(self._tables.pop(job.id)))

    def held(self, prompt: Ints, output: Ints, tokens: Ints) -> tuple[Ints, Ints]:
        """Physical token states and slots: what is shared counts once, a copied block is another block."""
        whole = -(-tokens // self.block) * self.block
        if self.samples == 1 or not self.share:
            return self.samples * (tokens - self.pinned), self.samples * (whole - self.pinned)
        common = prompt // self.block * self.block
        parted = tokens > prompt
        stored = np.where(parted, common + self.samples * (tokens - common), tokens) - self.pinned
        return stored, np.where(parted, common + self.samples * (whole - common), whole) - self.pinned

    def taken(self, slots: Ints) -> Ints:
        """Blocks are handed out as they are."""
        return slots

    def places(self, request: int) -> Ints:
        """The slots of its block table; without the pinned prefix."""
        table = np.array(self._tables[request], dtype=np.int64)
        return (table[:, None] * self.block + np.arange(self.block)).ravel()

    def owners(self) -> Ints:
        """Slots in the blocks of each request's table; pinned ones belong to the prefix and to no request."""
        slots = np.full(self.pool, NOBODY, dtype=np.int64)
        for job, table in self._tables.items():
            for block in table:
                slots[block * self.block : (block + 1) * self.block] = job
        return slots
