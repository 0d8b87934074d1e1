"""Hugging Face transformers: the model, and which way of generating an arm takes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from kvlab.errors import NotRunnable
from kvlab.measure.engines import environment
from kvlab.measure.engines.refusal import out_of_memory, refusals
from kvlab.measure.job import EngineFacts, Feed, Job
from kvlab.measure.journal import Journal
from kvlab.messages import Message
from kvlab.records import Request

if TYPE_CHECKING:
    from collections.abc import Iterator


class Way(Protocol):
    """A way of generating: through `generate` with some cache, or by continuous batching."""

    def compile(self) -> None:
        """Run what compiles on first use."""

    def serve(self, requests: Sequence[Request], journal: Journal) -> None:
        """Serve all requests."""

    def collect(self) -> None:
        """Do what is left to do once the clock has stopped."""

    def read_back(self, facts: EngineFacts) -> None:
        """Put in what the cache's tensors say."""

    def close(self) -> None:
        """Stop what runs in the background."""


class TransformersEngine:
    """`AutoModelForCausalLM`, loaded once; greedy, and no token ends a request before its time."""

    compile_s = 0.0  # it compiles on first use, in `compile`

    def __init__(self, job: Job) -> None:
        self.job = job
        self.slots = job.kv_slots if job.feed == "batch" else job.max_model_len
        self.gpus = 1 if job.settings["device_map"] is None else job.gpus
        self.model: Any = None
        self.way: Way | None = None

    def load(self) -> None:
        """Weights onto the device."""
        environment.prepare(self.job)
        import torch
        from transformers import AutoModelForCausalLM, GenerationConfig

        job = self.job
        if job.device == "cuda" and not torch.cuda.is_available():
            raise NotRunnable(Message("torch-without-cuda"))
        if job.device == "cpu":
            torch.set_num_threads(job.threads)
        environment.set_seed(job.seed)
        device_map = job.settings["device_map"]
        with refusals("transformers"), _memory():
            self.model = AutoModelForCausalLM.from_pretrained(
                job.model,
                dtype=getattr(torch, job.dtype),
                attn_implementation=job.settings["attn_implementation"],
                device_map=device_map,
                local_files_only=True,
            ).eval()
            if device_map is None:
                self.model = self.model.to(job.device)
            # Greedy and nothing else: a model's own generation settings (repetition penalty, several end tokens)
            # would make this engine do other work than the other one.
            self.model.generation_config = GenerationConfig()
            if job.device == "cuda":
                torch.cuda.synchronize()
            if job.options["cache"] == "paged":
                from kvlab.measure.engines.transformers.continuous import Continuous

                self.way = Continuous(self.model, job)
            else:
                from kvlab.measure.engines.transformers.generate import Generate

                self.way = Generate(self.model, job)

    def compile(self) -> None:
        """Compile the decode step where that is on (a GPU, by default)."""
        assert self.way is not None
        with _memory():
            self.way.compile()

    def check(self, requests: Sequence[Request], feed: Feed) -> None:
        """It serves a queue that is there from the start, and admits as its cache decides."""
        if feed.kind == "open":
            raise NotRunnable(Message("no-arrivals"))

    def serve(self, requests: Sequence[Request], journal: Journal, feed: Feed) -> None:
        """Serve all requests."""
        assert self.way is not None
        with _memory():
            self.way.serve(requests, journal)

    def collect(self, journal: Journal) -> None:
        """The steps were noted as they were served."""
        assert self.way is not None
        self.way.collect()

    def settle(self) -> None:
        """Each of its arms has a process of its own: there is one pass."""

    def facts(self) -> EngineFacts:
        """Versions, attention, weights; the cache from its tensors."""
        import torch
        import transformers

        assert self.way is not None
        facts = EngineFacts(
            engine={
                "name": "transformers",
                "version": transformers.__version__,
                "torch": torch.__version__,
                "attention": self.model.config._attn_implementation,
                "compiled": False,
                "threads": torch.get_num_threads() if self.job.device == "cpu" else None,
                "device_map": self.job.settings["device_map"],
            },
            weights_bytes=_weights_bytes(self.model),
        )
        if self.job.device == "cuda":
            devices = range(torch.cuda.device_count())
            facts.torch_allocated_peak_bytes = sum(torch.cuda.max_memory_allocated(i) for i in devices)
            facts.torch_reserved_peak_bytes = sum(torch.cuda.max_memory_reserved(i) for i in devices)
        self.way.read_back(facts)
        return facts

    def close(self) -> None:
        """Drop the model."""
        if self.way is not None:
            self.way.close()
        self.way = self.model = None


def engine(job: Job) -> TransformersEngine:
    """The engine of this module."""
    return TransformersEngine(job)


def _weights_bytes(model: Any) -> int:
    tensors = [*model.parameters(), *model.buffers()]
    return sum({t.data_ptr(): t.numel() * t.element_size() for t in tensors}.values())  # tied weights count once


@contextmanager
def _memory() -> Iterator[None]:
    """Running out of memory means that this machine can't run the arm."""
    import torch

    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise out_of_memory(str(error)) from error
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):  # torch's CPU allocator raises a plain RuntimeError
            raise
        raise out_of_memory(str(error)) from error
