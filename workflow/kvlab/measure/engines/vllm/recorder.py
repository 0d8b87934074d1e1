"""A vLLM scheduler that admits by a policy and notes what the KV cache holds at every step.

`scheduling(vllm_config=…, …)` is given to vLLM as `scheduler_cls`. It is called in the process of the engine's core,
in the driver's or its own, and picks vLLM's own Scheduler or AsyncScheduler, whichever vLLM would have picked, with
the recording mixed in. So recording never changes the scheduling; admission by a policy (`admission.py`) does.

What is read, after `schedule()` (vllm/v1/core/sched/scheduler.py, 0.26.0): `request.num_computed_tokens` is the number
of tokens whose K and V the cache holds once this step has run. That is so with async scheduling too: it then counts
placeholders, tokens that the step before this one is still sampling, but this step stores them. A request that has
sampled its last token keeps its blocks until that token comes back, one step longer than without: it is held, and
recorded as held. `blocks` is the pool's own count, without block 0, the null block that no request gets.

A step costs one list of integers. They are written when `reset_prefix_cache` is called, the one public call that
reaches the scheduler wherever its core runs, and at shutdown; the driver calls it when the clock does not run. The
order of the free blocks is then made what it was after loading, so that a pass does not depend on the one before.

A pass's policy, and whether it is recorded, come with its requests: `SamplingParams.extra_args`, public.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kvlab.measure.engines.attention import require_full
from kvlab.measure.engines.vllm.admission import Gate

FILE = "KVLAB_STEPS_FILE"  # names the file of the steps; the pool's sizes are beside it in .pool.json
POLICY, RECORD = "kvlab_policy", "kvlab_record"  # in a request's extra_args


def scheduling(**arguments: Any) -> Any:
    """The recording scheduler of the kind that the configuration resolved to."""
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler
    from vllm.v1.core.sched.scheduler import Scheduler

    config = arguments["vllm_config"]
    base = AsyncScheduler if config.scheduler_config.async_scheduling else Scheduler
    return _recording(base)(**arguments)


def _recording(base: type) -> type:
    """`base` with the recording mixed in: a real class, so that what vLLM asks of the scheduler's type still holds."""
    return type(f"Recording{base.__name__}", (Recording, base), {"vllm_scheduler": base.__name__})


