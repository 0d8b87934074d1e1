"""vLLM: one loaded engine, for passes that differ in who is admitted and in how requests come.

Requests go in by `LLM.llm_engine.add_request` and come out of `step`, which is what `LLM.generate` does; between the
two calls the time of each token is noted.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from kvlab.errors import NotRunnable
from kvlab.measure import machine
from kvlab.measure.engines import environment
from kvlab.measure.engines.vllm import admission
from kvlab.measure.engines.vllm.failures import keep_errors, memory
from kvlab.measure.engines.vllm.open_loop import serve_open, take
from kvlab.measure.engines.vllm.recorder import FILE, POLICY, RECORD, pool_file, read_notes, scheduling
from kvlab.measure.engines.vllm.worker import ReadBack, several
from kvlab.measure.job import EngineFacts, Feed, Job
from kvlab.measure.journal import Journal, now_ns
from kvlab.messages import Message
from kvlab.records import Request


class VllmEngine:
    """One `LLM` with a pool of exactly the budget's slots, prefix caching off."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.llm: Any = None
        self.compile_s = 0.0
        self.served = False  # whether it has served anything yet
        self.slots = job.kv_slots
        self.gpus = job.settings["tensor_parallel_size"] * job.settings["pipeline_parallel_size"]
        self.steps_file = job.scratch / "steps"

    def load(self) -> None:
        """Start the engine: weights, pool, and where they are on compilation and CUDA graphs."""
        job = self.job
        environment.prepare(job)
        keep_errors(job.scratch)
        eager = bool(job.options.get("eager"))
        if eager and not _can_compile(job):
            raise NotRunnable(Message("eager-anyway"))
        if job.record_steps:
            os.environ[FILE] = str(self.steps_file)
        if self.gpus > 1:
            for name, value in several(job, self.gpus).items():
                os.environ.setdefault(name, value)
        import torch
        from vllm import LLM
        from vllm.platforms import current_platform

        if current_platform.device_type != job.device:
            built = {"built": current_platform.device_type, "device": job.device}
            raise NotRunnable(Message("other-build", built))
        if job.device == "cpu" and torch.get_num_threads() != job.threads:
            torch.set_num_threads(job.threads)  # OMP_NUM_THREADS came too late where torch was imported before
        with memory(job.scratch, loading=True):
            self.llm = LLM(**self._arguments(eager))
            self.read = self.llm.collective_rpc("kvlab_read_back")
        self.compile_s = max(worker["compile_s"] for worker in self.read)

    def _arguments(self, eager: bool) -> dict[str, Any]:
        job, own = self.job, self.job.settings
        block = own["block_size"]
        blocks = job.kv_slots // block + 1  # block 0 is the null block, which no request gets
        spread = own["tensor_parallel_size"], own["pipeline_parallel_size"]
        arguments = {
            "model": str(job.model),
            "dtype": job.dtype,
            "seed": job.seed,
            "max_model_len": job.max_model_len,
            "block_size": block,
            "num_gpu_blocks_override": blocks,
            "kv_cache_memory_bytes": blocks * block * machine.kv_bytes_per_slot(job.model, job.dtype, *spread),
            "max_num_seqs": own["max_num_seqs"],
            "max_num_batched_tokens": own["max_num_batched_tokens"],
            "load_format": own["load_format"],
            "enable_prefix_caching": False,
            "skip_tokenizer_init": True,  # token ids go in and come out
            "enforce_eager": eager or not _can_compile(job),
            "tensor_parallel_size": spread[0],
            "pipeline_parallel_size": spread[1],
            "distributed_executor_backend": own["distributed_executor_backend"],
            "worker_extension_cls": _name(ReadBack),
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
        }
        if own["async_scheduling"] is not None:
            arguments["async_scheduling"] = own["async_scheduling"]
        if job.record_steps:
            arguments["scheduler_cls"] = _name(scheduling)
        return arguments

    def compile(self) -> None:
        """It compiled, if at all, while it loaded."""

    def check(self, requests: Sequence[Request], feed: Feed) -> None:
        """Every request against the policy: one that could never be admitted would wait for ever."""
        lengths = [(len(request.prompt_token_ids), request.max_new_tokens) for request in requests]
        admission.check(
            feed.policy, self.job.kv_slots, self.job.max_model_len, self.job.settings["block_size"], lengths
        )
        if feed.policy not in (None, admission.PAGED) and not self.job.record_steps:
            raise NotRunnable(Message("policy-needs-recorder", {"policy": feed.policy}))

    def serve(self, requests: Sequence[Request], journal: Journal, feed: Feed) -> None:
        """Serve all requests."""
        # What an engine can't run it may say at its first step only: no kernel for a head size, on a CPU.
        with memory(self.job.scratch, loading=not self.served):
            ready = self._render(requests, feed)
            if feed.kind == "sequential":
                for request in requests:
                    journal.arrive([request.id], now_ns())
                    self._add(ready, request.id)
                    self._run(journal)
            elif feed.kind == "open":
                serve_open(self.llm.llm_engine, ready, journal, feed, _core_apart())
            else:
                journal.arrive((request.id for request in requests), now_ns())
                with self._held_back():
                    for request in requests:
                        self._add(ready, request.id)
                self._run(journal)
        self.served = True

    def collect(self, journal: Journal) -> None:
        """Fetch what the scheduler noted since the last time. RuntimeError where it is not empty then."""
        if not self.job.record_steps:
            return
        self.llm.reset_prefix_cache()  # the recorder writes, and puts the free blocks in order: see there
        notes, block = read_notes(self.steps_file), self.job.settings["block_size"]
        for t_ns, running, waiting, preempted, blocks, held in notes.steps:
            slots = [[_request_id(id), tokens, count * block] for id, tokens, count in held]
            journal.step(t_ns, running, waiting, preempted, blocks, slots)
        for id, t_ns in notes.seen.items():
            journal.entries[_request_id(id)].seen_ns = t_ns
        for id, (t_ns, asked, chunk) in notes.admitted.items():
            entry = journal.entries[_request_id(id)]
            entry.admitted_ns = t_ns
            entry.chunk = None if asked is None or chunk is None else (asked, chunk)
        for t_ns, step, id, tokens, under_way in notes.lost:
            journal.preempt(t_ns, step, _request_id(id), tokens, under_way)

    def settle(self) -> None:
        """Abort what is unfinished, and make sure that nothing is held. RuntimeError where something is."""
        engine = self.llm.llm_engine
        left = list(engine.output_processor.request_states)
        if left:
            engine.abort_request(left, internal=True)
        if not self.job.record_steps:
            return
        blocks = int(engine.vllm_config.cache_config.num_gpu_blocks) - 1
        for _ in range(100):
            self.llm.reset_prefix_cache()
            state = read_notes(self.steps_file).last
            if (state["free_blocks"], state["holding"], state["unfinished"]) == (blocks, 0, 0):
                return
            time.sleep(0.05)  # a step may still be under way
        raise RuntimeError(f"the KV cache is not empty between two passes: {state}, of {blocks} blocks")

    @contextmanager
    def _held_back(self) -> Iterator[None]:
        """A core of its own starts at the first request; all are to be there from the start (`vllm bench`, too)."""
        if _core_apart():
            self.llm.sleep(level=0)
        yield
        if _core_apart():
            self.llm.wake_up(tags=["scheduling"])

    def _render(self, requests: Sequence[Request], feed: Feed) -> dict[int, tuple[Any, Any]]:
        """Prompts and sampling parameters as the engine takes them, made before the clock runs."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        own = {POLICY: feed.policy or admission.PAGED, RECORD: feed.record} if self.job.record_steps else None
        ready = {}
        for request in requests:
            (prompt,) = self.llm.llm_engine.renderer.render_cmpl([{"prompt_token_ids": request.prompt_token_ids}])
            ready[request.id] = (
                prompt,
                SamplingParams(
                    temperature=0.0,
                    ignore_eos=True,
                    max_tokens=request.max_new_tokens,
                    detokenize=False,
                    output_kind=RequestOutputKind.DELTA,
                    extra_args=own,
                ),
            )
        return ready

    def _add(self, ready: dict[int, tuple[Any, Any]], id: int) -> None:
        self.llm.llm_engine.add_request(str(id), *ready[id])

    def _run(self, journal: Journal) -> None:
        """Step until nothing is left."""
        engine = self.llm.llm_engine
        while engine.has_unfinished_requests():
            take(engine.step(), journal)

    def facts(self) -> EngineFacts:
        """The pool from the core's block pool, the bytes from the workers' tensors."""
        import torch
        import vllm

        config = self.llm.llm_engine.vllm_config
        # The pool as the core made it: the core updates the front end's copy of the configuration.
        blocks = int(config.cache_config.num_gpu_blocks)
        block = int(config.cache_config.block_size)
        slots = (blocks - 1) * block
        core = json.loads(pool_file(self.steps_file).read_text(encoding="utf-8")) if self.job.record_steps else {}
        self.read = self.llm.collective_rpc("kvlab_read_back")
        first = self.read[0]
        cuda = self.job.device == "cuda"
        kv_bytes = sum(worker["kv_bytes"] for worker in self.read)
        return EngineFacts(
            engine={
                "name": "vllm",
                "version": vllm.__version__,
                "torch": torch.__version__,
                "attention": first["attention"],
                "compiled": first["mode"] != "NONE" and _can_compile(self.job),
                "compilation": first["mode"],
                "cuda_graphs": first["cuda_graphs"],
                "async_scheduling": bool(config.scheduler_config.async_scheduling),
                "core": "own process" if _core_apart() else "driver's process",
                "cuda_graph_sizes": first["cuda_graph_sizes"],
                "scheduler": core.get("scheduler"),
                "max_num_seqs": core.get("max_num_seqs", config.scheduler_config.max_num_seqs),
                "max_num_batched_tokens": core.get(
                    "max_num_batched_tokens", config.scheduler_config.max_num_batched_tokens
                ),
                "load_format": str(config.load_config.load_format),
                "chunked_prefill": bool(config.scheduler_config.enable_chunked_prefill),
                "prefix_caching": bool(config.cache_config.enable_prefix_caching),
                "model_runner": first["model_runner"],
                "recorded": self.job.record_steps,
                "workers": len(self.read),
                "kv_bytes_each": [worker["kv_bytes"] for worker in self.read],
                "threads": first["threads"],
            },
            pool_slots=slots,
            block_size=block,
            max_num_seqs=int(config.scheduler_config.max_num_seqs),
            kv_bytes_per_slot=kv_bytes // (blocks * block),
            weights_bytes=sum(worker["weights_bytes"] for worker in self.read) if cuda else self._weights_in_file(),
            kv_pool_bytes=kv_bytes,
            torch_allocated_peak_bytes=sum(w["allocated_peak"] for w in self.read) if cuda else None,
            torch_reserved_peak_bytes=sum(w["reserved_peak"] for w in self.read) if cuda else None,
        )

    def _weights_in_file(self) -> int:
        """On a CPU vLLM repacks the weights and empties their tensors, so the checkpoint's are counted."""
        return machine.weights_bytes(self.job.model, self.job.dtype)

    def close(self) -> None:
        """Stop the core and its workers."""
        if self.llm is not None:
            self.llm.llm_engine.engine_core.shutdown()
        self.llm = None


def engine(job: Job) -> VllmEngine:
    """The engine of this module."""
    return VllmEngine(job)


def _name(thing: Any) -> str:
    """What vLLM imports it by, in whichever process."""
    return f"{thing.__module__}.{thing.__qualname__}"


def _core_apart() -> bool:
    return os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING", "1") == "1"


def _can_compile(job: Job) -> bool:
    """On a CPU nothing is compiled, unless the user took TORCH_COMPILE_DISABLE back."""
    return job.device == "cuda" or os.environ.get("TORCH_COMPILE_DISABLE", "0") in ("", "0")


def _request_id(engine_id: str) -> int:
    """vLLM appends a random suffix to the id that it is given."""
    return int(engine_id.split("-", 1)[0])
