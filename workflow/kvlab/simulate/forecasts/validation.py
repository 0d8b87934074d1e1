"""The check of the predictor, in every run: step times from one paged run, every other run predicted and compared.

`predicted/metrics.json`, for each workload:

* `<workload>.calibration.*`: the coefficients and how well they fit;
* `<workload>.<cell>.predicted.<name>`, `.unused.<name>` (measured, by the same function, in the repeats that the fit
  did not use), `.off.<name>` (predicted ÷ measured − 1), `.spread.<name>` (how far the repeats themselves lie apart);
* `<workload>.predicted.worst.<name>`: the largest error of all, which the claims hold.

A cell is an arm, or `arm@rate`. `runs` says of each raw folder whether it was fitted, predicted or not, and why.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvlab.errors import KvlabError, NotRunnable
from kvlab.messages import Message, several
from kvlab.quantities import Metrics, Quantities, Quantity, Source
from kvlab.raw import RawRun
from kvlab.simulate.forecasts.calibration import BUSY, Calibration, calibrates, engine_of, fit, policy_of, utilisation
from kvlab.simulate.forecasts.forecast import Outcome, forecast_of, measured

FOLDER = "predicted"
FILES = ("run.json", "steps.jsonl", "requests.jsonl", "device.jsonl")
OUTSIDE = 0.10  # part of the time outside what was calibrated from which a prediction is not held to the claims

# name -> (unit, field of Outcome, factor); what it is stands in the strings, under `said.outcome.<name>`
MEASURES: dict[str, tuple[str, str, float]] = {
    "throughput": ("tokens/s", "throughput", 1),
    "running": ("requests", "running", 1),
    "running-queued": ("requests", "running_queued", 1),
    "ttft": ("s", "ttft_median", 1),
    "tpot": ("ms", "tpot_median", 1000),
    "latency": ("s", "latency_mean", 1),
    "latency-p95": ("s", "latency_p95", 1),
    "per-token": ("ms", "per_token_mean", 1000),
}
CLAIMED = ("throughput", "latency")


def about(kind: str, name: str, **values: Any) -> Message:
    """The formula `predicted.<kind>` of a measure."""
    return Message(f"predicted.{kind}", values | {"what": Message(f"outcome.{name}")})


def _worst(workload: str, name: str) -> str:
    return f"{workload}.predicted.worst.{name}"


@dataclass(frozen=True)
class Compared:
    """One raw folder that the fit did not use, predicted and measured."""

    raw: RawRun
    expected: Outcome
    seen: Outcome


def validate(root: Path, which: Sequence[Sequence[Any]], name: str) -> Metrics:
    """Fit, predict and compare the raw folders `which`: [workload, cell, repeat] each."""
    made = Metrics(run=name, quantities=Quantities())
    every: dict[str, list[RawRun]] = {}
    for workload, cell, repeat in which:
        every.setdefault(str(workload), []).append(RawRun.read(root, str(workload), str(cell), int(repeat)))
    for runs in every.values():
        for raw in runs:
            made.files |= {raw.source(file).file: raw.digests[file] for file in FILES}
    refused: dict[str, list[Message]] = {}
    fits = {w: found for w, runs in every.items() if (found := _first_fit(runs, refused.setdefault(w, [])))}
    for workload, runs in every.items():
        # Requests that arrive over time give no fit of their own; step times are the engine's, whatever it serves.
        found = fits.get(workload) or next(iter(fits.values()), None)
        if found is None:
            _undecided(made, workload, refused[workload])
            continue
        _coefficients(made, workload, *found)
        _compare(made, workload, *found, runs)
    return made


def _first_fit(runs: Sequence[RawRun], refused: list[Message]) -> tuple[Calibration, RawRun] | None:
    """The first paged run with a full queue that gives step times; why the others do not is added to `refused`."""
    for raw in runs:
        if not calibrates(raw.run):
            continue
        try:
            return fit(raw), raw
        except NotRunnable as error:
            refused.append(error.why)
    return None


def _undecided(made: Metrics, workload: str, refused: Sequence[Message]) -> None:
    why = refused[0] if refused else Message("no-step-times.no-closed-run")
    made.guards.append({"workload": workload, "id": "calibration", "outcome": "not decided", "detail": why})
    for name in CLAIMED if refused else ():
        made.quantities.add(Quantity(_worst(workload, name), None, "share", about("worst", name), 0, [], why_none=why))


def _coefficients(made: Metrics, workload: str, fitted: Calibration, raw: RawRun) -> None:
    sources = [raw.source(file) for file in FILES]
    times = fitted.step_times
    for name, value, unit in (
        ("base", times.base_s * 1e3, "ms"),
        ("per-row", times.per_row_s * 1e6, "us"),
        ("per-kv-token", times.per_kv_token_s * 1e6, "us"),
        ("per-prefill-token", times.per_prefill_token_s * 1e6, "us"),
        ("fit", fitted.r2, "share"),
        ("error", fitted.error, "share"),
        ("seconds", fitted.seconds, "s"),
    ):
        of = {"windows": fitted.windows, "run": raw.name, "what": Message(f"calibration.{name}")}
        formula = Message("predicted.fit", of)
        made.quantities.add(Quantity(f"{workload}.calibration.{name}", value, unit, formula, 1, sources))
    seen = {"r2": f"{fitted.r2:.3f}", "windows": fitted.windows, "s": f"{fitted.seconds:.1f}"}
    detail = Message("fitted-on", {"run": raw.name} | seen)
    made.guards.append({"workload": workload, "id": "calibration", "outcome": "pass", "detail": detail})


def _compare(made: Metrics, workload: str, fitted: Calibration, used: RawRun, runs: Sequence[RawRun]) -> None:
    cells: dict[str, list[Compared]] = {}
    for raw in runs:
        cell = raw.folder.parent.name
        entry = {"workload": workload, "arm": cell, "repeat": raw.run.repeat, "reason": None}
        if raw is used:
            made.runs.append(entry | {"status": "fitted"})
            continue
        try:
            one = compare(fitted, used, raw)
        except KvlabError as error:
            made.runs.append(entry | {"status": "not predicted", "reason": error.why})
            continue
        made.runs.append(entry | {"status": "predicted"})
        cells.setdefault(cell, []).append(one)
    for cell, every in cells.items():
        for name in MEASURES:
            _cell(made, f"{workload}.{cell}", name, every, used)
    for name in CLAIMED:
        errors = [abs(e) for every in cells.values() for one in every if (e := _off(one, name)) is not None]
        if errors:
            made.quantities.add(
                Quantity(
                    id=_worst(workload, name),
                    value=max(errors),
                    unit="share",
                    formula=about("worst", name),
                    n=len(errors),
                    sources=sources_of([used, *(one.raw for every in cells.values() for one in every)]),
                )
            )


def compare(fitted: Calibration, used: RawRun, raw: RawRun) -> Compared:
    """Predict one run from another's step times. NotRunnable says why they don't hold for it."""
    if not raw.completed:
        why = raw.reason or Message("no-reason")
        raise NotRunnable(Message("not-predicted.status", {"status": raw.run.status, "why": why}))
    policy = policy_of(raw.run)
    theirs, ours = engine_of(raw), fitted.engine
    if theirs["name"] != ours["name"]:
        raise NotRunnable(Message("not-predicted.engine", {"engine": str(theirs["name"]), "run": used.name}))
    different = [
        Message("other-than", {"name": key, "found": str(theirs[key]), "fitted": str(ours[key])})
        for key in ours
        if theirs[key] != ours[key]
    ]
    if raw.run.model_fingerprint != fitted.model:
        different.append(Message("other-model"))
    if policy is None:
        different.append(Message("no-policy"))
    if different or policy is None:
        raise NotRunnable(Message("not-predicted.differs", {"run": used.name, "what": several(different)}))
    busy = utilisation(raw)
    if busy is not None and busy < BUSY:
        raise NotRunnable(Message("not-predicted.host", {"busy": f"{busy:.0%}"}))
    most = max((step.running for step in raw.steps), default=0)
    graph = largest_graph(raw.run.max_num_seqs, raw.run.engine.get("cuda_graph_sizes"))
    if graph is not None and most > graph:
        sizes = {"rows": most, "graph": graph, "max_num_seqs": raw.run.max_num_seqs}
        raise NotRunnable(Message("not-predicted.graph", sizes))
    expected = forecast_of(raw, fitted, policy)
    if expected.outside is not None and expected.outside > OUTSIDE:
        outside = {"outside": f"{expected.outside:.0%}", "run": used.name}
        raise NotRunnable(Message("not-predicted.outside", outside))
    return Compared(raw, expected, measured(raw))


def largest_graph(max_num_seqs: int | None, sizes: Sequence[int] | None) -> int | None:
    """Rows up to which vLLM has a full CUDA graph: the largest size it captures that `max_num_seqs` does not cut off.

    Its own rule where a run did not log its `sizes` (vllm/config/vllm.py, 0.26.0): 1, 2, 4, eights up to 256, sixteens
    up to min(2 · max_num_seqs, 512).
    """
    if max_num_seqs is None:
        return None
    most = min(2 * max_num_seqs, 512)
    every = sizes or [size for size in (1, 2, 4, *range(8, 256, 8), *range(256, 513, 16)) if size <= most]
    return max((size for size in every if size <= max_num_seqs), default=0)


def _cell(made: Metrics, key: str, name: str, every: Sequence[Compared], used: RawRun) -> None:
    unit, field, factor = MEASURES[name]
    expected = [v * factor for one in every if (v := getattr(one.expected, field)) is not None]
    seen = [v * factor for one in every if (v := getattr(one.seen, field)) is not None]
    if len(expected) < len(every) or len(seen) < len(every):
        return
    runs = [one.raw for one in every]
    off = [_off(one, name) or 0.0 for one in every]
    for suffix, values, kind, formula, sources in (
        ("predicted", expected, unit, about("of", name, run=used.name), [used, *runs]),
        ("unused", seen, unit, about("unused", name), runs),
        ("off", off, "change", about("off", name), [used, *runs]),
    ):
        add_median(made, f"{key}.{suffix}.{name}", values, kind, formula, sources_of(sources))
    if len(seen) > 1:
        spread = (max(seen) - min(seen)) / statistics.median(seen)
        formula = about("spread", name, n=len(seen))
        made.quantities.add(Quantity(f"{key}.spread.{name}", spread, "share", formula, len(seen), sources_of(runs)))


def add_median(
    made: Metrics, key: str, values: Sequence[float], unit: str, formula: Message, sources: list[Source]
) -> None:
    """A quantity with one value a repeat, in order."""
    middle = statistics.median(values)
    made.quantities.add(Quantity(key, middle, unit, formula, len(values), sources, samples=list(values)))


def _off(one: Compared, name: str) -> float | None:
    field = MEASURES[name][1]
    expected, seen = getattr(one.expected, field), getattr(one.seen, field)
    return None if expected is None or not seen else expected / seen - 1


def sources_of(runs: Sequence[RawRun]) -> list[Source]:
    """The logs of the runs that a prediction is made from or compared with."""
    return list(
        dict.fromkeys(raw.source(file) for raw in runs for file in ("requests.jsonl", "steps.jsonl", "run.json"))
    )
