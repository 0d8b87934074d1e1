"""The wheel: built from the checkout, installed elsewhere, and used where there is no checkout."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from kvlab import __version__

from .conftest import ROOT

SOURCES = ("pyproject.toml", "setup.py", "LICENSE", "README.md", "Snakefile", "config", "docker", "report", "workflow")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy2(ROOT / name, source / name)
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, source]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = out.iterdir()
    return made


@pytest.fixture(scope="module")
def installed(tmp_path_factory, wheel):
    """`kvlab` in an environment of its own. The dependencies are this environment's: it holds what the locks pin."""
    venv = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    python = venv / "bin" / "python"
    site = venv / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps", wheel]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(install, env=environment, check=True)
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")  # its own .pth files are not read
    elsewhere = tmp_path_factory.mktemp("elsewhere")

    def run(*arguments: object) -> str:
        command = [venv / "bin" / "kvlab", *map(str, arguments)]
        done = subprocess.run(command, cwd=elsewhere, env=environment, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    run.python, run.folder, run.environment = python, elsewhere, environment
    return run


def test_it_carries_the_projects_files_and_pins_what_the_lock_pins(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for path in ("report/strings.zh.yaml", "report/style.css", "config/schema.json", "config/data/paper-values.yaml"):
        assert f"kvlab/files/{path}" in names
    assert not [name for name in names if "screenshots" in name or "__pycache__" in name]
    (metadata,) = importlib.metadata.distributions(path=[str(wheel)])
    assert metadata.version == __version__
    for requirement in metadata.requires:
        name, _, version = requirement.partition("==")
        assert importlib.metadata.version(name) == version, requirement
    assert not {"snakemake", "torch", "vllm", "uv"} & {line.partition("==")[0] for line in metadata.requires}


def test_the_command_runs_from_the_wheel(installed):
    assert installed("--version").strip() == __version__
    where = [installed.python, "-c", "import kvlab.paths as p; print(p.REPORT)"]
    said = subprocess.check_output(where, cwd=installed.folder, env=installed.environment, text=True).strip()
    assert said.endswith("site-packages/kvlab/files/report")
    assert installed("schema") == (ROOT / "config" / "schema.json").read_text()
    assert "simulate, plan, replay, verify" in installed("doctor")


def test_a_packed_run_is_replayed_verified_and_judged_outside_a_checkout(installed):
    reference = ROOT / "results" / "reference" / "smoke-cpu"
    said = installed("replay", reference, "--into", "again")
    assert "byte for byte" in said
    assert "all as they should be" in installed("verify", "again/report.html")
    assert "same-tokens" in installed("claims", "again", "--only-write") + (
        installed.folder / "again" / "claims.json"
    ).read_text(encoding="utf-8")


def test_the_papers_figures_are_simulated_outside_a_checkout(installed):
    (installed.folder / "small.yaml").write_text(
        "run: small\nsimulation:\n  iterations: 300\n  warmup_iterations: 50\n  seeds: 2\n"
        "  workloads: { azure-conv: { lengths: { kind: azure-conv } } }\n"
    )
    installed("configure", "small.yaml")
    installed("simulate", "results/small")
    installed("draw-simulation", "results/small")
    assert (installed.folder / "results/small/simulated/figures/figures.json").exists()
