"""The arms: what is measured, one difference at a time. To add one, add an entry here.

An arm is an engine, a way to feed it requests (`feed`), and the options that the engine's function for it takes. What
a measure job depends on is its own arm's entry, handed over as parameters, so an entry can change without rerunning
the other arms.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Arm:
    """One rung of the ladder.

    `engine` names a module of `kvlab.measure.engines`. `feed` is "sequential" (the next request enters when the one
    before has left) or "batch" (all requests are there from the start, the engine admits them). `options` are the
    engine's own.
    """

    name: str
    engine: str
    feed: str
    changes: str  # what differs from the arm above
    options: dict[str, Any] = field(default_factory=dict)


_LADDER = (
    Arm(
        "hf-sequential-static",
        engine="transformers",
        feed="sequential",
        changes="one request at a time, StaticCache preallocated to the maximum length",
        options={"cache": "static"},
    ),
    Arm(
        "hf-sequential-dynamic",
        engine="transformers",
        feed="sequential",
        changes="the library's default cache, which grows",
        options={"cache": "dynamic"},
    ),
    Arm(
        "hf-batch-static",
        engine="transformers",
        feed="batch",
        changes="padded batches, as many rows as the KV budget holds at the maximum length",
        options={"cache": "static"},
    ),
    Arm(
        "hf-continuous",
        engine="transformers",
        feed="batch",
        changes="transformers' own continuous batching over pages",
        options={"cache": "paged"},
    ),
    Arm(
        "vllm-sequential",
        engine="vllm",
        feed="sequential",
        changes="vLLM, one request at a time: engine, cache layout and attention kernel change at once",
    ),
    Arm(
        "vllm-contiguous",
        engine="vllm",
        feed="batch",
        changes="batched; each request reserves a chunk of the maximum length from a buddy pool: Orca (Max)",
        options={"policy": "orca-max"},
    ),
    Arm(
        "vllm-pow2",
        engine="vllm",
        feed="batch",
        changes="each reserves its prompt and the next power of two of its output: Orca (Pow2)",
        options={"policy": "orca-pow2"},
    ),
    Arm(
        "vllm-oracle",
        engine="vllm",
        feed="batch",
        changes="each reserves its true length in one chunk: Orca (Oracle)",
        options={"policy": "orca-oracle"},
    ),
    Arm(
        "vllm-reserved",
        engine="vllm",
        feed="batch",
        changes="each reserves its true length in blocks that lie anywhere: no growth on demand yet",
        options={"policy": "reserved"},
    ),
    Arm(
        "vllm-paged",
        engine="vllm",
        feed="batch",
        changes="batched on blocks of 16 tokens: paging",
        options={"policy": "paged"},
    ),
    Arm(
        "vllm-paged-eager",
        engine="vllm",
        feed="batch",
        changes="the same without CUDA graphs and compilation",
        options={"policy": "paged", "eager": True},
    ),
)

ARMS: dict[str, Arm] = {arm.name: arm for arm in _LADDER}
