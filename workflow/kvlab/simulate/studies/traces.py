"""The authors' own requests, arriving when theirs did: Fig. 2 and Fig. 13a with nothing fitted.

A trace is drawn as the paper's artifact draws it (`kvlab.prepare.artifact`) and served with a constant step time, the
only assumption. Means are taken over the iterations of a window, as the artifact's plots take them. A simulated case is
a line of `traces.jsonl`; the pairs of lengths are in no file of a run, since no licence lets them be passed on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kvlab.accounting import SHARES
from kvlab.allocators.contiguous import SimulatedRequest
from kvlab.prepare import artifact
from kvlab.prepare.lengths import PAPER_MAX_TOTAL, fitting
from kvlab.quantities import Message, Quantity, Source
from kvlab.simulate.scheduler import Scheduler
from kvlab.simulate.step_times import StepTimes
from kvlab.simulate.studies.cases import POLICIES, Case, allocator_of
from kvlab.simulate.timeline import run_record

MEASURES = (*SHARES, "running", "waiting")


@dataclass(frozen=True)
class ServedTrace:
    """One trace served once: a line of `traces.jsonl`.

    `rate`: requests a second. `requests` arrived within `duration_s`; means over `iterations`, those that began within
    `window_s`: the shares of the pool, 0 to 1; `running` and `waiting`, requests; `preempted`, how many times.
    `prompt_mean` and `output_mean`: tokens, of all pairs of the file after the authors' filter.
    """

    trace: str
    policy: str
    step_ms: float
    seed: int
    rate: float
    duration_s: float
    window_s: tuple[float, float]
    requests: int
    iterations: int
    tokens: float
    reserved: float
    internal: float
    external: float
    running: float
    waiting: float
    preempted: int
    prompt_mean: float
    output_mean: float

    @property
    def label(self) -> str:
        """What distinguishes it from the trace's other cases of its policy."""
        return f"{self.step_ms:g}ms-seed{self.seed}"


def available(lengths: dict[str, Any]) -> bool:
    """Whether a trace's lengths are here; what no path leads to is not fetched unless that is asked for."""
    return lengths["path"] is not None


def run(traces: dict[str, dict[str, Any]], base: Case) -> Iterator[ServedTrace]:
    """All traces whose lengths are here: each step time with seed 0, then each other seed with the first step time."""
    for name, settings in traces.items():
        if not available(settings["lengths"]):
            continue
        times, seeds = settings["step_ms"], range(settings["seeds"])
        cases = [(step_ms, 0) for step_ms in times] + [(times[0], seed) for seed in seeds if seed]
        for policy in POLICIES:
            for step_ms, seed in cases:
                yield _serve(name, settings, policy, step_ms, seed, base)


def _serve(name: str, settings: dict[str, Any], policy: str, step_ms: float, seed: int, base: Case) -> ServedTrace:
    pairs = artifact.read(**settings["lengths"])
    kept = fitting(pairs, max_total=PAPER_MAX_TOTAL - 1)
    drawn, arrivals = artifact.trace(pairs, settings["rate"], settings["duration_s"], seed)
    asked = zip(drawn.pairs(), arrivals.tolist(), strict=True)
    jobs = [SimulatedRequest(number, *pair, arrival) for number, (pair, arrival) in enumerate(asked)]
    # Their buddy pool is made of blocks, so no chunk is smaller than one.
    allocator = allocator_of(policy, base.pool, base.max_len, base.block, base.watermark, in_blocks=True)
    begin, end = settings["window_s"]
    timeline = Scheduler(
        jobs,
        allocator,
        max_running=settings["max_running"],
        token_budget=settings["token_budget"],
        chunk_prompts=False,
        step_times=StepTimes(step_ms / 1000),
    ).run(until=end)
    first = int(np.searchsorted(timeline.clock, begin))
    found = timeline.accounting(run_record(allocator, name, policy, seed, len(timeline)), allocator, first)
    return ServedTrace(
        trace=name,
        policy=policy,
        step_ms=step_ms,
        seed=seed,
        rate=settings["rate"],
        duration_s=settings["duration_s"],
        window_s=(begin, end),
        requests=len(jobs),
        iterations=len(found),
        **{share: found.mean_share(share) for share in SHARES},
        running=found.mean("running"),
        waiting=found.mean("waiting"),
        preempted=int(found.preempted.sum()),
        prompt_mean=float(kept.prompt.mean()),
        output_mean=float(kept.output.mean()),
    )


