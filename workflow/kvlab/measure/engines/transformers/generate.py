"""transformers' `generate` with a contiguous cache: one request at a time, or padded batches.

Static: one `StaticCache` of `max_model_len` for each row, allocated once and reset. Dynamic: the library's default,
which grows by exactly the tokens stored. A streamer sees every token as it reaches the host; it costs one copy of the
step's tokens, and `generate` waits for the device at every step anyway (`StopCheck`, generation/utils.py).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

from kvlab.measure.engines.attention import require_full
from kvlab.measure.job import EngineFacts, Job
from kvlab.measure.journal import Journal, now_ns
from kvlab.records import Request

FULL = ("StaticLayer", "DynamicLayer")


class Generate:
    """Serves batches (of one, where the feed is sequential) through `model.generate`."""

    def __init__(self, model: Any, job: Job) -> None:
        self.model, self.job = model, job
        self.static = job.options["cache"] == "static"
        self.rows = job.contiguous_rows if job.feed == "batch" else 1
        self.compiled = False
        self.pool: Any = None
        self.cache: Any = None
        self.most_held = 0
        if self.static:
            self._allocate()

    def compile(self) -> None:
        """Compile the decode step, where that is on: `generate` does it with a static cache, at its first step."""
        if self.static and _compiles(self.job):
            self.compiled = True
            self._serve_dummies()

    def _allocate(self) -> None:
        """The whole pool, by filling every row once: the tensors take their shape, type and device from the model."""
        from transformers import StaticCache

        config = self.model.config.get_text_config(decoder=True)
        self.pool = StaticCache(config=config, max_cache_len=self.job.max_model_len)
        require_full((type(layer).__name__ for layer in self.pool.layers), FULL)
        self._serve_dummies()

    def _serve_dummies(self) -> None:
        # Seven decode steps: a CUDA graph is warmed up by one, captured by the next, replayed from then on.
        tokens = min(8, self.job.max_model_len - 1)
        dummies = [Request(row, [0], tokens) for row in range(self.rows)]
        self.serve(dummies, Journal(dummies, "compile"))

    def serve(self, requests: Sequence[Request], journal: Journal) -> None:
        """Serve all requests in order of arrival."""
        batches = list(_batches(requests, self.rows, self.job.max_model_len))
        if self.job.feed == "batch":
            journal.arrive((request.id for request in requests), now_ns())
        waiting = len(requests) if self.job.feed == "batch" else 0
        for batch in batches:
            waiting = max(0, waiting - len(batch))
            if self.job.feed == "sequential":
                journal.arrive((request.id for request in batch), now_ns())
            self._serve_batch(batch, waiting, journal)

    def _serve_batch(self, batch: list[Request], waiting: int, journal: Journal) -> None:
        import torch
        from transformers import GenerationConfig

        # A compiled step has a fixed number of rows; elsewhere an empty row would be computed for nothing.
        rows = self.rows if self.compiled else len(batch)
        longest = max(len(request.prompt_token_ids) for request in batch)
        steps = max(request.max_new_tokens for request in batch)
        ids = torch.zeros((rows, longest), dtype=torch.long)
        mask = torch.zeros((rows, longest), dtype=torch.long)
        mask[len(batch) :, -1] = 1  # an empty row attends to something, or softmax has nothing to divide by
        for row, request in enumerate(batch):
            prompt = torch.tensor(request.prompt_token_ids)
            ids[row, longest - len(prompt) :] = prompt
            mask[row, longest - len(prompt) :] = 1
        cache = self._fresh_cache(rows)
        device = self.model.device
        self.model.generate(
            ids.to(device),
            attention_mask=mask.to(device),
            past_key_values=cache,
            streamer=_Recorder(self, batch, waiting, journal, cache),
            generation_config=GenerationConfig(
                max_new_tokens=steps,
                do_sample=False,
                eos_token_id=None,  # no token ends a request: forbidding one would change the others
                pad_token_id=0,
                disable_compile=not self.compiled,
                compile_config=_compile_config(self.job) if self.compiled else None,
            ),
        )
        if self.job.record_steps:
            journal.step(now_ns(), 0, waiting, 0, 0, [])

    def _fresh_cache(self, rows: int) -> Any:
        """An empty cache: the pool, its first rows where a batch does not fill it, or a growing one."""
        from transformers import DynamicCache

        if not self.static:
            config = self.model.config.get_text_config(decoder=True)
            self.cache = DynamicCache(config=config)  # what `generate` makes by default
            require_full((type(layer).__name__ for layer in self.cache.layers), FULL)
            return self.cache
        self.pool.reset()
        if rows == self.rows:
            return self.pool
        part = copy.copy(self.pool)
        part.layers = [copy.copy(layer) for layer in self.pool.layers]
        for layer in part.layers:
            layer.keys, layer.values, layer.batch_size = layer.keys[:rows], layer.values[:rows], rows
            layer.cumulative_length = layer.cumulative_length.clone()
        return part

    def slots_per_row(self, cache: Any) -> int:
        """Slots that each row of the cache has now, from its tensors."""
        rows, _, slots, _ = cache.layers[0].keys.shape
        self.most_held = max(self.most_held, rows * slots)
        return int(slots)

    def read_back(self, facts: EngineFacts) -> None:
        """Rows, slots and bytes from the cache's tensors."""
        cache = self.pool if self.static else self.cache
        rows, _, slots, _ = cache.layers[0].keys.shape
        facts.kv_bytes_per_slot = sum(
            tensor.shape[1] * tensor.shape[3] * tensor.element_size()
            for layer in cache.layers
            for tensor in (layer.keys, layer.values)
        )
        facts.pool_slots = rows * slots if self.static else self.most_held
        facts.block_size = slots if self.static else 1
        facts.max_num_seqs = rows
        facts.kv_pool_bytes = facts.pool_slots * facts.kv_bytes_per_slot
        facts.engine |= {"cache": type(cache).__name__, "compiled": self.compiled}

    def collect(self) -> None:
        """Nothing is left to do."""

    def close(self) -> None:
        """Free the cache."""
        self.cache = self.pool = None


