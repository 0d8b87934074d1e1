"""Raw logs become quantities: `metrics.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kvlab.analyse.arm_quantities import describe_arm
from kvlab.analyse.bounds import StoppedRun
from kvlab.analyse.guards import check_open, check_workload, host_bound, run_disturbances, run_faults
from kvlab.analyse.ladder import compare_arms
from kvlab.analyse.open_loop import OpenCell, describe_open_loop, on_time
from kvlab.analyse.sheet import Sheet
from kvlab.analyse.statistics import Observed, Settings, classify, median
from kvlab.analyse.steps import time_full
from kvlab.errors import KvlabError
from kvlab.messages import Message, several
from kvlab.quantities import Metrics
from kvlab.raw import RawRun
from kvlab.records import read_json
from kvlab.roles import PAGING
from kvlab.simulate.counterfactual import agreement, quantities


def analyse(section: dict[str, Any], root: Path) -> Metrics:
    """All quantities of the run in `root`, from its raw logs alone. The same logs give the same metrics.

    `section`: `raw`, the [workload, arm, repeat] to read; `analysis`, the settings of the statistics; `arms`, role,
    label, colour … of each arm; `run`, the name.
    Raises LogError naming the file that is missing, changed in form, or contradicts itself in form.
    """
    everything = [RawRun.read(root, *which) for which in section["raw"]]
    sheet = Sheet(Settings(**section["analysis"]))
    metrics = Metrics(run=section["run"], quantities=sheet.quantities, facts=_facts(everything, root))
    metrics.facts["arms"] = section["arms"]
    for run in everything:
        for name, sha256 in run.digests.items():
            metrics.files[run.source(name).file] = sha256
    for workload in dict.fromkeys(run.run.workload for run in everything):
        arms: dict[str, list[RawRun]] = {}
        for run in everything:
            if run.run.workload == workload:
                arms.setdefault(run.run.arm, []).append(run)
        counted: dict[str, list[RawRun]] = {}
        timed: dict[str, list[RawRun]] = {}  # with the runs that were stopped
        for arm, repeats in arms.items():
            entries, kept, stopped = _judge(repeats)
            metrics.runs += entries
            if kept:
                counted[arm] = kept
            if kept or stopped:
                timed[arm] = kept + stopped
                describe_arm(sheet, f"{workload}.{arm}", timed[arm])
        sheet.planned_arms[workload] = list(arms)
        compare_arms(sheet, workload, counted, timed, metrics.roles)
        asked = next((run.run.kv_slots_asked for repeats in counted.values() for run in repeats), None)
        metrics.guards += check_workload(sheet, workload, counted, metrics.roles, asked)
        if paged := metrics.roles.first(PAGING, counted):
            run = counted[paged][0]
            for quantity in quantities(run, f"{workload}.{paged}"):
                sheet.quantities.add(quantity)
            metrics.guards.append(_simulation_guard(run))
    _open_loops(section.get("open", []), root, sheet, metrics)
    return metrics


def _open_loops(which: list[Any], root: Path, sheet: Sheet, metrics: Metrics) -> None:
    """What arrives over time: `which` has the [workload, arm@rate, block] of each cell."""
    everything = [RawRun.read(root, *one) for one in which]
    for run in everything:
        for name, sha256 in run.digests.items():
            metrics.files[run.source(name).file] = sha256
    loops: dict[str, dict[str, list[Any]]] = {}
    for (workload, cell, _), run in zip(which, everything, strict=True):
        loops.setdefault(workload, {}).setdefault(cell, []).append(run)
    for workload, named in loops.items():
        counted = {}
        for cell, blocks in named.items():
            entries, kept, _ = _judge(blocks)
            metrics.runs += [entry | {"arm": cell} for entry in entries]
            if kept:
                counted[cell] = [OpenCell.of_run(run) for run in kept]
        describe_open_loop(sheet, workload, counted, metrics.roles)
        first = next((cells[0] for cells in counted.values()), None)
        flat = [cell for cells in counted.values() for cell in cells]
        metrics.guards += check_open(workload, flat, first.run.kv_slots_asked if first else None)
        metrics.guards.append({"workload": workload} | on_time(flat))
        metrics.facts.setdefault("open", {})[workload] = {
            "cells": list(named),
            "arrivals": first.plan if first else {},
            "kv_slots": first.run.kv_slots_asked if first else None,
            "max_model_len": first.run.max_model_len if first else None,
        }


def _simulation_guard(run: RawRun) -> dict[str, Any]:
    """Whether the simulator's paged allocator holds what the engine held for the run's requests."""
    guard = {"workload": run.run.workload, "id": "simulation", "outcome": "not decided"}
    try:
        found = agreement(run)
    except KvlabError as error:
        return guard | {"detail": error.why}
    if found.difference is None:
        return guard | {"outcome": "pass", "detail": Message("simulation-agrees", {"n": found.equal})}
    return guard | {"outcome": "fail", "detail": Message("simulation-differs", {"what": found.difference})}


def _judge(repeats: list[RawRun]) -> tuple[list[dict[str, Any]], list[RawRun], list[RawRun]]:
    """Each repeat's class and reason; those that count; those that were stopped, and give bounds."""
    stopped = [StoppedRun.of_run(run) for run in repeats if run.run.status == "stopped"]
    faults = {run.run.repeat: run_faults(run) for run in [*(r for r in repeats if r.completed), *stopped]}
    sound = [run for run in repeats if run.completed and faults[run.run.repeat] == []]
    bounding: list[RawRun] = [run for run in stopped if faults[run.run.repeat] == []]
    middle = median([run.throughput for run in sound]) if sound else 0.0
    entries = []
    for run in repeats:
        entry = {"workload": run.run.workload, "arm": run.run.arm, "repeat": run.run.repeat, "status": run.run.status}
        if not run.completed:
            reason = run.reason or Message("no-reason")
            if run.run.status == "stopped":
                reason = several(faults[run.run.repeat]) if faults[run.run.repeat] else _stopped(run)
            entries.append(entry | {"validity": run.run.status, "reason": reason, "host_bound": None})
            continue
        sane = run in sound
        observed = Observed(
            faults[run.run.repeat],
            run_disturbances(run),
            run.throughput if sane else 0.0,
            middle,
            time_full(run) if sane else 0.0,
            run.time_waiting() if sane else 0.0,
        )
        validity, reason = classify(observed)
        bound = host_bound(run) if sane else None
        entries.append(entry | {"validity": validity, "reason": reason, "host_bound": bound})
    return entries, sound, bounding


def _stopped(run: RawRun) -> Message:
    done = sum(one.finish_s is not None for one in run.served)
    return Message("stopped", {"done": done, "of": len(run.served), "s": f"{run.window[1] - run.window[0]:.0f}"})


def _facts(everything: list[RawRun], root: Path) -> dict[str, Any]:
    """What labels show that is not a quantity."""
    fingerprint = read_json(root / "model" / "fingerprint.json")
    keep = ("source", "revision", "sha256", "architecture", "parameters", "layers", "heads", "kv_heads", "head_dim")
    engines = {
        f"{run.run.workload}/{run.run.arm}": {"dtype": run.run.dtype, "device": run.run.device} | run.run.engine
        for run in everything
        if run.completed
    }
    workloads: dict[str, dict[str, Any]] = {}
    for run in everything:
        workloads.setdefault(
            run.run.workload, {"kv_slots": run.run.kv_slots_asked, "max_model_len": run.run.max_model_len, "arms": []}
        )
        if run.run.arm not in workloads[run.run.workload]["arms"]:
            workloads[run.run.workload]["arms"].append(run.run.arm)
    return {"model": {name: fingerprint.get(name) for name in keep}, "workloads": workloads, "engines": engines}