def quantities(lines: list[ServedTrace], file: str, sha256: str) -> Iterator[Quantity]:
    """`simulated.<trace>.<policy>.<measure>`, the first step time and seed, and `….<step>ms-seed<n>.<measure>`, all."""
    seen: set[tuple[str, str]] = set()
    for number, line in enumerate(lines, start=1):
        key = f"simulated.{line.trace}.{line.policy}"
        keys = [f"{key}.{line.label}"] + ([key] if (line.trace, line.policy) not in seen else [])
        seen.add((line.trace, line.policy))
        for name in MEASURES:
            share = name in SHARES
            begin, end = (f"{at:g}" for at in line.window_s)
            drawn = {
                "begin": begin,
                "end": end,
                "rate": f"{line.rate:g}",
                "seed": line.seed,
                "step": f"{line.step_ms:g}",
            }
            text = Message("simulated.trace", {"what": Message(f"simulated.mean.{name}")} | drawn)
            for one in keys:
                value, unit = getattr(line, name), "share" if share else "requests"
                yield Quantity(f"{one}.{name}", value, unit, text, 1, [Source(file, sha256, str(number))])


def spread(found: Sequence[ServedTrace], trace: str, policy: str, measure: str) -> dict[str, tuple[str, str]]:
    """The quantities of the least and the most of `measure` over the step times, and over the seeds, by these names."""
    mine = [line for line in found if (line.trace, line.policy) == (trace, policy)]
    if not mine:
        return {}
    first = mine[0]
    by = {
        "steps": [line for line in mine if line.seed == first.seed],
        "seeds": [line for line in mine if line.step_ms == first.step_ms],
    }
    ends = {}
    for name, lines in by.items():
        if len(lines) > 1:
            ordered = sorted(lines, key=lambda line: getattr(line, measure))
            keys = [f"simulated.{trace}.{policy}.{line.label}.{measure}" for line in (ordered[0], ordered[-1])]
            ends[name] = (keys[0], keys[1])
    return ends


def by_step(found: Sequence[ServedTrace], trace: str, policy: str, measure: str) -> dict[str, str]:
    """The quantity of `measure` at each step time, by the time in ms; none where there is one step time."""
    mine = [line for line in found if (line.trace, line.policy, line.seed) == (trace, policy, 0)]
    keys = {
        f"{line.step_ms:g}": f"simulated.{trace}.{policy}.{line.label}.{measure}"
        for line in sorted(mine, key=lambda line: line.step_ms)
    }
    return keys if len(keys) > 1 else {}


def step_of_batch(lines: list[ServedTrace], trace: str, batch: float, file: str, sha256: str) -> Iterator[Quantity]:
    """`simulated.<trace>.paged.step-of-paper-batch`: with which step time the paged pool runs `batch` together."""
    rows = [n for n, line in enumerate(lines, 1) if (line.trace, line.policy, line.seed) == (trace, "paged", 0)]
    points = sorted((lines[n - 1].running, lines[n - 1].step_ms) for n in rows)
    if len(points) < 2:
        return
    running, step_ms = (list(values) for values in zip(*points, strict=True))
    inside = running[0] <= batch <= running[-1]
    yield Quantity(
        id=f"simulated.{trace}.paged.step-of-paper-batch",
        value=float(np.interp(batch, running, step_ms)) if inside else None,
        unit="ms",
        formula=Message("simulated.step-time", {"batch": batch}),
        n=len(points),
        sources=[Source(file, sha256, str(n)) for n in rows],
        why_none=None if inside else Message("simulated.step-time-outside"),
    )
