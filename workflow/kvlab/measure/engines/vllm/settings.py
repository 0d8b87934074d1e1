"""vLLM's part of the configuration: one engine configuration for all its arms of a workload."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from kvlab.measure.engines.registry import EngineSettings

BATCHED_TOKENS = 2048


def _or_default(value: Any) -> Any:
    """Configurations of older runs left it to vLLM: null."""
    return BATCHED_TOKENS if value is None else value


class VllmSettings(EngineSettings):
    """vLLM's own settings, the same for all its arms: what differs between them is who may be admitted."""

    label: ClassVar[str] = "vLLM"
    open_loop: ClassVar[bool] = True
    checkpoint: ClassVar[bool] = False

    block_size: int = Field(default=16, ge=1, le=1024, description="KV block size, tokens.")
    tensor_parallel_size: int = Field(default=1, ge=1, description="Workers that share each layer: GPUs, or CPU cores.")
    pipeline_parallel_size: int = Field(default=1, ge=1, description="Workers that share the stack of layers.")
    distributed_executor_backend: Literal["mp", "ray", "uni"] | None = Field(
        default=None, description="How several workers run; None lets vLLM choose."
    )
    async_scheduling: bool | None = Field(
        default=None, description="Schedule step n+1 while n runs; None: vLLM's default."
    )
    max_num_seqs: int = Field(
        default=256,
        ge=1,
        description="Most requests at once; it also decides the CUDA graphs' sizes. Choose one that never binds.",
    )
    max_num_batched_tokens: Annotated[int, BeforeValidator(_or_default)] = Field(
        default=BATCHED_TOKENS,
        ge=1,
        description="Most tokens a step computes; a longer prompt is computed in several steps.",
    )
    load_format: Literal["auto", "dummy"] = Field(
        default="auto",
        description="dummy: weights are drawn where they are used, none on disk; for random: models and vLLM alone.",
    )

    @model_validator(mode="after")
    def _a_step_holds_a_token_of_each(self) -> VllmSettings:
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens {self.max_num_batched_tokens} is below max_num_seqs {self.max_num_seqs}: a "
                "step computes at least a token of each request; raise the one or lower the other"
            )
        return self

    def gpus(self) -> int:
        """Each worker has a GPU of its own."""
        return self.tensor_parallel_size * self.pipeline_parallel_size

    @classmethod
    def process(cls, arm: str, options: Mapping[str, Any]) -> str:
        """Policies and feeds change from pass to pass; what else an arm sets needs an engine of its own."""
        return "vllm" if set(options) <= {"policy"} else arm


SETTINGS = VllmSettings
