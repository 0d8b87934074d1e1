"""What an engine gets to do, and the sizes that it reads back once it is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Job:
    """One arm on one machine: all that an engine is given."""

    arm: str
    feed: str  # sequential: the next request enters when the one before has left; batch: all are there from the start
    options: dict[str, Any]  # the arm's own
    settings: dict[str, Any]  # the engine's own
    model: Path
    device: str  # cpu or cuda
    gpus: int  # GPUs present
    dtype: str
    threads: int
    kv_slots: int  # the budget; tokens
    max_model_len: int
    record_steps: bool
    scratch: Path  # a folder for the engine's own files, gone when the run is over
    seed: int = 0

    @property
    def contiguous_rows(self) -> int:
        """Requests that a contiguous allocator can hold: each reserves the maximum length (paper, section 3.1)."""
        return self.kv_slots // self.max_model_len


@dataclass(frozen=True)
class Feed:
    """How the requests of one pass reach a loaded engine, and who is admitted.

    `kind`: sequential, batch (see `Job.feed`) or open (requests arrive over time: `due_s`, seconds after the pass
    begins, one a request, ascending). `limit_s`: an open pass ends so many seconds after it began; what is unfinished
    then stays unfinished. `policy`: an admission policy of `kvlab.allocators.policies`; None leaves it to the engine.
    `record`: whether the cache is recorded at each step.
    """

    kind: str
    policy: str | None = None
    due_s: tuple[float, ...] = ()
    limit_s: float | None = None
    record: bool = True


@dataclass
class EngineFacts:
    """What the engine got, read from its tensors and its block pool. The fields are those of `records.Run`."""

    engine: dict[str, Any] = field(default_factory=dict)
    pool_slots: int = 0
    block_size: int = 1
    max_num_seqs: int | None = None
    reserve_slots: int | None = None
    kv_bytes_per_slot: int = 0
    weights_bytes: int | None = None
    kv_pool_bytes: int | None = None
    torch_allocated_peak_bytes: int | None = None
    torch_reserved_peak_bytes: int | None = None
