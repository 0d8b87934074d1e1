"""vLLM: batching on blocks, one request at a time, or with only as many as a contiguous allocator could admit.

Requests go in by `LLM.llm_engine.add_request` and come out of `step`, which is what `LLM.generate` does; between the
two calls the time of each token is noted.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from kvlab.errors import NotRunnable
from kvlab.measure import machine
from kvlab.measure.engines import environment
from kvlab.measure.engines.vllm.failures import keep_errors, memory
from kvlab.measure.engines.vllm.recorder import FILE, read_steps, scheduling
from kvlab.measure.engines.vllm.worker import ReadBack
from kvlab.measure.job import EngineFacts, Job
from kvlab.measure.journal import Journal, now_ns
from kvlab.records import Request


class VllmEngine:
    """One `LLM` with a pool of exactly the budget's slots, prefix caching off."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.llm: Any = None
        self.compile_s = 0.0
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
            raise NotRunnable(
                "on this machine vLLM compiles nothing and has no CUDA graphs: without them it is vllm-paged again"
            )
        if job.record_steps:
            os.environ[FILE] = str(self.steps_file)
        import torch
        from vllm import LLM
        from vllm.platforms import current_platform

        if current_platform.device_type != job.device:
            raise NotRunnable(
                f"this vLLM is built for {current_platform.device_type}, the run is for {job.device}; "
                "install the other lock's engines, or set measure.device"
            )
        if job.device == "cpu" and torch.get_num_threads() != job.threads:
            torch.set_num_threads(job.threads)  # OMP_NUM_THREADS came too late where torch was imported before
        with memory(job.scratch):
            self.llm = LLM(**self._arguments(eager))
            self.read = self.llm.collective_rpc("kvlab_read_back")
        self.compile_s = max(worker["compile_s"] for worker in self.read)

    def _arguments(self, eager: bool) -> dict[str, Any]:
        job, own = self.job, self.job.settings
        block = own["block_size"]
        blocks = job.kv_slots // block + 1  # block 0 is the null block, which no request gets
        arguments = {
            "model": str(job.model),
            "dtype": job.dtype,
            "seed": job.seed,
            "max_model_len": job.max_model_len,
            "block_size": block,
            "num_gpu_blocks_override": blocks,
            "kv_cache_memory_bytes": blocks * block * machine.kv_bytes_per_slot(job.model, job.dtype),
            "max_num_seqs": self._most_at_once(),
            "enable_prefix_caching": False,
            "skip_tokenizer_init": True,  # token ids go in and come out
            "enforce_eager": eager or not _can_compile(job),
            "tensor_parallel_size": own["tensor_parallel_size"],
            "pipeline_parallel_size": own["pipeline_parallel_size"],
            "distributed_executor_backend": own["distributed_executor_backend"],
            "worker_extension_cls": _name(ReadBack),
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
        }
        if own["async_scheduling"] is not None:
            arguments["async_scheduling"] = own["async_scheduling"]
        if own["max_num_batched_tokens"] is not None:
            arguments["max_num_batched_tokens"] = own["max_num_batched_tokens"]
        if job.record_steps:
            arguments["scheduler_cls"] = _name(scheduling)
        return arguments

    def _most_at_once(self) -> int:
        if self.job.options.get("admit") == "contiguous":
            return self.job.contiguous_rows
        return int(self.job.settings["max_num_seqs"])

    def compile(self) -> None:
        """It compiled, if at all, while it loaded."""

    def serve(self, requests: Sequence[Request], journal: Journal) -> None:
        """Serve all requests."""
        with memory(self.job.scratch):
            self._serve(requests, journal)

    def _serve(self, requests: Sequence[Request], journal: Journal) -> None:
        if self.job.feed == "sequential":
            for request in requests:
                journal.arrive([request.id], now_ns())
                self._add(request)
                self._run(journal)
        else:
            journal.arrive((request.id for request in requests), now_ns())
            with self._held_back():
                for request in requests:
                    self._add(request)
            self._run(journal)

    def collect(self, journal: Journal) -> None:
        """Fetch the steps that the scheduler noted since the last time."""
        if not self.job.record_steps:
            return
        self.llm.reset_prefix_cache()  # the recorder writes: see there
        block = self.job.settings["block_size"]
        for t_ns, running, waiting, preempted, blocks, held in read_steps(self.steps_file):
            slots = [[_request_id(id), tokens, count * block] for id, tokens, count in held]
            journal.step(t_ns, running, waiting, preempted, blocks, slots)

    @contextmanager
    def _held_back(self) -> Iterator[None]:
        """A core of its own starts at the first request; all are to be there from the start (`vllm bench`, too)."""
        if _core_apart():
            self.llm.sleep(level=0)
        yield
        if _core_apart():
            self.llm.wake_up(tags=["scheduling"])

    def _add(self, request: Request) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        parameters = SamplingParams(
            temperature=0.0,
            ignore_eos=True,
            max_tokens=request.max_new_tokens,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        engine = self.llm.llm_engine
        (prompt,) = engine.renderer.render_cmpl([{"prompt_token_ids": request.prompt_token_ids}])
        engine.add_request(str(request.id), prompt, parameters)

    def _run(self, journal: Journal) -> None:
        """Step until nothing is left."""
        engine = self.llm.llm_engine
        while engine.has_unfinished_requests():
            outputs = engine.step()
            t_ns = now_ns()
            for output in outputs:
                id, completion = int(output.request_id), output.outputs[0]  # the id as it was given, without suffix
                journal.tokens(id, completion.token_ids, t_ns)
                if output.finished:
                    journal.finish(id, completion.finish_reason, t_ns, output.num_cached_tokens or 0)

    def facts(self) -> EngineFacts:
        """The pool from the core's block pool, the bytes from the workers' tensors."""
        import torch
        import vllm

        config = self.llm.llm_engine.vllm_config
        # The pool as the core made it: the front end's copy of the configuration is told by the core.
        blocks = int(config.cache_config.num_gpu_blocks)
        slots = (blocks - 1) * self.job.settings["block_size"]
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
                "max_num_batched_tokens": config.scheduler_config.max_num_batched_tokens,
                "chunked_prefill": bool(config.scheduler_config.enable_chunked_prefill),
                "prefix_caching": bool(config.cache_config.enable_prefix_caching),
                "model_runner": first["model_runner"],
                "recorded": self.job.record_steps,
                "workers": len(self.read),
                "threads": first["threads"],
            },
            pool_slots=slots,
            block_size=int(config.cache_config.block_size),
            max_num_seqs=int(config.scheduler_config.max_num_seqs),
            reserve_slots=self.job.max_model_len if self.job.options.get("admit") == "contiguous" else None,
            kv_bytes_per_slot=kv_bytes // (blocks * self.job.settings["block_size"]),
            weights_bytes=sum(worker["weights_bytes"] for worker in self.read) if cuda else self._weights_in_file(),
            kv_pool_bytes=kv_bytes,
            torch_allocated_peak_bytes=sum(w["allocated_peak"] for w in self.read) if cuda else None,
            torch_reserved_peak_bytes=sum(w["reserved_peak"] for w in self.read) if cuda else None,
        )

    def _weights_in_file(self) -> int:
        """On a CPU vLLM packs the weights anew and empties their tensors: what is left to count is the checkpoint."""
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
