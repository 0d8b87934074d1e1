"""What was predicted before the run, and the grid of other pools, blocks, lengths and rates: files and quantities."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kvlab.errors import NotRunnable
from kvlab.quantities import Metrics, Quantity, Source
from kvlab.raw import RawRun
from kvlab.records import cell, digest, read_text, write_json, write_text
from kvlab.simulate.forecasts.calibration import CALIBRATES, Calibration, fit
from kvlab.simulate.forecasts.predictions import Cell, read
from kvlab.simulate.forecasts.validation import FOLDER, MEASURES, validate
from kvlab.simulate.planning import grid


def calibrate(root: Path, section: dict[str, Any], predictions: Path) -> Metrics:
    """The whole stage: fit, predict every other run, and write predicted/. `section`: that of analyse."""
    which = [*section["raw"], *section.get("open", [])]
    made = validate(root, which, section["run"])
    add_expected(made, root, predictions)
    add_grids(made, root, which)
    made.write(root / FOLDER / "metrics.json")
    return made


def add_expected(made: Metrics, root: Path, predictions: Path) -> int:
    """Keep the committed `predictions` as predicted/expected.json; `<workload>.<cell>.predicted.before.<name>` of them.

    How many cells there are; 0 where nothing was predicted. LogError where the file is not one of predictions.
    """
    if not predictions.exists():
        return 0
    file = root / FOLDER / "expected.json"
    write_text(file, read_text(predictions))
    source = Source(f"{FOLDER}/expected.json", digest(file), "document")
    made.files[source.file] = source.sha256
    cells: dict[tuple[str, str], list[Cell]] = {}
    for one in read(predictions).cells:
        cells.setdefault((one.workload, cell(one.arm, one.rate)), []).append(one)
    for (workload, name), every in cells.items():
        for measure, (unit, field, factor, formula) in MEASURES.items():
            values = [v * factor for one in every if (v := getattr(one.expected, field)) is not None]
            if values:
                text = f"predicted and committed before the run: {formula}; median of {len(values)} blocks"
                key = f"{workload}.{name}.predicted.before.{measure}"
                value = statistics.median(values)
                made.quantities.add(Quantity(key, value, unit, text, len(values), [source], samples=values))
    return len(cells)


def add_grids(made: Metrics, root: Path, which: Sequence[Sequence[Any]]) -> None:
    """Write predicted/grid.json, a grid for each workload, and where paging's gain ends: `…predicted.gain-ends`."""
    grids: dict[str, Any] = {}
    for workload, arm, repeat in which:
        if arm != CALIBRATES or workload in grids:
            continue
        raw = RawRun.read(root, str(workload), str(arm), int(repeat))
        if raw.completed and raw.served:
            grids[str(workload)] = grid.make(raw, _fitted(raw))
    file = root / FOLDER / "grid.json"
    write_json(file, {"schema": 1, "workloads": grids})
    source = Source(f"{FOLDER}/grid.json", digest(file), "document")
    for workload, found in grids.items():
        what = "throughput" if found["timed"] else "requests together"
        ends = found["gain_ends_at_pool"]
        text = f"smallest simulated pool in which paging's gain in {what} over the maximum length reserved is below 2 %"
        why = None if ends else f"paging gains at every pool up to {found['axes']['pool'][-1]} slots"
        made.quantities.add(
            Quantity(f"{workload}.predicted.gain-ends", ends, "slots", text, 1 if ends else 0, [source], why_none=why)
        )


def _fitted(raw: RawRun) -> Calibration | None:
    try:
        return fit(raw)
    except NotRunnable:
        return None
