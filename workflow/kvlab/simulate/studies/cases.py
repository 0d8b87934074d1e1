"""One simulation from its settings: lengths drawn, a queue that is never empty, a pool, a policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kvlab.accounting import Accounting
from kvlab.allocators.contiguous import Allocator, SimulatedRequest
from kvlab.allocators.policies import POLICIES as POLICIES
from kvlab.allocators.policies import allocator_of as allocator_of
from kvlab.errors import KvlabError
from kvlab.prepare import artifact, lengths
from kvlab.records import Run
from kvlab.simulate.scheduler import Scheduler
from kvlab.simulate.timeline import Timeline, run_record


def draw(drawn_from: dict[str, Any], requests: int, seed: int, max_total: int) -> lengths.Lengths:
    """`requests` pairs. `drawn_from`: {kind: azure-conv}, {kind: paper} and the arguments of `lengths.paper`, or one of
    the artifact's kinds and the arguments of `artifact.read`, resampled.
    """
    if drawn_from["kind"] in artifact.FILES:
        return artifact.draw(artifact.read(**drawn_from), "resampled", requests, seed, max_total=max_total)
    shape = {name: value for name, value in drawn_from.items() if name != "kind"}
    if drawn_from["kind"] == "azure-conv":
        return lengths.resample(lengths.read_table(), requests, seed, max_total=max_total, **shape)
    return lengths.paper(requests, seed, max_total=max_total, **shape)


@dataclass(frozen=True)
class Case:
    """What is simulated: a policy on a pool (slots), for a number of iterations, the queue always full.

    `sharing`: samples, share and prefix of `Paged`. `prompt_extra`: tokens that every prompt has beyond what is drawn.
    `load` None: all requests are there from the start; else requests arrive at random (Poisson), `load` of them an
    iteration. The first `warmup` iterations are left out of all means.
    """

    policy: str
    drawn_from: dict[str, Any]
    seed: int
    pool: int
    max_len: int
    iterations: int
    warmup: int
    block: int
    watermark: float
    max_running: int | None = None
    load: float | None = None
    sharing: tuple[tuple[str, Any], ...] = ()
    prompt_extra: int = 0

    def allocator(self) -> Allocator:
        """An empty pool under the case's policy."""
        return allocator_of(self.policy, self.pool, self.max_len, self.block, self.watermark, **dict(self.sharing))

    def jobs(self) -> list[SimulatedRequest]:
        """Requests in order of arrival: more than the pool can serve in the iterations, whatever the policy."""
        prefix = dict(self.sharing).get("prefix", 0) + self.prompt_extra
        longest = self.max_len - prefix
        if self.load is not None:
            if not (np.isfinite(self.load) and self.load > 0):
                raise KvlabError(f"load {self.load}: requests an iteration, a finite number above 0")
            count = int(self.load * self.iterations * 1.1) + 50
            # A stream of its own, so that the same seed draws the same lengths at every load.
            gaps = np.random.default_rng([self.seed, 1]).exponential(1 / self.load, count)
            pairs = draw(self.drawn_from, count, self.seed, longest).pairs()
            return [
                SimulatedRequest(n, prompt + prefix, output, arrival)
                for n, ((prompt, output), arrival) in enumerate(zip(pairs, np.cumsum(gaps).tolist(), strict=True))
            ]
        count = 1024
        while True:
            drawn = draw(self.drawn_from, count, self.seed, longest)
            # A request that is served holds prompt … prompt + output − 1 tokens, one iteration each.
            served = np.searchsorted(
                np.cumsum(drawn.output * (drawn.prompt + (drawn.output - 1) / 2)), self.pool * self.iterations
            )
            most = self.max_running or self.pool
            served = min(served, np.searchsorted(np.cumsum(drawn.output), most * self.iterations))
            # Beside those, the ones that still run at the end, and some that wait.
            enough = int(served + min(most, 2 * self.pool / drawn.prompt.mean()) + 10)
            if enough <= count:
                return [SimulatedRequest(n, p + prefix, o) for n, (p, o) in enumerate(drawn.pairs()[:enough])]
            count *= 2

    def run(self) -> Timeline:
        """Simulate it."""
        timeline = Scheduler(self.jobs(), self.allocator(), max_running=self.max_running).run(self.iterations)
        if self.load is None and not timeline.waiting.all():
            raise KvlabError("the queue ran dry, so the pool was not always under pressure; this is a fault of kvlab")
        return timeline

    def record(self, workload: str) -> Run:
        """Its `run.json`."""
        return run_record(self.allocator(), workload, self.policy, self.seed, self.iterations)

    def accounting(self, timeline: Timeline, workload: str) -> Accounting:
        """The pool's division at each iteration after the warm-up."""
        return timeline.accounting(self.record(workload), self.allocator(), self.warmup)
