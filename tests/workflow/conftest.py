"""A throw-away copy of the project in which the whole DAG has run once, with real engines on a tiny model."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("Snakefile", "workflow", "config", "report", "tests/workflow/tiny.yaml")
CONFIG = "tests/workflow/tiny.yaml"
SNAKEMAKE = str(Path(sys.executable).parent / "snakemake")


@dataclass
class Project:
    """A copy of the project; `run` is the folder of its tiny run."""

    root: Path

    @property
    def run(self) -> Path:
        return self.root / "results" / "tiny"

    def command(self, *command: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        env = os.environ | {"PYTHONPATH": str(self.root / "workflow")}
        return subprocess.run(
            command, cwd=self.root, env=env, text=True, capture_output=True, timeout=timeout, check=False
        )

    def kvlab(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.command(sys.executable, "-m", "kvlab", *arguments)

    def snakemake(self, *arguments: str, config: str = CONFIG) -> subprocess.CompletedProcess[str]:
        return self.command(SNAKEMAKE, "--configfile", config, "--cores", "1", *arguments)  # --configfile takes several

    def due(self, *arguments: str) -> dict[str, set[str]]:
        """What a dry run would do: rule -> the wildcards of its jobs ("" for a rule without any).

        The engines' rules, `measure_<engine>`, are taken together as "measure".
        """
        done = self.snakemake("-n", "-p", *arguments)
        assert done.returncode == 0, done.stderr[-3000:]
        text = done.stdout + done.stderr
        found: dict[str, set[str]] = {}
        for block in re.split(r"\n(?=(?:local)?rule )", text)[1:]:
            rule = re.match(r"(?:local)?rule (measure|\w+)\w*:", block).group(1)
            wildcards = re.search(r"^    wildcards: (.*)$", block, re.M)
            values = re.findall(r"=([^,\s]+)", wildcards.group(1)) if wildcards else []
            found.setdefault(rule, set()).add("/".join(values))
        found.pop("all", None)
        return found


def copy_project(to: Path) -> Project:
    for part in PARTS:
        target = to / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, target, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        else:
            shutil.copy2(ROOT / part, target)
    return Project(to)


@pytest.fixture(scope="session")
def project(tmp_path_factory) -> Project:
    """The run is made once; a test that changes a file puts it back."""
    made = copy_project(tmp_path_factory.mktemp("project"))
    done = made.snakemake()
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return made