class _Recorder:
    """A streamer (`BaseStreamer`): what it is put first is the prompt, then each step's tokens.

    When a step's tokens arrive, all tokens before them are stored; the step began when the tokens before arrived.
    """

    def __init__(self, way: Generate, batch: list[Request], waiting: int, journal: Journal, cache: Any) -> None:
        self.way, self.batch, self.waiting, self.journal, self.cache = way, batch, waiting, journal, cache
        self.generated = -1
        self.began_ns = 0

    def put(self, value: Any) -> None:
        """Note one step."""
        t_ns = now_ns()
        self.generated += 1
        if self.generated > 0:
            self._step(value.tolist(), t_ns)
        self.began_ns = t_ns

    def _step(self, tokens: list[int], t_ns: int) -> None:
        number, journal, held, running = self.generated, self.journal, [], 0
        slots = self.way.slots_per_row(self.cache)
        block = slots if self.way.static else 1
        for request, token in zip(self.batch, tokens, strict=False):
            wanted = request.max_new_tokens
            # The last token of a request is never stored: nothing comes after it. What a finished row of a batch
            # stores until the others are done is no token of the request.
            held.append([request.id, len(request.prompt_token_ids) + min(number, wanted) - 1, slots])
            running += number <= wanted
            if number <= wanted:
                journal.tokens(request.id, [token], t_ns)
            if number == wanted:
                journal.finish(request.id, "length", t_ns)
        if self.way.job.record_steps:
            blocks = len(held) * slots // block
            journal.step(self.began_ns, running, self.waiting, 0, blocks, held)

    def end(self) -> None:
        """`generate` is done."""


def _batches(requests: Sequence[Request], rows: int, max_model_len: int) -> Iterator[list[Request]]:
    """Batches in order of arrival: as many as there are rows, while the longest prompt and output fit together.

    Left padding puts every prompt's end at the same place, so the row with the longest prompt and the one with the
    longest output must fit a row as if they were one request. `vllm bench throughput --backend hf` fills its batches
    by the same rule (vllm/benchmarks/throughput.py, `_run_hf_requests`).
    """
    batch: list[Request] = []
    prompt = output = 0
    for request in requests:
        longest = max(prompt, len(request.prompt_token_ids))
        most = max(output, request.max_new_tokens)
        if batch and (len(batch) == rows or longest + most > max_model_len):
            yield batch
            batch, longest, most = [], len(request.prompt_token_ids), request.max_new_tokens
        batch.append(request)
        prompt, output = longest, most
    if batch:
        yield batch


def _compiles(job: Job) -> bool:
    return bool({"on": True, "off": False, "auto": job.device == "cuda"}[job.settings["compile"]])


def _compile_config(job: Job) -> Any:
    from transformers import CompileConfig

    config = CompileConfig()
    config._compile_all_devices = job.device != "cuda"  # transformers compiles on a CPU only with this setting
    return config
