"""The same command again: what failed fails again, what is missing is made again, what is put right costs nothing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess

import pytest

from .conftest import CONFIG, SNAKEMAKE, Project, copy_project
from .test_faults import _wait_for_measure, one_line

pytestmark = pytest.mark.engine

PRODUCTS = {
    "environment.json": "probe",
    "model/fingerprint.json": "model",
    "model/model.safetensors": "model",
    "workloads/words.jsonl": "workload",
    "raw/words/vllm-paged/0": "measure",
    "raw/words/hf-sequential-static/0/device.jsonl": "measure",
    "processes/queue/vllm/0.json": "measure",
    "metrics.json": "analyse",
    "analysis.ipynb": "notebook",
    "figures/figures.json": "notebook",
    "figures/kv-shares.words.zh.svg": "notebook",
    "claims.json": "claims",
    "report.html": "report",
    "verify.json": "verify",
    "ro-crate-metadata.json": "crate",
}


@pytest.fixture
def copy(project, tmp_path) -> Project:
    return Project(shutil.copytree(project.root, tmp_path / "copy", symlinks=True))


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_product_that_is_missing_is_made_again(project, tmp_path, product):
    file = project.run / product
    file.rename(tmp_path / "kept")
    try:
        due = project.due()
    finally:
        (tmp_path / "kept").rename(file)
    assert PRODUCTS[product] in due
    if product.endswith(
        (".safetensors", ".svg", "device.jsonl")
    ):  # what Snakemake does not see is found to be back, too
        assert project.due() == {}


def test_a_mistyped_model_fails_again_and_nothing_reruns_needlessly_once_it_is_corrected(copy):
    page = (copy.run / "report.html").read_bytes()
    for _ in range(2):
        done = copy.snakemake("--config", "model=./nope")
        assert done.returncode != 0
        assert "kvlab model: model.source: no folder" in done.stderr
        assert not (copy.run / "report.html").exists()
        assert not (copy.run / "verify.json").exists()
        assert (copy.run / "report.outdated.html").read_bytes() == page
    assert set(copy.due()) == {"report", "verify", "crate"}
    assert copy.snakemake().returncode == 0
    assert (copy.run / "report.html").read_bytes() == page
    assert not (copy.run / "report.outdated.html").exists()
    assert "model=./nope" not in (copy.run / "config.json").read_text()


def test_a_prompt_that_is_too_long_fails_again(copy):
    settings = ("--config", f"prompts=['{'word ' * 200}']")
    for _ in range(2):
        done = copy.snakemake(*settings)
        assert done.returncode != 0
        assert "above max_model_len 256" in done.stderr
    assert "workload" in copy.due(*settings)


def _hears_an_interrupt():
    """A shell lets what runs in the background ignore interrupts, and its children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupted_measurement_is_still_due(copy):
    settings = ("--config", "attn_implementation=eager")
    running = subprocess.Popen(
        [SNAKEMAKE, "--configfile", CONFIG, "--cores", "1", *settings],
        cwd=copy.root,
        env=os.environ | {"PYTHONPATH": str(copy.root / "workflow")},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_hears_an_interrupt,
    )
    _wait_for_measure(copy.root, running)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does
    said, _ = running.communicate(timeout=120)
    assert running.returncode != 0
    assert "Traceback" not in said, said[-3000:]
    assert "words/hf-sequential-static/0" in copy.due(*settings)["measure"]
    assert (copy.run / "report.outdated.html").exists()
    assert not list(copy.run.rglob("raw/*/*/.*"))


def test_weights_that_were_replaced_are_measured_anew(copy):
    weights = copy.run / "model" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    done = copy.snakemake("-n")
    assert f"kvlab: {weights.resolve()} changed since its digest was taken" in done.stderr
    assert {"model", "workload", "measure", "analyse"} <= set(copy.due())


@pytest.mark.parametrize("name", ["a 'quote'", 'a "quote"', "$HOME"])
def test_a_project_may_lie_anywhere(project, tmp_path, name):
    copy = Project(shutil.copytree(project.root, tmp_path / name, symlinks=True))
    (copy.run / "environment.json").unlink()
    done = copy.snakemake("results/tiny/environment.json")
    assert done.returncode == 0, done.stderr[-3000:]
    assert (copy.run / "environment.json").exists()


def test_a_path_that_snakemake_can_not_work_in_is_refused_in_one_line(tmp_path):
    copy = copy_project(tmp_path / "a {b}")
    assert "Snakemake can't run where a path has { or }" in one_line(copy.snakemake("-n"))


def test_a_failing_job_shows_its_command_and_no_exports(copy):
    done = copy.snakemake("--config", "model=random:huge")
    line = next(line for line in done.stderr.splitlines() if "returned non-zero" in line)
    assert "python -m kvlab model results/tiny" in line
    assert len(line) < 200
