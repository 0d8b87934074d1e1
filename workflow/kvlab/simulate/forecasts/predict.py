"""Every vLLM arm of a configuration, predicted from another run's step times, before it is measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from kvlab.errors import KvlabError
from kvlab.prepare.artifact import draw
from kvlab.prepare.own_lengths import read_pairs
from kvlab.prepare.workload import lengths_of
from kvlab.records import Request, digest, read_lines
from kvlab.simulate.forecasts.calibration import POLICY_OF, Calibration, calibrate
from kvlab.simulate.forecasts.forecast import Setting
from kvlab.simulate.forecasts.predictions import Cell, Draw, Sustained, Windows, closed, open_loop, sustained

CALIBRATION_FILES = ("run.json", "steps.jsonl", "requests.jsonl", "device.jsonl")


@dataclass(frozen=True)
class Asked:
    """What to predict beyond the configuration: `rates`, requests a second by arm; `lengths`, a file of them.

    `requests`: of the closed batch, 0: the configuration's. `bound_s`: of the sustained rate, seconds a token.
    """

    seeds: int = 1
    rates: Mapping[str, Sequence[float]] = field(default_factory=dict)
    bound_s: float | None = 0.05
    windows: Windows = field(default_factory=Windows)
    steady_s: float = 600.0  # seconds of arrivals by which the sustained rate is found
    lengths: Path | None = None
    requests: int = 0

    @classmethod
    def of(
        cls,
        seeds: int,
        rates: Sequence[str],
        bound_s: float | None,
        windows: Sequence[float],
        steady_s: float,
        lengths: Path | None,
        requests: int,
    ) -> Asked:
        """From a command line's words: rates as `ARM=R,R`. KvlabError says which word is not one."""
        by_arm: dict[str, list[float]] = {}
        for word in rates:
            arm, _, values = word.partition("=")
            try:
                by_arm[arm] = [float(value) for value in values.split(",")]
            except ValueError:
                raise KvlabError(f"--rates {word}: write ARM=R,R with rates in requests a second") from None
            if arm not in POLICY_OF:
                raise KvlabError(f"--rates {word}: no arm {arm!r} can be predicted; one of {', '.join(POLICY_OF)}")
        if seeds < 1 or requests < 0 or not 0 < steady_s < math.inf:
            raise KvlabError(f"--seeds {seeds}, --requests {requests}, --steady {steady_s}: at least 1 each")
        return cls(seeds, by_arm, bound_s, Windows(*windows), steady_s, lengths, requests)


def predict(
    workload: str, arms: Mapping[str, Setting], draw: Draw, seeds: Sequence[int], asked: Asked, calibration: Calibration
) -> tuple[list[Cell], list[Sustained]]:
    """Every arm of `arms` as a closed batch of `asked.requests` and at its rates, for each seed.

    With a bound also the sustained rate.
    """
    cells, rates = [], []
    for arm, setting in arms.items():
        for seed in seeds:
            cells.append(closed(workload, arm, draw(asked.requests, seed), seed, setting, calibration))
        for rate in asked.rates.get(arm, ()):
            for seed in seeds:
                cells.append(open_loop(workload, arm, draw, rate, seed, setting, calibration, asked.windows))
        if asked.bound_s is not None:
            for seed in seeds:
                found = sustained(draw, seed, setting, calibration, bound_s=asked.bound_s, arrive_s=asked.steady_s)
                rates.append(Sustained(workload, arm, seed, asked.bound_s, asked.steady_s, found))
    return cells, rates


def predict_run(section: Mapping[str, Any], calibration: Path, root: Path, asked: Asked) -> dict[str, Any]:
    """The predictions of a configuration: every vLLM arm of every workload. The document that `write` writes.

    `section`: the configuration's part `predict`. The requests are those of `root`/workloads where they are made
    already, else they are drawn as they will be. Arms whose step times nothing tells are listed with the reason.
    """
    fitted, raw = calibrate(calibration)
    engine = section["measure"]["vllm"]
    cells: list[Cell] = []
    rates: list[Sustained] = []
    left_out: dict[str, str] = {}
    origin: dict[str, str] = {}
    for workload, part in section["workloads"].items():
        settings = {}
        for arm in part["arms"]:
            if arm not in POLICY_OF or arm.endswith("eager"):
                left_out[f"{workload}/{arm}"] = f"{raw.name} tells nothing of its step times: another engine or mode"
                continue
            budget = engine["max_num_batched_tokens"] or raw.run.engine.get("max_num_batched_tokens")
            ahead = engine["async_scheduling"]
            settings[arm] = Setting(
                policy=POLICY_OF[arm],
                pool=part["kv_slots"],
                max_len=part["max_model_len"],
                block=engine["block_size"],
                max_running=engine["max_num_seqs"],
                token_budget=budget,
                asynchronous=bool(raw.run.engine.get("async_scheduling") if ahead is None else ahead),
                sequential=arm == "vllm-sequential",
            )
        draw, origin[workload] = _requests(workload, part, root, asked)
        mine = replace(asked, requests=asked.requests or part["requests"].get("requests") or len(draw(0, 0)))
        if not mine.requests:
            raise KvlabError(f"workload {workload}: says no number of requests; give --requests")
        seeds = range(section["data_seed"], section["data_seed"] + asked.seeds)
        found = predict(workload, settings, draw, seeds, mine, fitted)
        cells += found[0]
        rates += found[1]
    return {
        "schema": 1,
        "run": section["run"],
        "calibration": asdict(fitted) | {"sources": [asdict(raw.source(name)) for name in CALIBRATION_FILES]},
        "windows": asdict(asked.windows),
        "requests": origin,
        "left_out": left_out,
        "cells": [asdict(cell) for cell in cells],
        "sustained": [asdict(rate) for rate in rates],
    }


def _requests(workload: str, part: Mapping[str, Any], root: Path, asked: Asked) -> tuple[Draw, str]:
    """How a workload's requests are drawn, and in words where they come from."""
    wanted, longest = part["requests"], part["max_model_len"]
    made = root / "workloads" / f"{workload}.jsonl"
    if asked.lengths is not None:
        pairs = read_pairs(asked.lengths)
        said = f"{asked.lengths.name}, sha256 {digest(asked.lengths)}"
        return lambda count, seed: draw(pairs, "authors", count, seed, max_total=longest).pairs(), said
    if made.exists():
        lines = [(len(one.prompt_token_ids), one.max_new_tokens) for one in read_lines(made, Request)]
        said = f"{made.name}, sha256 {digest(made)}; the same for every seed"
        return lambda count, seed: [lines[n % len(lines)] for n in range(count or len(lines))], said
    if wanted["kind"] in ("prompts", "file"):
        raise KvlabError(
            f"workload {workload}: requests of kind {wanted['kind']} have lengths only once they are made; run: "
            f"kvlab workload {root} {workload}"
        )
    return lambda count, seed: lengths_of({**wanted, "requests": count}, longest, seed).pairs(), f"drawn, {wanted}"
