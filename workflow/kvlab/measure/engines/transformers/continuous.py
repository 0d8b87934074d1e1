"""transformers' own continuous batching over pages, with what it holds noted at every step.

A session is what `generate_batch(persistent_manager=True)` makes of it: a manager whose background thread schedules,
runs and updates. Its processor is created once; four of its calls are wrapped, on the instance, to see each step from
inside (transformers/generation/continuous_batching/, 5.17.0). All requests are in its queue before the thread starts.

`RequestState.position_offset` after `prepare_next_batch` is the number of tokens stored once the step has run; the
allocator asks for a block more than it needs at some lengths, and that is recorded as it is. The tensors have two
blocks more than the pool, for padding, which no request gets.

On a GPU it is configured as its authors benchmark it: FlashAttention (see `flash`), pages of 256 tokens, and a token
budget, CUDA graphs and asynchronous batches as transformers decides on them itself. With asynchronous batches a request
runs once more after its last token (see `accounting`). On a CPU, sdpa with smaller pages and without graphs: the guard
`as-upstream` says so.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from kvlab.errors import NotRunnable
from kvlab.measure.engines.attention import require_full
from kvlab.measure.engines.refusal import out_of_memory
from kvlab.measure.engines.transformers import flash
from kvlab.measure.job import EngineFacts, Job
from kvlab.measure.journal import Journal, now_ns
from kvlab.messages import Message
from kvlab.records import Request

FULL = ("FullAttentionCacheAllocator",)


def sizes(job: Job) -> tuple[int, int | None]:
    """Tokens a page, and a step; None leaves the step's to transformers, which asks the GPU for its free memory."""
    block, tokens = job.settings["block_size"], job.settings["batch_tokens"]
    block, tokens = (block or 16, tokens or 512) if job.device == "cpu" else (block or 256, tokens)
    if job.kv_slots < block:
        raise NotRunnable(Message("no-page", {"slots": job.kv_slots, "block": block}))
    return block, tokens


