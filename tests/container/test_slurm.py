"""The same DAG through a SLURM of one node, in the image: cancelled half-way, resumed, verified."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest

from tests.container.conftest import HERE, Project, lacking

QUICK = (
    "--workflow-profile", "workflow/profiles/slurm",
    "--slurm-no-account", "--slurm-status-command", "squeue",  # this SLURM keeps no accounts
    "--slurm-init-seconds-before-status-checks", "1", "--seconds-between-status-checks", "1",
    "--latency-wait", "5", "--use-singularity",
    "--default-resources", "slurm_partition=main", "mem_mb=1000", "runtime=30",
    "--set-resources", "measure_vllm:mem_mb=4000", "measure_transformers:mem_mb=4000", "model:mem_mb=4000",
)  # fmt: skip


@pytest.fixture
def cluster(apptainer):
    if fault := lacking("slurmctld", "slurmd", "squeue", "scancel", "munged"):
        pytest.skip(f"SLURM tests: {fault} (.ci/run installs what they need)")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # munge wants every folder above its socket open to all
    done = subprocess.run([HERE / "slurm", "start", folder], text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    yield apptainer | {"SLURM_CONF": str(folder / "slurm.conf")}
    subprocess.run([HERE / "slurm", "stop", folder], check=False)
    shutil.rmtree(folder, ignore_errors=True)


def cancel_the_first_measurement(env: dict[str, str], seen: list[str], over: threading.Event) -> None:
    """Wait until one runs, and give it the time to load the engine."""
    while not over.wait(0.3):
        asked = ["squeue", "--noheader", "--states", "R", "--Format", "jobid:20,tres-per-job:40,comment:80"]
        queue = subprocess.run(asked, env=env, text=True, capture_output=True, check=False).stdout
        for line in queue.splitlines():
            if "measure" in line:
                time.sleep(3)
                subprocess.run(["scancel", "--signal", "KILL", "--full", line.split()[0]], env=env, check=False)
                seen.append(line)
                return


def test_a_cancelled_job_leaves_nothing_half_made_and_the_next_run_completes(cluster, inside, image, tmp_path):
    env = cluster | {"SIF_FOLDER": image.env["SIF_FOLDER"], "VARIANT": "cpu"}
    project = Project(shutil.copytree(inside.root, tmp_path / "project", symlinks=True), env)
    run = project.root / "results" / "contained"
    raw = run / "raw" / "words"
    for made in run.iterdir():  # the measurements are due, and what follows; the model and the requests are not
        if made.name not in ("model", "workloads", "environment.json"):
            shutil.rmtree(made) if made.is_dir() else made.unlink()
    cancelled: list[str] = []
    over = threading.Event()
    watcher = threading.Thread(target=cancel_the_first_measurement, args=(project.env, cancelled, over), daemon=True)
    watcher.start()
    first = project.snakemake(*QUICK, "--retries", "0")
    over.set()
    watcher.join()
    assert cancelled, first.stdout[-6000:]
    assert "gpu" in cancelled[0]  # the arm asked for the node's GPU
    assert first.returncode != 0
    whole = sorted(file.parent.parent.name for file in raw.glob("*/0/run.json"))
    assert len(whole) == 1, whole  # the other arm went on; the cancelled one left nothing that looks finished
    kept = {file: file.stat().st_mtime_ns for file in raw.glob(f"{whole[0]}/0/*")}

    second = project.snakemake(*QUICK)
    assert second.returncode == 0, second.stdout[-6000:]
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert json.loads((run / "verify.json").read_text())["faults"] == []
    assert json.loads((run / "environment.json").read_text())["container"]["image"] == image.sif.name
