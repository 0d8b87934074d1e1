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
    batch_tokens: int = Field(default=512, ge=1, description="Token budget a step of continuous batching.")
    block_size: int = Field(default=16, ge=1, le=1024, description="Page of continuous batching, tokens.")


SETTINGS = TransformersSettings
