"""Blocks without growth on demand: the whole length is reserved at admission, in blocks that may lie anywhere.

Between Orca (Oracle) and paging: no chunk has to be contiguous, so nothing is lost to rounding and holes. A
request never waits for a block after it is admitted, but it holds blocks that it has not filled yet.
"""

from __future__ import annotations

from kvlab.allocators.contiguous import NEVER, Ints, SimulatedRequest
from kvlab.allocators.paged import Paged


class Reserved(Paged):
    """As `Paged`, but a request takes the blocks of its true length (prompt + output − 1) at once, and never grows."""

    def __init__(self, pool: int, block: int = 16) -> None:
        super().__init__(pool, block)

    def admit(self, job: SimulatedRequest, known: int, tokens: int, alone: bool) -> bool:
        """Take all blocks that it will ever need; False where there are fewer."""
        if self.needs(job.prompt, job.final) > len(self._free):
            return False
        self._tables[job.id] = []
        return super().grow(job, job.final)

    def grow(self, job: SimulatedRequest, tokens: int) -> bool:
        """Nothing to do: the blocks were taken at admission."""
        return True

    def capacity(self, job: SimulatedRequest) -> int:
        """Its blocks hold all."""
        return NEVER

    def held(self, prompt: Ints, output: Ints, tokens: Ints) -> tuple[Ints, Ints]:
        """Slots are those of its whole length, from the first step on."""
        return tokens, super().held(prompt, output, prompt + output - 1)[1]
