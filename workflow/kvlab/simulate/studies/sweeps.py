"""Studies that vary one setting: block size, pool, spread of outputs, load, shape of lengths, sharing.

A study is a list of cases that differ in one setting; every simulated case is a line of `studies.jsonl`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from kvlab.accounting import SHARES
from kvlab.quantities import Message, Quantity, Source
from kvlab.simulate.studies.cases import POLICIES, Case

MEASURES = (*SHARES, "running", "finished", "saved")


@dataclass(frozen=True)
class Point:
    """One simulated case: a line of `studies.jsonl`.

    `x` is what the study varies, `label` its name. Means over the iterations after the warm-up: the shares of the
    pool, 0 to 1; `running`, requests; `finished`, requests an iteration; `saved`, slots that sharing saved ÷ slots
    without it, None where nothing is shared.
    """

    study: str
    workload: str
    policy: str
    label: str
    x: float
    seed: int
    iterations: int
    tokens: float
    reserved: float
    internal: float
    external: float
    running: float
    finished: float
    saved: float | None = None


def measure(case: Case, study: str, workload: str, label: str, x: float) -> Point:
    """Simulate one case and take its means."""
    timeline = case.run()
    accounting = case.accounting(timeline, workload)
    done = sum(stay.end == "finished" and stay.stop > case.warmup for stay in timeline.stays)
    saved = None
    if dict(case.sharing).get("samples", 1) > 1:
        held, alone = timeline.unshared_slots(case.allocator(), dict(case.sharing)["samples"], case.warmup)
        saved = 1 - held / alone
    return Point(
        study=study,
        workload=workload,
        policy=case.policy,
        label=label,
        x=x,
        seed=case.seed,
        iterations=len(accounting),
        **{name: accounting.mean_share(name) for name in SHARES},
        running=accounting.mean("running"),
        finished=done / len(accounting),
        saved=saved,
    )


def run(section: dict[str, Any], base: Case) -> Iterator[Point]:
    """All studies of the configuration, in a fixed order. `base` holds what a study does not vary."""
    settings = section["studies"]
    base = replace(base, iterations=settings["iterations"], warmup=settings["warmup_iterations"])
    workloads = section["workloads"]

    def seeds(case: Case, study: str, workload: str, label: str, x: float) -> Iterator[Point]:
        own = workloads[workload]
        case = replace(case, drawn_from=case.drawn_from or own["lengths"])
        if own["iterations"] is not None:
            case = replace(case, iterations=case.iterations * own["iterations"] // section["iterations"])
        for seed in range(settings["seeds"]):
            yield measure(replace(case, seed=base.seed + seed), study, workload, label, x)

    for workload in settings["block_size"]["workloads"]:
        for block in settings["block_size"]["sizes"]:
            case = replace(base, policy="paged", block=block)
            yield from seeds(case, "block-size", workload, str(block), block)
    for policy in POLICIES:
        for pool in settings["pool"]["slots"]:
            case = replace(base, policy=policy, pool=pool, max_running=settings["pool"]["max_running"])
            yield from seeds(case, "pool", settings["pool"]["workload"], str(pool), pool)
    for policy in POLICIES:
        for spread in settings["output_cv"]["values"]:
            lengths = workloads[settings["output_cv"]["workload"]]["lengths"] | {"output_cv": spread}
            case = replace(base, policy=policy, drawn_from=lengths)
            yield from seeds(case, "output-cv", settings["output_cv"]["workload"], f"{spread:g}", spread)
    yield from _loads(settings["load"], base, seeds)
    yield from _shapes(settings["shapes"], base, workloads, seeds)
    for workload in settings["sharing"]["workloads"]:
        for samples in settings["sharing"]["samples"]:
            case = replace(base, policy="paged", sharing=(("samples", samples),), iterations=2 * base.iterations)
            yield from seeds(case, "sharing", workload, f"n{samples}", samples)
    for prefix in settings["prefix"]["tokens"]:
        for share in (False, True):
            # Not shared: each prompt holds the prefix itself; the lengths are the same.
            held = (("prefix", prefix),) if share else ()
            lengths = workloads[settings["prefix"]["workload"]]["lengths"]
            case = replace(base, policy="paged", sharing=held, drawn_from=lengths, prompt_extra=0 if share else prefix)
            label = f"{prefix}-{'shared' if share else 'apart'}"
            yield from seeds(case, "prefix", settings["prefix"]["workload"], label, prefix)


def _loads(settings: dict[str, Any], base: Case, seeds: Any) -> Iterator[Point]:
    """Offered load, as a part of what the paged pool serves when its queue is always full; label "full" is that."""
    paged = replace(base, policy="paged", iterations=2 * base.iterations)
    full = list(seeds(paged, "load", settings["workload"], "full", 1.0))
    yield from full
    served = sum(point.finished for point in full) / len(full)
    for load in settings["values"]:
        case = replace(paged, load=load * served)
        yield from seeds(case, "load", settings["workload"], f"{load:g}", load)


def _shapes(settings: dict[str, Any], base: Case, workloads: dict[str, Any], seeds: Any) -> Iterator[Point]:
    """Other families and spreads of lengths with the same means: how much of a match is their choice."""
    for policy in POLICIES:
        for family in settings["output_families"]:
            for prompt_cv in settings["prompt_cv"]:
                for output_cv in settings["output_cv"]:
                    shape = {"output_family": family, "prompt_cv": prompt_cv, "output_cv": output_cv}
                    lengths = workloads[settings["workload"]]["lengths"] | shape
                    case = replace(base, policy=policy, drawn_from=lengths)
                    label = f"{family}-{prompt_cv:g}-{output_cv:g}"
                    yield from seeds(case, "shapes", settings["workload"], label, output_cv)


UNITS = dict.fromkeys(SHARES, "share") | {"running": "requests", "finished": "count", "saved": "share"}


def quantities(points: list[Point], file: str, sha256: str) -> Iterator[Quantity]:
    """`simulated.<study>.<workload>.<policy>.<label>.<measure>`: the mean of the seeds' lines."""
    numbered = enumerate(points, start=1)
    for key, group in groupby(numbered, key=lambda one: (one[1].study, one[1].workload, one[1].policy, one[1].label)):
        lines = list(group)
        source = Source(file, sha256, f"{lines[0][0]}-{lines[-1][0]}")
        for name in MEASURES:
            samples = [getattr(point, name) for _, point in lines]
            if None in samples:
                continue
            yield Quantity(
                id=".".join(("simulated", *key, name)),
                value=sum(samples) / len(samples),
                unit=UNITS[name],
                formula=Message("simulated.seeds", {"what": Message(f"simulated.mean.{name}"), "n": len(samples)}),
                n=len(samples),
                sources=[source],
                samples=samples,
            )
