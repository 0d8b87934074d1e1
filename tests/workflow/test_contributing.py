"""The recipes of CONTRIBUTING.md, carried out in a copy of the project: blocks are written, commands run."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kvlab.arms import ARMS

from .conftest import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w+)(?: ([^\n]*))?\n(.*?)^```$", re.M | re.S)
RECIPES = {
    title: blocks
    for section in TEXT.split("\n## ")[1:]
    if (blocks := [match.groups() for match in FENCE.finditer(section)]) and (title := section.splitlines()[0])
}
PARTS = ("Snakefile", "workflow", "config", "report", "tests", "pyproject.toml", "results/reference/smoke-cpu")


def test_it_says_how_to_add_each_kind_of_thing():
    said = " ".join(RECIPES).lower()
    for thing in ("arm", "engine", "workload kind", "quantity", "figure", "claim", "language", "locks"):
        assert thing in said


def test_the_commands_of_its_head_are_targets():
    targets = subprocess.run(["make", "-s", "help"], cwd=ROOT, text=True, capture_output=True, check=True).stdout
    for target in re.findall(r"^make ([a-z]+)", TEXT.split("\n## ")[0], re.M):
        assert f"make {target}" in targets


@pytest.mark.engine
@pytest.mark.parametrize("title", RECIPES)
def test_a_recipe_works(title, tmp_path):
    copy(tmp_path)
    for language, where, text in RECIPES[title]:
        if where:
            write(tmp_path, dict(word.split("=", 1) for word in shlex.split(where)), text)
        elif language == "bash":
            run(tmp_path, text)


# The made-up run of the page's tests with the new arm in it, drawn and rendered as a run's stages do.
SHOW = """
from pathlib import Path
from kvlab.publish import summary
from kvlab.publish.figures.drawing import Figures
from kvlab.publish.page.render import render
from tests.fixtures import small_run

small_run.ARMS["vllm-reserved-eager"] = (64, 16, False, 0.05)
seed = small_run.CONFIG["workloads"]["seed"] | {"arms": ["vllm-reserved-eager", "vllm-paged"]}
run = small_run.build(Path("run"), figures=False, settings=small_run.CONFIG | {"workloads": {"seed": seed}})
Figures(run, run / "figures", "okabe-ito", "en").draw("throughput", "seed")
render({}, run)
summary.show(run)
"""


def test_an_added_arm_is_shown_with_its_role_label_and_colour(tmp_path):
    copy(tmp_path)
    ((_, where, text), *_) = RECIPES["Add an arm"]
    write(tmp_path, dict(word.split("=", 1) for word in shlex.split(where)), text)
    said = run(tmp_path, f"python -c {shlex.quote(SHOW)}")
    facts = json.loads((tmp_path / "run/metrics.json").read_text())["facts"]["arms"]["vllm-reserved-eager"]
    role, label, colour = (facts[key] for key in ("role", "label", "colour"))
    assert role not in (arm.role for arm in ARMS.values())
    page = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    for name in label.values():
        assert f">{name}</span>" in page
    assert f"--vllm-reserved-eager: {colour};" in page
    assert colour.lower() in (tmp_path / "run/figures/throughput.seed.en.svg").read_text(encoding="utf-8")
    assert re.search(r"^ *vllm-reserved-eager +[\d,.]+\stokens/s", said, re.M)


def copy(root: Path) -> None:
    """The parts of the project that the recipes change and run."""
    for part in PARTS:
        target = root / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / part, target)


def write(root: Path, where: dict[str, str], text: str) -> None:
    """A new file, or text put before, after, or in place of what the file has once; without a place, at its end."""
    file = root / where.pop("file")
    before = file.read_text(encoding="utf-8") if file.exists() else ""
    if not where:
        file.parent.mkdir(parents=True, exist_ok=True)
        after = before + text
    else:
        ((how, anchor),) = where.items()
        anchor = anchor.replace("\\n", "\n") if file.suffix == ".py" else anchor
        assert before.count(anchor) == 1, f"{file.name}: {anchor!r} is there {before.count(anchor)} times"
        put = {"before": text + anchor, "after": anchor + "\n" + text.rstrip("\n"), "replace": text.rstrip("\n")}
        after = before.replace(anchor, put[how])
    file.write_text(after, encoding="utf-8")


def run(root: Path, script: str) -> str:
    """All lines of a block; one that fails stops it. Returns what they print."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(root / "workflow"),
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=root,
        env=environment,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, script + done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout
