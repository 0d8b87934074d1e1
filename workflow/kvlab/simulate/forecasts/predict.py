"""Every vLLM arm of a configuration, predicted from another run's step times, before it is measured.

The requests are those that will be served: the same lengths, order and arrivals, block by block.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from kvlab.allocators.contiguous import SimulatedRequest
from kvlab.errors import KvlabError
from kvlab.measure.passes import Planned, in_block, shuffled
from kvlab.prepare.arrivals import planned
from kvlab.prepare.workload import lengths_of
from kvlab.records import Request, digest, read_lines
from kvlab.roles import EAGER, Roles
from kvlab.simulate.forecasts.calibration import Calibration, calibrate
from kvlab.simulate.forecasts.forecast import Setting, forecast
from kvlab.simulate.forecasts.predictions import Cell, Sustained, sustained

CALIBRATION_FILES = ("run.json", "steps.jsonl", "requests.jsonl", "device.jsonl")
STEADY_S = 600.0  # seconds of arrivals by which a sustained rate is found


def predict_run(
    planned_run: Mapping[str, Any], sections: Mapping[str, Mapping[str, Any]], calibration: Path, root: Path
) -> dict[str, Any]:
    """The predictions of a configuration, as `predictions.write` writes them.

    `planned_run`: the configuration as plain data. `sections`: of each workload, the part that makes it; `arms`, as
    `Roles` takes them; and `rates`: of each arm the rates of each block ([] where all requests are there from the
    start). `root`: the run's folder, whose workloads are taken where they are made already. Arms for which the step
    times do not hold are listed with the reason. NotRunnable where `calibration` gives no step times.
    """
    fitted, raw = calibrate(calibration)
    cells: list[Cell] = []
    rates: list[Sustained] = []
    left_out: dict[str, str] = {}
    origin: dict[str, str] = {}
    for workload, section in sections.items():
        part, roles = planned_run["workloads"][workload], Roles(section["arms"])
        requests, origin[workload] = _requests(workload, section, root)
        for arm in part["arms"]:
            if roles.about(arm, "engine") != fitted.engine["name"] or roles.about(arm, "role") == EAGER:
                left_out[f"{workload}/{arm}"] = (
                    f"another engine or mode: the step times of {raw.name} do not hold for it"
                )
                continue
            setting = _setting(roles, arm, part, planned_run["measure"]["vllm"], raw.run.engine)
            cells += _cells(workload, arm, setting, part, section["rates"].get(arm, []), requests, fitted)
            bound = part["arrivals"].get("bound_s_per_token")
            if bound is not None:
                for block in range(part["repeats"]):
                    rate = _steady(workload, arm, block, section, setting, fitted, bound)
                    rates.append(rate)
    return {
        "schema": 1,
        "run": planned_run["run"],
        "calibration": asdict(fitted) | {"sources": [asdict(raw.source(name)) for name in CALIBRATION_FILES]},
        "requests": origin,
        "left_out": left_out,
        "cells": [asdict(cell) for cell in cells],
        "sustained": [asdict(rate) for rate in rates],
    }


def _setting(
    roles: Roles, arm: str, part: Mapping[str, Any], own: Mapping[str, Any], engine: Mapping[str, Any]
) -> Setting:
    ahead = own["async_scheduling"]
    return Setting(
        policy=roles.about(arm, "policy") or "paged",  # the engine's own
        pool=part["kv_slots"],
        max_len=part["max_model_len"],
        block=own["block_size"],
        max_running=own["max_num_seqs"],
        token_budget=own["max_num_batched_tokens"],
        asynchronous=bool(engine.get("async_scheduling") if ahead is None else ahead),
        sequential=roles.about(arm, "feed") == "sequential",
    )


def _cells(
    workload: str,
    arm: str,
    setting: Setting,
    part: Mapping[str, Any],
    rates: list[list[float]],
    requests: list[Request],
    fitted: Calibration,
) -> Iterator[Cell]:
    """The arm's cells in each block, with the requests that the measurement will serve in it."""
    arrivals = part["arrivals"]
    for block in range(part["repeats"]):
        if arrivals["kind"] == "closed":
            asked = Planned({"shuffle": part["shuffle"]}, workload, arm, block, Path())
            queue = shuffled(requests, asked)
            if setting.sequential or arm in part["cut_arms"]:
                queue = queue[: part["requests"].get("sequential_requests")]
            jobs = [replace(_job(one), arrival=0.0) for one in queue]
            yield Cell(workload, arm, None, block, forecast(jobs, setting, fitted))
            continue
        for rate in rates[block] if block < len(rates) else []:
            arriving = in_block(requests, block, arrivals["kind"])
            jobs = [_job(replace(one, arrival_s=one.arrival_s / rate)) for one in arriving]
            jobs = [job for job in jobs if job.arrival <= arrivals["duration_s"]]
            if not any(job.arrival >= arrivals["leave_out_s"] for job in jobs):
                raise KvlabError(
                    f"{workload} {arm} at {rate:g}: no request arrives after {arrivals['leave_out_s']:g} s"
                )
            until = arrivals["duration_s"] + arrivals["drain_s"]
            expected = forecast(jobs, setting, fitted, until=until, skip_s=arrivals["leave_out_s"])
            yield Cell(workload, arm, rate, block, expected)


def _job(one: Request) -> SimulatedRequest:
    return SimulatedRequest(one.id, len(one.prompt_token_ids), one.max_new_tokens, one.arrival_s)


def _steady(
    workload: str,
    arm: str,
    block: int,
    section: Mapping[str, Any],
    setting: Setting,
    fitted: Calibration,
    bound: float,
) -> Sustained:
    """The sustained rate of a long run with requests drawn as the workload's are, another draw a block."""

    def draw(count: int, seed: int) -> list[tuple[int, int]]:
        wanted = {**section["requests"], "requests": count}
        return lengths_of(wanted, section["max_model_len"], seed).pairs()

    seed = section["seed"] + block
    rate = sustained(draw, seed, setting, fitted, bound_s=bound, arrive_s=STEADY_S)
    return Sustained(workload, arm, seed, bound, STEADY_S, rate)


def _requests(workload: str, section: Mapping[str, Any], root: Path) -> tuple[list[Request], str]:
    """A workload's requests with their arrivals at one a second, and in words where they come from."""
    wanted, made = section["requests"], root / "workloads" / f"{workload}.jsonl"
    if made.exists():
        return read_lines(made, Request), f"{made.name}, sha256 {digest(made)}"
    if wanted["kind"] in ("prompts", "file"):
        raise KvlabError(
            f"workload {workload}: requests of kind {wanted['kind']} have lengths only once they are made; run: "
            f"kvlab workload {root} {workload}"
        )
    pairs = lengths_of(dict(wanted), section["max_model_len"], section["seed"]).pairs()
    requests = [Request(n, [0] * prompt, output) for n, (prompt, output) in enumerate(pairs)]
    if section.get("arrivals"):
        requests = planned(requests, section["arrivals"], dict(wanted), section["seed"])
    return requests, f"drawn, {', '.join(f'{key} {value}' for key, value in wanted.items() if key != 'path')}"
