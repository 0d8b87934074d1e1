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


SMALL = """\
run: small
simulation:
  iterations: 300
  warmup_iterations: 50
  seeds: 2
  workloads: { azure-conv: { lengths: { kind: azure-conv } } }
"""


def test_snakedeploy_deploys_it_and_the_wheel_runs_it(installed, tmp_path, monkeypatch):
    """As a user does, with git configured to take this checkout in place of GitHub's address."""
    repository = tmp_path / "hub" / "owner" / "kvlab"
    for name in ("config", "report", "workflow"):
        shutil.copytree(ROOT / name, repository / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy2(ROOT / "Snakefile", repository)
    (repository / "profiles").symlink_to("workflow/profiles")

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
        subprocess.run(["git", "-C", repository, *identity, *arguments], check=True, capture_output=True)

    for arguments in (("init",), ("add", "."), ("commit", "-m", "all"), ("tag", "v1")):
        git(*arguments)
    (repository / "workflow" / "rules" / "simulate.smk").write_text("# of another release\n")
    for arguments in (("commit", "-am", "changed"), ("tag", "v2")):
        git(*arguments)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.file://{tmp_path}/hub/.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "https://github.com/")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("PYTHONPATH", raising=False)

    def deployed(tag: str) -> Path:
        command = [Path(sys.executable).parent / "snakedeploy", "deploy-workflow", "https://github.com/owner/kvlab"]
        subprocess.run([*command, tmp_path / tag, "--tag", tag], check=True, capture_output=True)
        return tmp_path / tag

    def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [installed.python, "-m", "snakemake", "--cores", "1", *arguments]
        return subprocess.run(command, cwd=folder, text=True, capture_output=True, check=False)

    folder = deployed("v1")
    planned = snakemake(folder, "--dry-run")  # the default run, as it is deployed
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert {"probe", "measure_vllm", "report", "crate"} <= set(planned.stdout.split())
    (folder / "config" / "config.yaml").write_text(SMALL)
    done = snakemake(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "results/small/simulated/figures/figures.json").is_file()
    assert "Nothing to be done" in (again := snakemake(folder)).stdout + again.stderr

    other = snakemake(deployed("v2"), "--dry-run")
    assert other.returncode != 0
    assert "kvlab: the package of this release is not installed" in other.stderr
    assert "pip install git+https://github.com/owner/kvlab@v2" in other.stderr
