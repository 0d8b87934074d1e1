"""A buddy allocator: chunks of a power of two, split in halves on demand, halves joined again when both are free.

Orca's contiguous KV cache as the paper reads it (section 6.1 of Kwon et al., SOSP 2023; Knowlton 1965).
"""

from __future__ import annotations

from kvlab.errors import KvlabError


def chunk_for(slots: int) -> int:
    """The smallest power of two that holds `slots`, at least 1."""
    return 1 << max(slots - 1, 0).bit_length()


class Buddy:
    """A pool of `size` slots. One that is no power of two is a row of regions that are, the largest first."""

    def __init__(self, size: int) -> None:
        if size < 1:
            raise KvlabError(f"a buddy pool of {size} slots: at least 1 is needed")
        self.size = size
        self.used = 0
        self._free: dict[int, set[int]] = {1 << order: set() for order in range(size.bit_length())}
        offset = 0
        for chunk in sorted(self._free, reverse=True):
            if size & chunk:
                self._free[chunk].add(offset)
                offset += chunk

    @property
    def largest(self) -> int:
        """The largest chunk that an empty pool can give."""
        return 1 << (self.size.bit_length() - 1)

    def take(self, slots: int) -> tuple[int, int] | None:
        """(offset, chunk) of the lowest free chunk of the smallest size that fits; None where there is none."""
        chunk = chunk_for(slots)
        found = chunk
        while found in self._free and not self._free[found]:
            found *= 2
        if found not in self._free:
            return None
        offset = min(self._free[found])
        self._free[found].remove(offset)
        while found > chunk:
            found //= 2
            self._free[found].add(offset + found)
        self.used += chunk
        return offset, chunk

    def give(self, offset: int, chunk: int) -> None:
        """Hand a chunk back; it joins its buddy while that is free too."""
        self.used -= chunk
        while (buddy := offset ^ chunk) in self._free.get(chunk, ()):
            self._free[chunk].remove(buddy)
            offset, chunk = min(offset, buddy), chunk * 2
        self._free[chunk].add(offset)

    def free_chunks(self) -> list[tuple[int, int]]:
        """(offset, chunk) of all free chunks, by offset."""
        return sorted((offset, chunk) for chunk, offsets in self._free.items() for offset in offsets)
