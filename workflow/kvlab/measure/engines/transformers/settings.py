"""transformers' part of the configuration."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from kvlab.measure.engines.registry import EngineSettings


class TransformersSettings(EngineSettings):
    """transformers' own settings, for its arms."""

    label: ClassVar[str] = "transformers"

    attn_implementation: Literal["sdpa", "eager", "flash_attention_2"] = Field(
        default="sdpa", description="Attention kernel."
    )
    device_map: str | None = Field(
        default=None, description="accelerate's device map (auto, balanced …) for several GPUs."
    )
    compile: Literal["auto", "on", "off"] = Field(
        default="auto", description="Compile the decode step; auto: on a GPU."
    )
    continuous_attention: Literal[
        "auto", "flash_attention_3", "flash_attention_2", "vllm_flash_attention", "sdpa", "eager"
    ] = Field(
        default="auto",
        description="Kernel of continuous batching; auto: FlashAttention on a GPU (vLLM's, or another), else sdpa.",
    )
    batch_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Token budget a step of continuous batching; None: upstream's, 512 on a CPU.",
    )
    block_size: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="Page of continuous batching, tokens; None: upstream's 256, as vLLM's 16 on a CPU.",
    )


SETTINGS = TransformersSettings