class Continuous:
    """Serves requests by a `ContinuousBatchingManager` with as many blocks as the budget holds."""

    def __init__(self, model: Any, job: Job) -> None:
        self.model, self.job = model, job
        # With this prefix transformers keeps the kernel that was asked for, instead of looking for another on the hub.
        name = flash.attention(job)
        model.set_attn_implementation(flash.register() if name == flash.VLLM else f"paged|{name}")
        self.manager = self._session()
        self.processor = self.manager.batch_processor = self.manager._create_batch_processor()  # and the pool
        self.cache = self.processor.cache
        require_full((type(group).__name__ for group in self.cache.group_cache_managers), FULL)
        self.journal: Journal | None = None
        self.all_noted = threading.Event()
        self.preempted = 0
        self.batch: Sequence[Any] = ()
        self._wrap()

    def _session(self) -> Any:
        from transformers import ContinuousBatchingConfig, GenerationConfig

        block, tokens = sizes(self.job)
        return self.model.init_continuous_batching(
            generation_config=GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0),
            continuous_batching_config=ContinuousBatchingConfig(
                block_size=block,
                num_blocks=self.job.kv_slots // block,
                max_batch_tokens=tokens,
                allow_block_sharing=False,  # no prefix caching
                default_compile_level=1 if self.job.settings["compile"] == "on" else 0,
                seed=self.job.seed,
            ),
        )

    def compile(self) -> None:
        """Capture graphs and compile, where the manager decided for either."""
        self.manager.warmup()

    def serve(self, requests: Sequence[Request], journal: Journal) -> None:
        """Queue all requests, start the thread, wait for all of them."""
        self._stop()
        self.journal = journal
        self.all_noted.clear()
        self.manager.background_thread_status.clear()  # as `start` does; stopped, it would refuse requests
        journal.arrive((request.id for request in requests), now_ns())
        for request in requests:
            self.manager.add_request(
                request.prompt_token_ids,
                request_id=str(request.id),
                max_new_tokens=request.max_new_tokens,
                eos_token_id=-1,
            )
        self.manager.start()
        for _ in requests:
            result = None
            while result is None:
                result = self.manager.get_result(timeout=1.0)
                journal.check_time(now_ns())
                if result is None and not self.manager.is_running():
                    raise RuntimeError("transformers' continuous batching stopped before all requests were done")
            if result.error is not None:
                journal.check_time(now_ns())  # that is how the thread ends when time is up
                self._fail(result.error)
        self.all_noted.wait(timeout=10)  # the last result comes a moment before its note

    def _fail(self, error: str) -> None:
        """What went wrong in the thread, here."""
        if "out of memory" in error or "can't allocate memory" in error:
            raise out_of_memory(error)
        if "No requests can be scheduled" in error:
            raise NotRunnable(Message("no-request-fits", {"slots": self.job.kv_slots}))
        raise RuntimeError(f"transformers' continuous batching failed: {error}")

    def _stop(self) -> None:
        if self.manager.is_running():
            self.manager.stop(block=True, keep_for_next_session=True)

    def collect(self) -> None:
        """Stop the thread; the pool stays."""
        self._stop()

    def _wrap(self) -> None:
        processor, offloading = self.processor, self.processor.offloading_manager
        prepare, update = processor.prepare_next_batch, processor.update_batch
        tokens, offload = processor.inputs_and_outputs.prepare_batch_update, offloading.offload_requests

        def prepare_next_batch() -> bool:
            t_ns, self.preempted = now_ns(), 0
            prepared: bool = prepare()
            if prepared and self.job.record_steps and self.journal is not None:
                self._note(t_ns)
            return prepared

        def offload_requests() -> int:
            count: int = offload()
            self.preempted += count
            return count

        def prepare_batch_update() -> Any:
            found = tokens()
            self.batch = found[0]
            return found

        def update_batch() -> None:
            update()
            self._note_tokens(now_ns())

        processor.prepare_next_batch, processor.update_batch = prepare_next_batch, update_batch
        processor.inputs_and_outputs.prepare_batch_update = prepare_batch_update
        offloading.offload_requests = offload_requests

    def _note(self, t_ns: int) -> None:
        scheduler, held, running = self.processor.scheduler, [], 0
        for id, state in scheduler.active_requests.items():
            if blocks := self.cache.blocks_in_use(id):
                held.append([int(id), state.position_offset, blocks * self.cache.block_size])
                running += 1
        used = self.cache.num_blocks - self.cache.get_num_free_blocks()
        assert self.journal is not None
        self.journal.step(t_ns, running, len(scheduler.waiting_requests), self.preempted, used, held)

    def _note_tokens(self, t_ns: int) -> None:
        """The tokens of this update. A request that was evicted starts again with its tokens as its prompt."""
        journal = self.journal
        if journal is None:
            return
        for future in self.batch:
            state, entry = future.state, journal.entries[int(future.state.request_id)]
            known = len(entry.request.prompt_token_ids) + len(entry.token_ids)
            new = (state.initial_tokens + state.generated_tokens)[known:] if future.has_new_token else []
            if new:
                journal.tokens(entry.request.id, new, t_ns)
                if len(entry.token_ids) == entry.request.max_new_tokens:
                    journal.finish(entry.request.id, "length", t_ns)
        if self.job.record_steps and not self.processor.has_pending_requests():
            journal.step(t_ns, 0, 0, 0, self.cache.num_blocks - self.cache.get_num_free_blocks(), [])
        if journal.finished == len(journal.entries):
            self.all_noted.set()

    def read_back(self, facts: EngineFacts) -> None:
        """Blocks and bytes from the pool's tensors."""
        cache, config = self.cache, self.manager.continuous_batching_config
        tensors = [*cache.key_cache, *cache.value_cache]
        facts.pool_slots = cache.num_blocks * cache.block_size
        facts.block_size = cache.block_size
        facts.max_num_seqs = config.max_requests_per_batch
        facts.kv_bytes_per_slot = sum(t[0].numel() * t.element_size() for t in tensors)
        facts.kv_pool_bytes = sum(t.numel() * t.element_size() for t in tensors)
        facts.engine |= {
            "cache": type(cache).__name__,
            "compiled": config.varlen_compile_config is not None or config.decode_compile_config is not None,
            "cuda_graphs": list(config.use_cuda_graph),
            "decode_path": bool(config.max_blocks_per_request),
            "async_scheduling": config.use_async_batching,
            "max_num_batched_tokens": cache.max_batch_tokens,
            "prefix_caching": cache.use_prefix_sharing,
            "scheduler": type(self.processor.scheduler).__name__,
        }

    def close(self) -> None:
        """Stop the thread and free the pool."""
        if self.manager.is_running():
            self.manager.stop(block=True, timeout=10, hard_stop=True)
        self.model.destroy_cached_continuous_batching_manager()
        self.journal = None
