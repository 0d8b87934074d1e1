"""The commands of the measurement: a process's passes, and whether the simulator agrees with their logs."""

from __future__ import annotations

import argparse

from kvlab import paths
from kvlab.commands import loaded
from kvlab.errors import KvlabError


def measure(args: argparse.Namespace) -> int:
    """Measure one block of a process, or of one of its arms, and write the raw logs of its passes: raw/<workload>/."""
    from kvlab.dag.imports import digest_of
    from kvlab.dag.products import process_file
    from kvlab.measure import run as stage
    from kvlab.measure.passes import Planned
    from kvlab.measure.store import Store
    from kvlab.records import cell, digest, write_json

    found, workload = loaded(args.run), args.workload
    if workload not in found.workloads:
        raise KvlabError(f"no workload {workload!r} in {args.run}; it has: {', '.join(found.workloads)}")
    part = found.workloads[workload]
    names = {found.process(arm): arm for arm in reversed(part.arms)} | {arm: arm for arm in part.arms}
    if args.process not in names:
        raise KvlabError(f"{workload} has no process and no arm {args.process!r}; it has: {', '.join(names)}")
    if not 0 <= args.block < part.repeats:
        raise KvlabError(f"block {args.block}: {workload} has blocks 0 to {part.repeats - 1} (repeats)")
    process = found.process(names[args.process]) if args.process in part.arms else args.process
    raw = args.run / "raw" / workload
    cells = [
        Planned(
            section=found.section("measure", workload, arm),
            workload=workload,
            arm=arm,
            repeat=args.block,
            folder=raw / cell(arm, rate) / str(args.block),
            rate=rate,
        )
        for arm, rate in found.passes(workload, process, args.block)
        if args.process in (arm, process)
    ]
    if not cells:
        raise KvlabError(f"{workload} {args.process}: no pass in block {args.block}; arrivals.rates names none for it")
    engine = found.engine(cells[0].arm)
    code = digest_of(paths.PACKAGE, ["measure.run", f"measure.engines.{engine}.driver"])
    stage.measure_process(
        cells,
        name=process,
        requests_file=args.run / "workloads" / f"{workload}.jsonl",
        model=args.run / "model",
        store=Store(args.run / ".passes", code),
    )
    if len(cells) == len(found.passes(workload, process, args.block)):
        logs = [file for one in cells for file in sorted(one.folder.iterdir())]
        made = {"passes": [one.name for one in cells], "files": {str(f.relative_to(args.run)): digest(f) for f in logs}}
        write_json(process_file(args.run, workload, process, args.block), made)
    return 0


def agree(args: argparse.Namespace) -> int:
    """Simulate the policy of each measured run on its own requests, and compare step by step with its log."""
    from kvlab.simulate import agree as stage

    return 1 if stage.show(stage.agree(args.logs)) else 0
