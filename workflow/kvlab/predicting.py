"""The commands that predict: step times fitted, runs predicted, what fits on a GPU."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from kvlab import config, paths
from kvlab.messages import said
from kvlab.terminal import say


def calibrate(args: argparse.Namespace) -> int:
    """Fit step times on one paged run, predict every other one, and compare: predicted/metrics.json."""
    from kvlab.simulate.forecasts import before

    section = config.load(args.run / "config.json").section("analyse")
    made = before.calibrate(args.run, section, paths.PREDICTIONS / f"{section['run']}.json")
    for guard in made.guards:
        say(f"calibrate: {guard['workload']}: {guard['outcome']}: {said('en', guard['detail'])}")
    say(f"calibrate: {sum(one['status'] == 'predicted' for one in made.runs)} runs predicted, {len(made.runs)} in all")
    return 0


def predict(args: argparse.Namespace) -> int:
    """Write what a run is expected to give, from another run's step times: to be committed before it is measured."""
    from kvlab.publish import prediction_table
    from kvlab.simulate.forecasts import predict as stage
    from kvlab.simulate.forecasts import predictions

    planned = config.load(Path(args.config))
    sections, arms = {}, planned.section("analyse")["arms"]
    for name, part in planned.workloads.items():
        of = getattr(part.arrivals, "of", None)
        rates = {arm: [of(arm, block) for block in range(part.repeats)] if of else [] for arm in part.arms}
        sections[name] = planned.section("workload", name) | {"rates": rates, "arms": arms}
    document = stage.predict_run(
        planned.model_dump(mode="json"), sections, args.calibration, Path("results") / planned.run
    )
    path = args.output or paths.PREDICTIONS / f"{planned.run}.json"
    predictions.write(path, document)
    prediction_table.show(predictions.read(path))
    say(f"predict: {path}; commit it before the run is measured")
    return 0


def plan(args: argparse.Namespace) -> int:
    """Say what fits on a GPU for your lengths: requests together, preemption, waste, paging's gain, and times."""
    from kvlab.publish import plan_page
    from kvlab.records import write_json, write_text
    from kvlab.simulate.planning import demand, memory
    from kvlab.simulate.planning import plan as stage
    from kvlab.simulate.planning.shape import read_shape

    shape = read_shape(args.model)
    slots = memory.slots_of(args, shape)
    longest, draw = demand.drawn(args.lengths, args.max_model_len, shape.longest)
    fitted = demand.calibration_for(args.calibration, shape, args.dtype)
    made = stage.make(
        shape,
        args.dtype,
        slots,
        draw,
        max_model_len=longest,
        block=args.block_size,
        max_num_seqs=args.max_num_seqs,
        seeds=args.seeds,
        rate=args.rate,
        bound_s=args.bound,
        calibration=fitted,
    )
    if args.json:
        write_json(args.json, asdict(made))
    if args.html:
        write_text(args.html, plan_page.page(made, _given(args), args.language))
    sys.stdout.write(plan_page.text(made, args.language))
    return 0


def _given(args: argparse.Namespace) -> dict[str, str]:
    """The options that decide a plan's numbers, as they were given or are by default."""
    pool = ("kv_slots",) if args.kv_slots is not None else ("gpu", "utilisation", "weights", "allowance")
    rest = ("dtype", "lengths", "max_model_len", "block_size", "max_num_seqs", "rate", "bound", "calibration", "seeds")
    given = {name: getattr(args, name) for name in ("model", *pool, *rest)}
    return {f"--{name.replace('_', '-')}": str(value) for name, value in given.items() if value is not None}
