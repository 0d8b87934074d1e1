"""A vLLM scheduler that notes what the KV cache holds at every step.

`scheduling(vllm_config=…, …)` is given to vLLM as `scheduler_cls`. It is called in the process of the engine's core,
in the driver's or its own, and picks vLLM's own Scheduler or AsyncScheduler, whichever vLLM would have picked, with
the recording mixed in. So recording never changes the scheduling.

What is read, after `schedule()` (vllm/v1/core/sched/scheduler.py, 0.26.0): `request.num_computed_tokens` is the number
of tokens whose K and V the cache holds once this step has run. That is so with async scheduling too: it then counts
placeholders, tokens that the step before this one is still sampling, but this step stores them. A request that has
sampled its last token keeps its blocks until that token comes back, one step longer than without: it is held, and
recorded as held. `blocks` is the pool's own count, without block 0, the null block that no request gets.

A step costs one list of integers. They are written when `reset_prefix_cache` is called, the one public call that
reaches the scheduler wherever its core runs, and at shutdown; the driver calls it when the clock does not run.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from kvlab.measure.engines.attention import require_full

FILE = "KVLAB_STEPS_FILE"  # names the file of the steps; the pool's facts lie beside it as .pool.json


def scheduling(**arguments: Any) -> Any:
    """The recording scheduler of the kind that the configuration resolved to."""
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler
    from vllm.v1.core.sched.scheduler import Scheduler

    config = arguments["vllm_config"]
    base = AsyncScheduler if config.scheduler_config.async_scheduling else Scheduler
    return _recording(base)(**arguments)


def _recording(base: type) -> type:
    """`base` with the recording mixed in: a real class, so that what vLLM asks of the scheduler's type still holds."""
    return type(f"Recording{base.__name__}", (Recording, base), {})


class Recording:
    """The mixin. It stands before a vLLM scheduler in the order of methods."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.steps_file = Path(os.environ[FILE])
        self.noted: list[tuple[int, int, int, int, int, list[Any]]] = []
        manager = self.kv_cache_manager.coordinator.single_type_managers  # type: ignore[attr-defined]
        groups = self.kv_cache_config.kv_cache_groups  # type: ignore[attr-defined]
        require_full((type(group.kv_cache_spec).__name__ for group in groups), ["FullAttentionSpec"])
        if len(manager) != 1:
            raise ValueError(f"one group of layers was expected, vLLM made {len(manager)}")
        self.blocks_of = manager[0].req_to_blocks
        self.pool = self.kv_cache_manager.block_pool  # type: ignore[attr-defined]
        self.write_pool()

    def schedule(self, *arguments: Any, **named: Any) -> Any:
        """vLLM's own schedule, and a note of what it led to."""
        t_ns = time.monotonic_ns()
        output = super().schedule(*arguments, **named)  # type: ignore[misc]
        preempted = output.preempted_req_ids
        if output.total_num_scheduled_tokens or preempted:
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
        if not self.running and self.noted and self.noted[-1][1]:  # type: ignore[attr-defined]
            self.note(time.monotonic_ns())
        return outputs

    def reset_prefix_cache(self, *arguments: Any, **named: Any) -> Any:
        """Write what was noted; then vLLM's own."""
        self.write_steps()
        return super().reset_prefix_cache(*arguments, **named)  # type: ignore[misc]

    def shutdown(self) -> None:
        """Write what was noted; then vLLM's own."""
        self.write_steps()
        super().shutdown()  # type: ignore[misc]

    def write_steps(self) -> None:
        """Append to the file: one JSON line a step, `held` still as [vLLM's request id, tokens, blocks, …]."""
        if self.noted:
            with self.steps_file.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(step) + "\n" for step in self.noted)
            self.noted.clear()

    def write_pool(self) -> None:
        """What the core got, for the driver, which can't see it where the core is another process."""
        pool = {
            "num_gpu_blocks": self.pool.num_gpu_blocks,
            "block_size": self.block_size,  # type: ignore[attr-defined]
            "max_num_seqs": self.max_num_running_reqs,  # type: ignore[attr-defined]
            "scheduler": type(self).__mro__[2].__name__,
            "core_pid": os.getpid(),
        }
        self.steps_file.with_suffix(".pool.json").write_text(json.dumps(pool), encoding="utf-8")


def read_steps(file: Path) -> list[tuple[int, int, int, int, int, list[list[Any]]]]:
    """The steps that were written, `held` as [[vLLM's request id, tokens, blocks]], and the file emptied."""
    if not file.exists():
        return []
    steps = []
    for line in file.read_text(encoding="utf-8").splitlines():
        t_ns, running, waiting, preempted, blocks, flat = json.loads(line)
        held = [flat[i : i + 3] for i in range(0, len(flat), 3)]
        steps.append((t_ns, running, waiting, preempted, blocks, held))
    file.write_text("", encoding="utf-8")
    return steps
