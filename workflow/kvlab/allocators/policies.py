"""Allocators by the names that figures, tables and logs use: the same classes simulate and admit in a real engine."""

from __future__ import annotations

from typing import Any

from kvlab.allocators.contiguous import Allocator, Contiguous
from kvlab.allocators.paged import Paged
from kvlab.allocators.reserved import Reserved
from kvlab.errors import KvlabError
from kvlab.messages import Message

POLICIES = ("orca-max", "orca-pow2", "orca-oracle", "paged")  # the paper's
RESERVED = "reserved"
EVERY = (*POLICIES[:3], RESERVED, "paged")


def allocator_of(
    policy: str, pool: int, max_len: int, block: int, watermark: float = 0.0, *, in_blocks: bool = False, **sharing: Any
) -> Allocator:
    """An allocator by its name, one of EVERY. `sharing`: samples, share, prefix of Paged.

    `in_blocks`: a contiguous chunk is at least a block of `block` slots, as it is where an engine stores in blocks what
    the allocator admits. KvlabError where the policy is unknown, or the block size no power of two and chunks are.
    """
    if policy == "paged":
        return Paged(pool, block, watermark=watermark, **sharing)
    if policy == RESERVED:
        return Reserved(pool, block)
    if policy not in POLICIES:
        raise KvlabError(f"policy {policy!r}: one of {', '.join(EVERY)}")
    if in_blocks and block & (block - 1):
        raise KvlabError(Message("chunks-of-powers", {"block": block}))
    return Contiguous(pool, policy.removeprefix("orca-"), max_len, least=block if in_blocks else 1)
