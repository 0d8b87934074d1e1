"""What was predicted before the run, and the grid of other pools, blocks, lengths and rates: files and quantities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kvlab.errors import NotRunnable
from kvlab.quantities import Message, Metrics, Quantity, Source
from kvlab.raw import RawRun
from kvlab.records import cell, digest, read_run, read_text, write_json, write_text
from kvlab.simulate.forecasts.calibration import Calibration, calibrates, fit
from kvlab.simulate.forecasts.forecast import measured
from kvlab.simulate.forecasts.predictions import Cell, read
from kvlab.simulate.forecasts.validation import FOLDER, MEASURES, about, add_median, sources_of, validate
from kvlab.simulate.planning import grid


def calibrate(root: Path, section: dict[str, Any], predictions: Path) -> Metrics:
    """The whole stage: fit, predict every other run, and write predicted/. `section`: that of analyse."""
    which = [*section["raw"], *section.get("open", [])]
    made = validate(root, which, section["run"])
    add_expected(made, root, predictions, which)
    add_grids(made, root, which)
    made.write(root / FOLDER / "metrics.json")
    return made


def add_expected(made: Metrics, root: Path, predictions: Path, which: Sequence[Sequence[Any]] = ()) -> int:
    """Keep the committed `predictions` as predicted/expected.json; `<workload>.<cell>.predicted.before.<name>` of them.

    Of the cells among the raw folders `which`, `….unused.<name>` is what was measured, by the same function, and
    `….off.before.<name>` how far off the prediction of the same block was. How many cells there are; 0 where nothing
    was predicted. LogError where the file is not one of predictions.
    """
    if not predictions.exists():
        return 0
    file = root / FOLDER / "expected.json"
    write_text(file, read_text(predictions))
    source = Source(f"{FOLDER}/expected.json", digest(file), "document")
    made.files[source.file] = source.sha256
    cells: dict[tuple[str, str], list[Cell]] = {}
    predicted = read(predictions)
    for one in predicted.cells:
        cells.setdefault((one.workload, cell(one.arm, one.rate)), []).append(one)
    for (workload, name), every in cells.items():
        key = f"{workload}.{name}"
        for measure, (unit, field, factor) in MEASURES.items():
            values = [v * factor for one in every if (v := getattr(one.expected, field)) is not None]
            if values:
                formula = about("before", measure)
                add_median(made, f"{key}.predicted.before.{measure}", values, unit, formula, [source])
        runs = [RawRun.read(root, workload, name, int(r)) for w, c, r in which if (w, c) == (workload, name)]
        _measured(made, key, every, [raw for raw in runs if raw.completed and raw.served], source)
    rates: dict[str, list[float]] = {}
    for found in predicted.sustained:
        if found.rate is not None:
            rates.setdefault(f"{found.workload}.{found.arm}.predicted.before.sustained", []).append(found.rate)
    for key, values in rates.items():
        add_median(made, key, values, "requests/s", Message("predicted.before-sustained"), [source])
    return len(cells)


def _measured(made: Metrics, key: str, every: Sequence[Cell], runs: Sequence[RawRun], source: Source) -> None:
    """What was measured in the blocks that were predicted beforehand, and how far off the predictions were."""
    expected = {one.block: one.expected for one in every}
    pairs = [(expected[raw.run.repeat], measured(raw)) for raw in runs if raw.run.repeat in expected]
    for measure, (unit, field, factor) in MEASURES.items():
        both = [(a, b) for one, other in pairs if (a := getattr(one, field)) and (b := getattr(other, field))]
        if not both:
            continue
        if made.quantities.get(f"{key}.unused.{measure}") is None:
            seen, formula = [b * factor for _, b in both], about("unused", measure)
            add_median(made, f"{key}.unused.{measure}", seen, unit, formula, sources_of(runs))
        off = [a / b - 1 for a, b in both]
        formula = about("off-before", measure)
        add_median(made, f"{key}.off.before.{measure}", off, "change", formula, [source, *sources_of(runs)])


def add_grids(made: Metrics, root: Path, which: Sequence[Sequence[Any]]) -> None:
    """Write predicted/grid.json, a grid for each workload, and where paging's gain ends: `…predicted.gain-ends`."""
    grids: dict[str, Any] = {}
    for workload, arm, repeat in which:
        folder = root / "raw" / str(workload) / str(arm) / str(repeat)
        if workload in grids or not calibrates(read_run(folder)):
            continue
        raw = RawRun.read(root, str(workload), str(arm), int(repeat))
        if raw.completed and raw.served:
            grids[str(workload)] = grid.make(raw, _fitted(raw))
    file = root / FOLDER / "grid.json"
    write_json(file, {"schema": 1, "workloads": grids})
    source = Source(f"{FOLDER}/grid.json", digest(file), "document")
    for workload, found in grids.items():
        what = Message("gain-ends.throughput" if found["timed"] else "gain-ends.running")
        ends = found["gain_ends_at_pool"]
        text = Message("gain-ends", {"what": what})
        why = None if ends else Message("gain-never-ends", {"slots": found["axes"]["pool"][-1]})
        made.quantities.add(
            Quantity(f"{workload}.predicted.gain-ends", ends, "slots", text, 1 if ends else 0, [source], why_none=why)
        )


def _fitted(raw: RawRun) -> Calibration | None:
    try:
        return fit(raw)
    except NotRunnable:
        return None
