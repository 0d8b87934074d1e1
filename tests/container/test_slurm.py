"""The same DAG through a SLURM of one node, in the image: cancelled half-way, resumed, verified."""

from __future__ import annotations

import json
import subprocess
import threading
import time

import pytest

from tests.container.conftest import HERE, copy_project, lacking

QUICK = (
    "--workflow-profile", "workflow/profiles/slurm",
    "--slurm-no-account", "--slurm-status-command", "squeue",  # this SLURM keeps no accounts
    "--slurm-init-seconds-before-status-checks", "1", "--seconds-between-status-checks", "1",
    "--latency-wait", "5", "--use-singularity",
    "--default-resources", "slurm_partition=main", "mem_mb=1000", "runtime=30",
    "--set-resources", "measure:mem_mb=4000", "model:mem_mb=4000",
)  # fmt: skip


@pytest.fixture
def cluster(tmp_path_factory, apptainer):
    if fault := lacking("slurmctld", "slurmd", "squeue", "scancel", "munged"):
        pytest.skip(f"SLURM tests: {fault} (.ci/run installs what they need)")
    folder = tmp_path_factory.mktemp("slurm")
    done = subprocess.run([HERE / "slurm", "start", folder], text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    yield apptainer | {"SLURM_CONF": str(folder / "slurm.conf")}
    subprocess.run([HERE / "slurm", "stop", folder], check=False)


def cancel_the_first_measurement(env: dict[str, str], seen: list[str]) -> None:
    """Wait until one runs, and give it the time to load the engine."""
    until = time.monotonic() + 400
    while time.monotonic() < until:
        queue = subprocess.run(
            ["squeue", "--noheader", "--states", "R", "--format", "%i %b %k"],
            env=env,
            text=True,
            capture_output=True,
            check=False,
        ).stdout
        for line in queue.splitlines():
            job, gres, comment = line.split(maxsplit=2)
            if "measure" in comment:
                time.sleep(3)
                subprocess.run(["scancel", "--signal", "KILL", "--full", job], env=env, check=False)
                seen.append(f"{job} {gres} {comment}")
                return
        time.sleep(0.3)


def test_a_cancelled_job_leaves_nothing_half_made_and_the_next_run_completes(cluster, image, tmp_path):
    project = copy_project(tmp_path, cluster | {"SIF_FOLDER": image.env["SIF_FOLDER"], "VARIANT": "cpu"})
    cancelled: list[str] = []
    watcher = threading.Thread(target=cancel_the_first_measurement, args=(project.env, cancelled))
    watcher.start()
    first = project.snakemake(*QUICK, "--retries", "0")
    watcher.join()
    assert cancelled, first.stdout[-6000:]
    assert "gpu" in cancelled[0]  # the arm asked for the node's GPU
    assert first.returncode != 0
    raw = project.root / "results" / "contained" / "raw" / "words"
    made = sorted(file.parent.parent.name for file in raw.glob("*/0/run.json"))
    assert len(made) == 1, made  # the other arm went on; the cancelled one left nothing that looks finished
    kept = {file: file.stat().st_mtime_ns for file in raw.glob(f"{made[0]}/0/*")}

    second = project.snakemake(*QUICK)
    assert second.returncode == 0, second.stdout[-6000:]
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    run = project.root / "results" / "contained"
    assert json.loads((run / "verify.json").read_text())["faults"] == []
    assert json.loads((run / "environment.json").read_text())["container"]["image"] == image.sif.name
