"""A run as it is seen: on a terminal, into a file, and where a stage fails. Simulated: no engine."""

from __future__ import annotations

import os
import pty
import re
import sys
from pathlib import Path

import pytest

from .conftest import copy_project
from .test_simulation import SMALL, TEXT

SNAKEMAKE = Path(sys.executable).parent / "snakemake"


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    made = copy_project(tmp_path_factory.mktemp("seen"))
    (made.root / SMALL).write_text(TEXT)
    return made


def run(project, *arguments):
    return project.snakemake("--logger", "kvlab", *arguments, config=SMALL)


def on_a_terminal(project, *arguments: str) -> str:
    """All that a terminal is sent."""
    command = [str(SNAKEMAKE), "--cores", "1", "--configfile", SMALL, "--logger", "kvlab", *arguments]
    child, screen = pty.fork()
    if child == 0:
        os.chdir(project.root)
        os.execve(command[0], command, os.environ | {"PYTHONPATH": str(project.root / "workflow"), "TERM": "xterm"})
    seen = b""
    while True:
        try:
            piece = os.read(screen, 65536)
        except OSError:  # the other side is closed
            break
        if not piece:
            break
        seen += piece
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, seen.decode()
    return seen.decode()


def test_on_a_terminal_one_line_tells_where_it_is_and_results_stay(simulated):
    seen = on_a_terminal(simulated, "--forceall")
    assert re.search(r"\x1b\[2K0/3  simulate, \d+ s\x1b|\x1b\[2K0/3  simulate, \d+ s\r", seen), seen
    assert "\x1b[2K1/3  draw_simulation, " in seen
    stay = re.sub(r"\r\x1b\[2K[^\r\n]*(?=\r\x1b)", "", seen).replace("\r\x1b[2K", "")
    assert [line.split(":")[0] for line in stay.splitlines() if line.strip()] == ["simulate", "draw-simulation"], stay


def test_into_a_file_there_are_plain_lines_and_no_chatter(simulated):
    done = run(simulated, "--forceall")
    assert done.returncode == 0
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["simulate", "draw-simulation"]
    assert "\x1b" not in done.stderr
    assert "Nothing to be done" in run(simulated).stderr


def test_verbose_and_a_dry_run_are_snakemakes_own(simulated):
    assert "Building DAG of jobs" in run(simulated, "--verbose", "--forceall").stderr
    dry = run(simulated, "-n", "--forceall")
    assert "rule simulate:" in dry.stdout + dry.stderr


def test_a_failure_is_last_with_its_whole_log(simulated):
    module = simulated.root / "workflow" / "kvlab" / "publish" / "figures" / "simulation.py"
    before = module.read_text()
    module.write_text(
        before.replace("def draw(", "def draw(*_):\n    raise KvlabError('no ink; buy some')\n\n\ndef _draw(")
        + "\nfrom kvlab.errors import KvlabError\n"
    )
    done = run(simulated, "--forceall")
    module.write_text(before)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    at = lines.index("failed: draw_simulation")
    assert lines[at + 1] == "  results/small/logs/draw-simulation.log:"
    assert lines[at + 2] == "    kvlab draw-simulation: no ink; buy some"
    assert lines[-1].startswith("1 of 3 jobs failed, 1 are done and stay")
    assert "export" not in done.stderr
