"""vLLM's own schedulers without a model: what they decide is real, the tokens are made up. Thousands of steps a second.

The executor is a stand-in that answers each step with a token for every request whose prompt is in. With asynchronous
scheduling a second step is scheduled before the first has answered, as vLLM's core does
(vllm/v1/engine/core.py, step_with_batch_queue, 0.26.0).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kvlab.measure.engines.vllm import recorder
from kvlab.measure.engines.vllm.driver import VllmEngine
from kvlab.measure.job import Job
from kvlab.measure.journal import Journal, now_ns
from kvlab.records import Request


class ModelLess:
    """A recording scheduler of vLLM's on a pool of `slots`, behind the driver's own `collect`."""

    def __init__(
        self, model: Path, scratch: Path, job: Job, *, asynchronous: bool, max_num_seqs: int = 64, budget: int = 512
    ) -> None:
        import torch
        from vllm.config import CacheConfig, DeviceConfig, ModelConfig, SchedulerConfig, VllmConfig
        from vllm.v1.core.sched.async_scheduler import AsyncScheduler
        from vllm.v1.core.sched.scheduler import Scheduler
        from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
        from vllm.v1.structured_output import StructuredOutputManager

        block = job.settings["block_size"]
        config = VllmConfig(
            model_config=ModelConfig(
                model=str(model), max_model_len=job.max_model_len, dtype="float32", skip_tokenizer_init=True
            ),
            scheduler_config=SchedulerConfig(
                max_num_seqs=max_num_seqs,
                max_num_batched_tokens=budget,
                max_model_len=job.max_model_len,
                enable_chunked_prefill=True,
                async_scheduling=asynchronous,
                is_encoder_decoder=False,
            ),
            cache_config=CacheConfig(block_size=block, enable_prefix_caching=False),
            device_config=DeviceConfig("cpu"),
        )
        config.scheduler_config.async_scheduling = asynchronous
        blocks = job.kv_slots // block + 1
        config.cache_config.num_gpu_blocks = blocks
        spec = FullAttentionSpec(block_size=block, num_kv_heads=1, head_size=32, dtype=torch.float32)
        caches = KVCacheConfig(num_blocks=blocks, kv_cache_tensors=[], kv_cache_groups=[KVCacheGroupSpec(["l"], spec)])
        base = AsyncScheduler if asynchronous else Scheduler
        self.scheduler: Any = recorder._recording(base)(
            vllm_config=config,
            kv_cache_config=caches,
            structured_output_manager=StructuredOutputManager(config),
            block_size=block,
        )
        self.ahead = 2 if asynchronous else 1
        self.driver = VllmEngine(replace(job, scratch=scratch))
        self.driver.llm = SimpleNamespace(reset_prefix_cache=self.scheduler.reset_prefix_cache)
        self.ids: dict[str, int] = {}

    def serve(
        self, requests: Sequence[Request], policy: str, after: Sequence[int] | None = None, most: int | None = None
    ) -> Journal:
        """Serve all; request i comes once `after[i]` steps have begun. `most`: stop after so many steps, and abort."""
        journal = Journal(requests)
        coming = deque(zip(after or [0] * len(requests), requests, strict=True))
        for request in requests:
            journal.plan(request.id, now_ns())
        flight: deque[Any] = deque()
        begun = 0
        while coming or self.scheduler.get_num_unfinished_requests():
            idle = not self.scheduler.get_num_unfinished_requests() and not flight
            while coming and (coming[0][0] <= begun or idle):
                idle = False
                self._add(coming.popleft()[1], policy)
            output = self.scheduler.schedule()
            if output.total_num_scheduled_tokens:
                # As the worker has it when the step begins: which requests yield a token, which are in their prompt.
                yields = {id for id in output.num_scheduled_tokens if not self._in_prompt(id)}
                flight.append((output, yields))
                begun += 1
            if flight and (len(flight) == self.ahead or not output.total_num_scheduled_tokens):
                self._answer(*flight.popleft(), journal)
            if most is not None and begun >= most:
                from vllm.v1.request import RequestStatus

                journal.complete = False
                self.scheduler.finish_requests(list(self.scheduler.requests), RequestStatus.FINISHED_ABORTED)
                for late in flight:
                    self._answer(*late, Journal(requests))
                break
        for late in flight:
            self._answer(*late, journal)
        self.driver.collect(journal)
        return journal

    def _add(self, request: Request, policy: str) -> None:
        from vllm import SamplingParams
        from vllm.v1.request import Request as VllmRequest

        own = {recorder.POLICY: policy, recorder.RECORD: True}
        parameters = SamplingParams(max_tokens=request.max_new_tokens, ignore_eos=True, extra_args=own)
        self.scheduler.add_request(
            VllmRequest(f"{request.id}-x", list(request.prompt_token_ids), parameters, pooling_params=None)
        )

    def _in_prompt(self, id: str) -> bool:
        return bool(self.scheduler.requests[id].is_prefill_chunk)

    def _answer(self, output: Any, yields: set[str], journal: Journal) -> None:
        from vllm.v1.outputs import ModelRunnerOutput

        ids = list(output.num_scheduled_tokens)
        tokens = [[7] if id in yields else [] for id in ids]
        answered = ModelRunnerOutput(ids, {id: n for n, id in enumerate(ids)}, sampled_token_ids=tokens)
        t_ns = now_ns()
        for outputs in self.scheduler.update_from_output(output, answered).values():
            for one in outputs.outputs:
                id = int(one.request_id.split("-")[0])
                journal.tokens(id, list(one.new_token_ids), t_ns)
                if one.finish_reason is not None:
                    journal.finish(id, "length", t_ns)