class Recording:
    """The mixin. It comes before a vLLM scheduler in the method resolution order."""

    vllm_scheduler: str

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.steps_file = Path(os.environ[FILE])
        self.recorded = True
        self.noted: list[tuple[int, int, int, int, int, list[Any]]] = []
        self.seen: dict[str, int] = {}
        self.lost: list[tuple[int, int, str, int, bool]] = []
        manager = self.kv_cache_manager.coordinator.single_type_managers  # type: ignore[attr-defined]
        groups = self.kv_cache_config.kv_cache_groups  # type: ignore[attr-defined]
        require_full((type(group.kv_cache_spec).__name__ for group in groups), ["FullAttentionSpec"])
        if len(manager) != 1:
            raise ValueError(f"one group of layers was expected, vLLM made {len(manager)}")
        self.blocks_of = manager[0].req_to_blocks
        self.pool = self.kv_cache_manager.block_pool  # type: ignore[attr-defined]
        block: int = self.block_size  # type: ignore[attr-defined]
        slots = (self.pool.num_gpu_blocks - 1) * block
        self.gate = Gate(self.kv_cache_manager, slots, self.max_model_len, block)  # type: ignore[attr-defined]
        self.write_pool()

    def add_request(self, request: Any) -> Any:
        """vLLM's own; the first request of a pass sets its policy."""
        extra = (request.sampling_params.extra_args or {}) if request.sampling_params else {}
        if POLICY in extra:
            self.gate.choose(extra[POLICY])
            self.recorded = extra[RECORD]
        self.seen[request.request_id] = time.monotonic_ns()
        return super().add_request(request)  # type: ignore[misc]

    def schedule(self, *arguments: Any, **named: Any) -> Any:
        """vLLM's own schedule, and a note of what it led to."""
        t_ns = time.monotonic_ns()
        output = super().schedule(*arguments, **named)  # type: ignore[misc]
        preempted = output.preempted_req_ids
        if self.recorded and (output.total_num_scheduled_tokens or preempted):
            self.note(t_ns, len(preempted) if preempted else 0)
        return output

    def note(self, t_ns: int, preempted: int = 0) -> None:
        """One step: its time, queues, blocks in use, and [request, tokens, blocks] of all that hold some."""
        running, blocks_of = self.running, self.blocks_of  # type: ignore[attr-defined]
        held: list[Any] = []
        for request in running:
            id = request.request_id
            held += (id, request.num_computed_tokens, len(blocks_of[id]))
        waiting = len(self.waiting) + len(self.skipped_waiting)  # type: ignore[attr-defined]
        used = self.pool.num_gpu_blocks - 1 - self.pool.get_num_free_blocks()
        self.noted.append((t_ns, len(running), waiting, preempted, used, held))

    def update_from_output(self, *arguments: Any, **named: Any) -> Any:
        """vLLM's own update; when it leaves nothing running, that is noted too."""
        outputs = super().update_from_output(*arguments, **named)  # type: ignore[misc]
        if self.recorded and not self.running and self.noted and self.noted[-1][1]:  # type: ignore[attr-defined]
            self.note(time.monotonic_ns())
        return outputs

    def _preempt_request(self, request: Any, *arguments: Any, **named: Any) -> Any:
        """vLLM's own, after a note of the tokens that will be computed again. A reserving policy never comes here."""
        if self.gate.shadow is not None:
            raise RuntimeError(f"policy {self.gate.policy} preempted a request; a reserving policy never does")
        done = request.num_tokens + request.num_output_placeholders >= request.num_prompt_tokens + request.max_tokens
        self.lost.append(
            (time.monotonic_ns(), len(self.noted), request.request_id, request.num_computed_tokens, bool(done))
        )
        return super()._preempt_request(request, *arguments, **named)  # type: ignore[misc]

    def reset_prefix_cache(self, *arguments: Any, **named: Any) -> Any:
        """Write what was noted and put the free blocks in order; then vLLM's own."""
        self.write_notes()
        if self.pool.get_num_free_blocks() == self.pool.num_gpu_blocks - 1:
            from vllm.v1.core.kv_cache_utils import FreeKVCacheBlockQueue

            for block in self.pool.blocks:
                block.prev_free_block = block.next_free_block = None
            self.pool.free_block_queue = FreeKVCacheBlockQueue(self.pool.blocks[1:])
        return super().reset_prefix_cache(*arguments, **named)  # type: ignore[misc]

    def shutdown(self) -> None:
        """Write what was noted; then vLLM's own."""
        self.write_notes()
        super().shutdown()  # type: ignore[misc]

    def write_notes(self) -> None:
        """Append to the file: one JSON line a step, `held` still as [vLLM's request id, tokens, blocks, …], and a last
        line, an object, with what is noted by request.
        """
        about = {
            "seen": self.seen,
            "admitted": self.gate.admitted,
            "lost": self.lost,
            "policy": self.gate.policy,
            "holding": len(self.gate.holding),
            "free_blocks": self.pool.get_num_free_blocks(),
            "unfinished": len(self.running) + len(self.waiting),  # type: ignore[attr-defined]
        }
        with self.steps_file.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in (*self.noted, about))
        self.noted.clear()
        self.seen.clear()
        self.gate.admitted.clear()
        self.lost.clear()

    def write_pool(self) -> None:
        """What the core got, for the driver, which can't see it where the core is another process."""
        pool = {
            "num_gpu_blocks": self.pool.num_gpu_blocks,
            "block_size": self.block_size,  # type: ignore[attr-defined]
            "max_num_seqs": self.max_num_running_reqs,  # type: ignore[attr-defined]
            "max_num_batched_tokens": self.max_num_scheduled_tokens,  # type: ignore[attr-defined]
            "scheduler": self.vllm_scheduler,
            "core_pid": os.getpid(),
        }
        pool_file(self.steps_file).write_text(json.dumps(pool), encoding="utf-8")


@dataclass
class Notes:
    """What the scheduler noted since the last time; ids are vLLM's own. Steps hold [[request id, tokens, blocks]]."""

    steps: list[tuple[int, int, int, int, int, list[list[Any]]]] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=dict)
    admitted: dict[str, tuple[int, int | None, int | None]] = field(default_factory=dict)
    lost: list[tuple[int, int, str, int, bool]] = field(default_factory=list)
    last: dict[str, Any] = field(default_factory=dict)  # policy, holding, free_blocks, unfinished


def read_notes(file: Path) -> Notes:
    """The notes that were written, and the file emptied."""
    notes = Notes()
    if not file.exists():
        return notes
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            found = json.loads(line)
            if isinstance(found, dict):
                notes.seen |= found.pop("seen")
                notes.admitted |= {id: tuple(entry) for id, entry in found.pop("admitted").items()}
                notes.lost += [tuple(lost) for lost in found.pop("lost")]
                notes.last = found
                continue
            t_ns, running, waiting, preempted, blocks, flat = found
            held = [flat[i : i + 3] for i in range(0, len(flat), 3)]
            notes.steps.append((t_ns, running, waiting, preempted, blocks, held))
    file.write_text("", encoding="utf-8")
    return notes


def pool_file(steps: Path) -> Path:
    """Where `Recording.write_pool` writes."""
    return steps.with_suffix(".pool.json")
