"""The arms: what is measured, one difference at a time. To add one, add an entry here.

An arm is an engine, a way to feed it requests (`feed`), the options that the engine's function for it takes, and how
readers are shown it: role, label, colour. What a measure job depends on is the first three of its own arm's entry,
handed over as parameters, so an entry can change without rerunning the other arms. The analysis is handed role, label
and colour of the run's arms and writes them to `metrics.json`; figures, page and notebook take them from there.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from kvlab.roles import GREY


@dataclass(frozen=True)
class Arm:
    """One way to serve requests.

    `engine` names a module of `kvlab.measure.engines`. `feed` is "sequential" (the next request enters when the one
    before has left) or "batch" (all requests are there from the start, the engine admits them). `options` are the
    engine's own. `role` is what comparisons ask for: the ladder's rungs are "baseline", "engine", "batching" and
    "paging" (`kvlab.roles`); "reserving" is another admission policy on the engine of "paging"; "eager" is
    "paging" without CUDA graphs. An arm with any other role is measured and shown, and compared with the baseline.
    `label` is its name in each language, its own name where there is none. `colour` is #rrggbb.
    """

    name: str
    engine: str
    feed: str
    changes: str  # what differs from the arm above
    options: dict[str, Any] = field(default_factory=dict)
    role: str = "other"
    label: dict[str, str] = field(default_factory=dict)
    colour: str = GREY

    def shown(self) -> dict[str, Any]:
        """What the analysis and readers get of it."""
        shown = {key: asdict(self)[key] for key in ("role", "engine", "feed", "label", "colour")}
        return shown | {"policy": self.options.get("policy")}


_LADDER = (
    Arm(
        "hf-sequential-static",
        engine="transformers",
        feed="sequential",
        role="baseline",
        changes="one request at a time, StaticCache preallocated to the maximum length",
        label={"en": "preallocated cache", "zh": "预分配缓存"},
        colour="#D4542B",
        options={"cache": "static"},
    ),
    Arm(
        "hf-sequential-dynamic",
        engine="transformers",
        feed="sequential",
        changes="the library's default cache, which grows",
        label={"en": "growing cache", "zh": "动态增长缓存"},
        colour="#A05A3C",
        options={"cache": "dynamic"},
    ),
    Arm(
        "hf-batch-static",
        engine="transformers",
        feed="batch",
        changes="padded batches, as many rows as the KV budget holds at the maximum length",
        label={"en": "padded batches", "zh": "填充批处理"},
        colour="#E0659A",
        options={"cache": "static"},
    ),
    Arm(
        "hf-continuous",
        engine="transformers",
        feed="batch",
        changes="transformers' own continuous batching over pages",
        label={"en": "transformers, paged", "zh": "transformers 分页"},
        colour="#B5346E",
        options={"cache": "paged"},
    ),
    Arm(
        "vllm-sequential",
        engine="vllm",
        feed="sequential",
        role="engine",
        changes="vLLM, one request at a time: engine, cache layout and attention kernel change at once",
        label={"en": "vLLM, one by one", "zh": "vLLM 逐个"},
        colour="#6E7F1E",
    ),
    Arm(
        "vllm-contiguous",
        engine="vllm",
        feed="batch",
        role="batching",
        changes="batched; each request reserves a chunk of the maximum length from a buddy pool: Orca (Max)",
        label={"en": "vLLM, contiguous: Orca (Max)", "zh": "vLLM 连续分配（Orca Max）"},
        colour="#7B4FC9",
        options={"policy": "orca-max"},
    ),
    Arm(
        "vllm-pow2",
        engine="vllm",
        feed="batch",
        role="reserving",
        changes="each reserves its prompt and the next power of two of its output: Orca (Pow2)",
        label={"en": "vLLM, contiguous: Orca (Pow2)", "zh": "vLLM 连续分配（Orca Pow2）"},
        colour="#9A52B5",
        options={"policy": "orca-pow2"},
    ),
    Arm(
        "vllm-oracle",
        engine="vllm",
        feed="batch",
        role="reserving",
        changes="each reserves its true length in one chunk: Orca (Oracle)",
        label={"en": "vLLM, contiguous: Orca (Oracle)", "zh": "vLLM 连续分配（Orca Oracle）"},
        colour="#C06FDC",
        options={"policy": "orca-oracle"},
    ),
    Arm(
        "vllm-reserved",
        engine="vllm",
        feed="batch",
        role="reserving",
        changes="each reserves its true length in blocks that lie anywhere: no growth on demand yet",
        label={"en": "vLLM, reserved blocks", "zh": "vLLM 按块预留"},
        colour="#45A035",
        options={"policy": "reserved"},
    ),
    Arm(
        "vllm-paged",
        engine="vllm",
        feed="batch",
        role="paging",
        changes="batched on blocks of 16 tokens: paging",
        label={"en": "vLLM, paged", "zh": "vLLM 分页"},
        colour="#009E73",
        options={"policy": "paged"},
    ),
    Arm(
        "vllm-paged-eager",
        engine="vllm",
        feed="batch",
        role="eager",
        changes="the same without CUDA graphs and compilation",
        label={"en": "vLLM, paged, eager", "zh": "vLLM 分页（eager）"},
        colour="#2F8F83",
        options={"policy": "paged", "eager": True},
    ),
)

ARMS: dict[str, Arm] = {arm.name: arm for arm in _LADDER}
