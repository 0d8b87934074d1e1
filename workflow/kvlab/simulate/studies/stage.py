"""The stage that needs no engine: simulate what each allocator holds, log it, and take quantities from the logs.

    simulated/<workload>/<policy>/<seed>/
        run.json
        stays.jsonl                 nothing is left out: every iteration's record can be rebuilt
        steps.jsonl                 of the first seed: every so-many-th iteration, as engines log it
    simulated/studies.jsonl         a line a simulated case of a study
    simulated/traces.jsonl          a line a simulated case of the authors' requests
    simulated/table1.jsonl          a line a model
    simulated/metrics.json  claims.json

`simulate` writes the logs; `quantities` reads them back, so a number's trail ends in a file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kvlab.accounting import SHARES
from kvlab.errors import LogError
from kvlab.quantities import Message, Metrics, Quantities, Quantity, Source
from kvlab.records import digest, read_lines, read_run, read_text, write_json, write_lines
from kvlab.simulate.studies import paper_values, sweeps, traces
from kvlab.simulate.studies.cases import POLICIES, Case
from kvlab.simulate.timeline import Stay, rebuild

FOLDER = "simulated"
TRACES = "traces.jsonl"
THINNED = 200  # iterations of steps.jsonl
_MEASURES = (*SHARES, "rounding", "running", "efficiency")


def simulate(section: dict[str, Any], root: Path) -> Metrics:
    """Run the simulations of `section` and write everything under `root`/simulated. The same section, the same bytes.

    KvlabError where a setting can't be simulated (a request larger than the pool, block size 0 …).
    """
    folder = root / FOLDER
    paper_values.write_table1(folder / "table1.jsonl")
    base = base_case(section)
    for workload, settings in section["workloads"].items():
        for policy in POLICIES:
            for seed in range(section["seeds"]):
                _simulate_case(workload, case_of(section, settings, policy, base.seed + seed), folder, seed == 0)
    if section.get("studies"):
        write_lines(folder / "studies.jsonl", sweeps.run(section, base))
    if section["traces"]:
        write_lines(folder / TRACES, traces.run(section["traces"], base))
    metrics = quantities(section, root)
    metrics.write(folder / "metrics.json")
    verdicts = paper_values.judge(metrics.quantities, section, read_traces(root) if section["traces"] else ())
    write_json(folder / "claims.json", [asdict(verdict) for verdict in verdicts])
    return metrics


def base_case(section: dict[str, Any]) -> Case:
    """What all cases of a configuration share."""
    pool = section["pool_slots"]
    return Case(
        policy="paged",
        drawn_from={},
        seed=section["seed"],
        pool=paper_values.slots(paper_values.read()["models"]["opt-13b"]) if pool is None else pool,
        max_len=section["max_model_len"],
        iterations=section["iterations"],
        warmup=section["warmup_iterations"],
        block=section["block_size"],
        watermark=section["watermark"],
    )


def case_of(section: dict[str, Any], settings: dict[str, Any], policy: str, seed: int) -> Case:
    """One policy on one workload of the configuration."""
    shared = asdict(base_case(section)) | {"policy": policy, "seed": seed, "drawn_from": settings["lengths"]}
    return Case(**shared | {"iterations": settings["iterations"] or section["iterations"]})


def _simulate_case(workload: str, case: Case, folder: Path, steps: bool) -> None:
    place = folder / workload / case.policy / str(case.seed)
    timeline, allocator = case.run(), case.allocator()
    record = case.record(workload)
    record.settings |= {"case": asdict(case), "requests": int(timeline.waiting[0] + timeline.running[0])}
    write_lines(place / "stays.jsonl", timeline.stays)
    if steps:
        write_lines(place / "steps.jsonl", timeline.steps(allocator, max(1, len(timeline) // THINNED)))
    write_json(place / "run.json", asdict(record))


@dataclass(frozen=True)
class SimulatedLogs:
    """One simulated case as it was logged."""

    means: dict[str, float]
    iterations: int
    sources: list[Source]

    @classmethod
    def read(cls, root: Path, workload: str, policy: str, seed: int) -> SimulatedLogs:
        """LogError names the file that is missing or not what the records say."""
        place = root / FOLDER / workload / policy / str(seed)
        record = read_run(place)
        try:
            case = Case(**record.settings["case"] | {"sharing": ()})
            stays = read_lines(place / "stays.jsonl", Stay)
            timeline = rebuild(stays, case.allocator(), record.settings["requests"], case.iterations)
            found = case.accounting(timeline, workload)
        except (KeyError, TypeError) as error:
            raise LogError(f"{place}/run.json: not the record of a simulation ({error})") from None
        except LogError as error:
            raise LogError(f"{place}: {error}") from None
        means = {name: found.mean_share(name) for name in (*SHARES, "rounding")}
        means |= {"running": found.mean("running"), "efficiency": found.efficiency() or 0.0}
        inside = place.relative_to(root).as_posix()
        sources = [
            Source(f"{inside}/{name}", digest(place / name), rows)
            for name, rows in (("run.json", "document"), ("stays.jsonl", "all"))
        ]
        return cls(means, len(found), sources)


def quantities(section: dict[str, Any], root: Path) -> Metrics:
    """All quantities of the simulation in `root`, from its logs alone; the same logs give the same metrics.

    `simulated.<workload>.<policy>.<name>`, `simulated.table1.…`, and those of the studies. LogError names the file
    that is missing or changed in form.
    """
    metrics = Metrics(run=root.name, quantities=paper_values.table1_quantities(root / FOLDER / "table1.jsonl", root))
    for workload in section["workloads"]:
        seeds = range(section["seed"], section["seed"] + section["seeds"])
        logs = {policy: [SimulatedLogs.read(root, workload, policy, seed) for seed in seeds] for policy in POLICIES}
        for policy, every in logs.items():
            for quantity in _of_policy(f"simulated.{workload}.{policy}", every):
                metrics.quantities.add(quantity)
        for other in POLICIES[:-1]:
            pairs = list(zip(logs["paged"], logs[other], strict=True))
            metrics.quantities.add(
                _mean(
                    f"simulated.{workload}.paged-over-{other}.running",
                    [one.means["running"] / two.means["running"] for one, two in pairs],
                    "ratio",
                    Message("simulated.together-ratio", {"other": other}),
                    [source for pair in pairs for log in pair for source in log.sources],
                )
            )
    file = root / FOLDER / "studies.jsonl"
    if section.get("studies"):
        points = read_lines(file, sweeps.Point)
        for quantity in sweeps.quantities(points, file.relative_to(root).as_posix(), digest(file)):
            metrics.quantities.add(quantity)
        for quantity in paper_values.load_quantities(metrics.quantities, points):
            metrics.quantities.add(quantity)
    if section["traces"] and (lines := read_traces(root)):
        where = (f"{FOLDER}/{TRACES}", digest(root / FOLDER / TRACES))
        batch = traces.step_of_batch(lines, "fig13a", paper_values.paper_batch(), *where)
        for quantity in (*traces.quantities(lines, *where), *batch):
            metrics.quantities.add(quantity)
    for quantity in metrics.quantities:
        metrics.files |= {source.file: source.sha256 for source in quantity.sources}
    return metrics


def read_traces(root: Path) -> list[traces.ServedTrace]:
    """The lines of `traces.jsonl`; none where the run has no traces."""
    file = root / FOLDER / TRACES
    return read_lines(file, traces.ServedTrace) if file.exists() else []


def _of_policy(key: str, every: list[SimulatedLogs]) -> Iterator[Quantity]:
    for name in _MEASURES:
        unit = "requests" if name == "running" else "share"
        sources = [source for one in every for source in one.sources]
        what = {"what": Message(f"simulated.mean.{name}"), "iterations": every[0].iterations}
        text = Message("simulated.iterations", what)
        yield _mean(f"{key}.{name}", [one.means[name] for one in every], unit, text, sources)


def _mean(key: str, samples: list[float], unit: str, formula: Message, sources: list[Source]) -> Quantity:
    return Quantity(
        id=key,
        value=sum(samples) / len(samples),
        unit=unit,
        formula=Message("simulated.seeds", {"what": formula, "n": len(samples)}),
        n=len(samples),
        sources=sources,
        samples=samples,
    )


def read_quantities(root: Path) -> Quantities:
    """The quantities of a simulated run."""
    return Metrics.read(root / FOLDER / "metrics.json").quantities


def read_claims(root: Path) -> list[paper_values.Verdict]:
    """`claims.json` of a simulated run."""
    path = root / FOLDER / "claims.json"
    try:
        return [paper_values.Verdict(**one) for one in json.loads(read_text(path))]
    except (TypeError, ValueError) as error:
        raise LogError(f"{path}: not a list of verdicts ({error}); make it again with: kvlab simulate") from None
