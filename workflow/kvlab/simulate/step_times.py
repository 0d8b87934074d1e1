"""How long an engine's step takes, from what it computes: the model that gives the simulator a clock in seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from kvlab.errors import KvlabError


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Seconds of a step: a base, and so much for each row, KV token and prefill token; all at least 0.

    `rows`: requests that decode a token. `kv_tokens`: token states that those rows read, their own new ones included.
    `prefill_tokens`: tokens of prompts, and of what is computed again after a preemption. A constant step is
    `StepTimes(0.030)`.
    """

    base_s: float
    per_row_s: float = 0.0
    per_kv_token_s: float = 0.0
    per_prefill_token_s: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value >= 0):
                raise KvlabError(f"step times: {field.name} {value}; a finite number of at least 0 is needed")

    def seconds(self, rows: int, kv_tokens: int, prefill_tokens: int) -> float:
        """Duration of a step, seconds."""
        return (
            self.base_s
            + self.per_row_s * rows
            + self.per_kv_token_s * kv_tokens
            + self.per_prefill_token_s * prefill_tokens
        )
