"""An image of the unmodified docker/Dockerfile (CPU variant), a SIF of it, and copies of the project to run in it.

No registry is needed: a Debian image made from packages replaces the pinned base. What a machine lacks is named when
the tests are skipped. KVLAB_SIF_FOLDER=folder keeps the SIF there, and takes one that is there: for work on these
tests; in CI it is not looked at.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PARTS = (
    ".dockerignore",
    "Snakefile",
    "LICENSE",
    "README.md",
    "pyproject.toml",
    "profiles",
    "config",
    "docker",
    "report",
    "workflow",
    "tests/container/contained.yaml",
)
CONFIG = "tests/container/contained.yaml"
TOOLS = ("buildah", "mmdebstrap", "mksquashfs", "patchelf", "ip", "unshare", "apt-get")
DISK_GB = 30  # while the image and its SIF are made


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.container)


@dataclass
class Project:
    """A copy of the project, and the environment that its commands run in."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)

    def command(self, *command: str | Path, timeout: float = 1500) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(part) for part in command],
            cwd=self.root,
            env=self.env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )

    def snakemake(self, *arguments: str, offline: bool = False, config: str = CONFIG):
        command = [Path(sys.executable).parent / "snakemake", *arguments, "--cores", "1", "--configfile", config]
        if offline:  # a network of its own that holds nothing but loopback
            command = ["unshare", "--net", "bash", "-c", 'ip link set lo up && exec "$@"', "bash", *command]
        return self.command(*command)


def copy_project(to: Path, env: dict[str, str]) -> Project:
    for part in PARTS:
        target = to / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / part).is_symlink():
            target.symlink_to((ROOT / part).readlink())
        elif (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy2(ROOT / part, target)
    return Project(to, env)


def lacking(*tools: str) -> str:
    """What this machine lacks for these tests; empty if nothing."""
    faults = [f"{tool} is not installed" for tool in tools if not shutil.which(tool)]
    if os.geteuid() != 0:
        faults.append("not root")
    return "; ".join(faults)


@pytest.fixture(scope="session")
def clean_env() -> dict[str, str]:
    """This process's environment without what would point a job at another copy or another cache."""
    dropped = ("PYTHONPATH", "APPTAINER", "SINGULARITY", "SIF_FOLDER", "VARIANT", "CONTAINER_TOOL", "BUILD_OPTIONS")
    return {name: value for name, value in os.environ.items() if not name.startswith(dropped)}


@pytest.fixture(scope="session")
def apptainer(tmp_path_factory, clean_env) -> dict[str, str]:
    """The environment with an Apptainer on PATH. A pinned version that is gone is a failure, not a skip."""
    if fault := lacking(*TOOLS):
        pytest.skip(f"container tests: {fault} (.ci/run installs what they need)")
    prefix = tmp_path_factory.mktemp("apptainer")
    done = subprocess.run([HERE / "get-apptainer", prefix], env=clean_env, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return clean_env | {"PATH": f"{prefix}/bin:{clean_env['PATH']}"}


@dataclass
class Image:
    """The SIF, and the folder with buildah's storage while it is kept."""

    sif: Path
    env: dict[str, str]
    tool: list[str]
    name: str


@pytest.fixture(scope="session")
def image(tmp_path_factory, apptainer) -> Iterator[Image]:
    """`make image`, once: the unmodified Dockerfile over the stand-in, then the SIF."""
    kept = os.environ.get("KVLAB_SIF_FOLDER") if os.environ.get("CI") != "true" else None
    folder = Path(kept) if kept else tmp_path_factory.mktemp("images")
    env = apptainer | {"VARIANT": "cpu", "SIF_FOLDER": str(folder)}
    sif = Path(subprocess.check_output([ROOT / "docker" / "build", "--name"], env=env, text=True).strip())
    if sif.exists():
        yield Image(sif, env, [], "")
        return
    free = shutil.disk_usage(folder).free / 1e9
    if free < DISK_GB:
        pytest.skip(f"container tests: {DISK_GB} GB of disk needed, {free:.0f} GB free")
    storage = tmp_path_factory.mktemp("storage")
    started = time.monotonic()
    said = subprocess.check_output([HERE / "stand-in", storage], env=env, text=True)
    stand_in = dict(line.split("=", 1) for line in said.splitlines())
    build = copy_project(tmp_path_factory.mktemp("build"), env | stand_in)
    done = build.command("docker/build")
    print(f"\n{done.stdout}stand-in, image and SIF: {time.monotonic() - started:.0f} s")
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1] == str(sif)
    assert not list(folder.glob(".building*"))
    recipe = sif.stem.rpartition("-")[2]
    yield Image(sif, env, stand_in["CONTAINER_TOOL"].split(), f"localhost/kvlab:cpu-{recipe}")
    shutil.rmtree(storage, ignore_errors=True)  # pytest would keep the 20 GB of the last three sessions
    if not kept:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def inside(tmp_path_factory, image) -> Project:
    """A copy of the project whose DAG has run once in the image, without a network."""
    project = copy_project(tmp_path_factory.mktemp("inside"), image.env)
    done = project.snakemake("--use-singularity", offline=True)
    assert done.returncode == 0, done.stdout[-6000:]
    return project
