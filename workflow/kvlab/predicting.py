"""The commands that say what was not measured: step times fitted, runs predicted, a GPU planned."""

from __future__ import annotations

import argparse
from pathlib import Path

from kvlab import config, paths
from kvlab.terminal import say


def calibrate(args: argparse.Namespace) -> int:
    """Fit step times on one paged run, predict every other one, and compare: predicted/metrics.json."""
    from kvlab.simulate.forecasts import validation as stage

    section = config.load(args.run / "config.json").section("analyse")
    made = stage.validate(args.run, [*section["raw"], *section.get("open", [])], section["run"])
    made.write(args.run / stage.FOLDER / "metrics.json")
    for guard in made.guards:
        say(f"calibrate: {guard['workload']}: {guard['outcome']}: {guard['detail']}")
    say(f"calibrate: {sum(one['status'] == 'predicted' for one in made.runs)} runs predicted, {len(made.runs)} in all")
    return 0


def predict(args: argparse.Namespace) -> int:
    """Write what a run is expected to give, from another run's step times: to be committed before it is measured."""
    from kvlab.publish import prediction_table
    from kvlab.simulate.forecasts import predict as stage
    from kvlab.simulate.forecasts import predictions

    planned = config.load(Path(args.config))
    sections = {}
    for name, part in planned.workloads.items():
        of = getattr(part.arrivals, "of", None)
        rates = {arm: [of(arm, block) for block in range(part.repeats)] if of else [] for arm in part.arms}
        sections[name] = planned.section("workload", name) | {"rates": rates}
    document = stage.predict_run(
        planned.model_dump(mode="json"), sections, args.calibration, Path("results") / planned.run
    )
    path = args.output or paths.ROOT / "config" / "predictions" / f"{planned.run}.json"
    predictions.write(path, document)
    prediction_table.show(predictions.read(path))
    say(f"predict: {path}; commit it before the run is measured")
    return 0
