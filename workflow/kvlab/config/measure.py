"""How the engines run: the part `measure` of a configuration. An engine's own settings are in its folder."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, create_model

from kvlab.config.part import Part
from kvlab.measure.engines.registry import engines


class Sampling(Part):
    """The device-memory sampler."""

    interval_ms: float = Field(default=20.0, ge=1, le=10_000, description="Time between two samples, milliseconds.")


def _engine_parts() -> dict[str, Any]:
    """A field of `measure` for each engine there is: its own settings, by the name of its folder."""
    return {name: (settings, settings()) for name, settings in engines().items()}


# An engine's own settings are in its folder; the registry finds them.
_Engines: Any = create_model("Engines", __base__=Part, **_engine_parts())


class Measure(_Engines):  # type: ignore[misc]
    """How the engines run."""

    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: a GPU where its driver answers.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(default="float32", description="Of weights and KV cache.")
    threads: int | None = Field(
        default=None, ge=1, le=1024, description="CPU threads of an engine; None: 1 less than the cores."
    )
    warmup_requests: int = Field(default=1, ge=0, le=100_000, description="Requests served before the clock starts.")
    time_budget_s: float = Field(
        default=600.0, gt=0, description="An arm that takes longer is stopped; what it did bounds its times."
    )
    record_steps: bool = Field(
        default=True, description="Record the KV cache at every step (off only to measure its cost)."
    )
    sampling: Sampling = Sampling()
