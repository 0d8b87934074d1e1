"""The pool: as it is given, or what a GPU has left beside the weights and an allowance."""

from __future__ import annotations

import re
from typing import Any

from kvlab.errors import ConfigError
from kvlab.simulate.planning.shape import BYTES, ModelShape

SIZES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def size(text: str) -> float:
    """Bytes of a size such as 80GiB or 15.5GB; ConfigError where it is none."""
    found = re.fullmatch(r"([0-9]*\.?[0-9]+) *([A-Za-z]*)", text.strip())
    if not found or found[2].upper() not in SIZES or float(found[1]) <= 0:
        raise ConfigError(f"{text!r} is no size; write 80GiB or 15.5GB")
    return float(found[1]) * SIZES[found[2].upper()]


def slots_of(asked: Any, shape: ModelShape) -> int:
    """The pool's slots. `asked` has kv_slots, gpu, utilisation, weights, allowance, dtype, block_size."""
    if asked.block_size < 1:
        raise ConfigError(f"--block-size {asked.block_size}: at least 1")
    if asked.kv_slots is not None:
        if asked.kv_slots < 1:
            raise ConfigError(f"--kv-slots {asked.kv_slots}: at least 1")
        return int(asked.kv_slots)
    if asked.gpu is None:
        raise ConfigError("the pool: give --gpu 80GiB, or --kv-slots")
    weights = weights_of(shape, asked.dtype, None if asked.weights is None else size(asked.weights))
    kv_bytes = shape.kv_bytes(asked.dtype)
    return pool_slots(size(asked.gpu), asked.utilisation, weights, size(asked.allowance), kv_bytes, asked.block_size)


def pool_slots(gpu: float, utilisation: float, weights: float, allowance: float, kv_bytes: int, block: int) -> int:
    """KV slots in what a GPU has left: bytes · utilisation − weights − allowance, in whole blocks.

    vLLM prints the same number ("GPU KV cache size"), one block of which it keeps for itself. ConfigError where
    nothing is left.
    """
    if not 0 < utilisation <= 1:
        raise ConfigError(f"--utilisation {utilisation}: a part of the GPU's memory, above 0 and at most 1")
    left = gpu * utilisation - weights - allowance
    slots = int(max(left, 0) // (kv_bytes * block)) * block
    if slots < 1:
        raise ConfigError(
            f"the GPU is too small: {gpu / 2**30:.1f} GiB x {utilisation} - weights {weights / 2**30:.1f} GiB - "
            f"allowance {allowance / 2**30:.1f} GiB leaves nothing for KV cache; take a larger GPU or smaller weights"
        )
    return slots


def weights_of(shape: ModelShape, dtype: str, given: float | None) -> float:
    """Bytes of the weights: as given, else counted."""
    if given is not None:
        return given
    if shape.parameters is None:
        raise ConfigError(
            f"architecture {shape.architecture}: kvlab can't count its parameters; give --weights, or --kv-slots"
        )
    return float(shape.parameters * BYTES[dtype])
