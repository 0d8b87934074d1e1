"""config/policies.yaml in short form: five policies, a queue and requests that arrive, by the commands of a run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
import yaml

from kvlab.config import parse
from kvlab.paths import ROOT
from kvlab.quantities import Metrics

pytestmark = pytest.mark.engine


def short() -> dict:
    """The same arms, pool, lengths and engine settings; fewer requests, one block, the lower rate of each, seconds."""
    config = yaml.safe_load((ROOT / "config" / "policies.yaml").read_text(encoding="utf-8"))
    closed, opened = config["workloads"]["closed"], config["workloads"]["open"]
    closed["requests"]["requests"], closed["repeats"] = 24, 1
    opened["requests"]["requests"], opened["repeats"] = 80, 1
    arrivals = opened["arrivals"]
    arrivals |= {"duration_s": 3, "leave_out_s": 1, "drain_s": 1}
    arrivals["rates"] = {arm: rates[:1] for arm, rates in arrivals["rates"].items()}
    config["measure"] |= {"device": "cpu", "threads": 1}
    return config


def test_all_policies_run_closed_and_open_and_agree_with_the_simulator(tmp_path, outside):
    config = parse(short(), "policies.yaml")
    run = tmp_path / "policies"
    run.mkdir()
    (run / "config.json").write_text(json.dumps(config.model_dump(mode="json")), encoding="utf-8")
    environment = outside | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}

    def kvlab(*arguments: str) -> str:
        command = [sys.executable, "-m", "kvlab", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    kvlab("model", str(run))
    for workload in config.workloads:
        kvlab("workload", str(run), workload)
        kvlab("measure", str(run), workload, "vllm", "0")
    folders = sorted(path.parent for path in run.glob("raw/*/*/0/run.json"))
    assert len(folders) == 10
    assert {json.loads((folder / "run.json").read_text())["status"] for folder in folders} == {"completed"}
    agreed = kvlab("agree", str(run))
    assert re.search(r"^(\d+) of \1 steps agree in all$", agreed, re.MULTILINE)
    kvlab("analyse", str(run))
    metrics = Metrics.read(run / "metrics.json")
    for arm in config.workloads["closed"].arms:
        rate = config.workloads["open"].arrivals.rates[arm][0]
        for key in (f"closed.{arm}.throughput", f"open.{arm}@{rate:g}.normalized", f"open.{arm}@{rate:g}.goodput"):
            assert metrics.quantities[key].value > 0
    guards = {(guard["workload"], guard["id"]): guard["outcome"] for guard in metrics.guards}
    for name in ("same-work", "same-engine", "same-outputs", "reserving-never-preempts"):
        assert guards["closed", name] == "pass"
