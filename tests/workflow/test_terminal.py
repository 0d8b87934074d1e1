"""A run as it is seen: on a terminal, into a file, and where a stage fails. Simulated: no engine."""

from __future__ import annotations

import os
import pty
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from .conftest import ROOT, copy_project
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


def test_on_a_terminal_one_line_shows_progress_and_results_stay(simulated):
    seen = on_a_terminal(simulated, "--forceall")
    assert re.search(r"\x1b\[2K0/3  simulate, \d+ s\x1b|\x1b\[2K0/3  simulate, \d+ s\r", seen), seen
    assert "\x1b[2K1/3  draw_simulation, " in seen
    stay = re.sub(r"\r\x1b\[2K[^\r\n]*(?=\r\x1b)", "", seen).replace("\r\x1b[2K", "")
    assert [line.split(":")[0] for line in stay.splitlines() if line.strip()] == ["simulate", "draw-simulation"], stay


def test_into_a_file_there_are_plain_lines_and_no_routine_messages(simulated):
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


BAD = {
    "missing.yaml": (None, "cannot be read (No such file or directory)"),
    "latin-1.yaml": (b"run: caf\xe9\n", "not UTF-8 (byte 8); save it in that encoding"),
    "list.yaml": (b"- 1\n- 2\n", "a configuration is a mapping of keys"),
    "empty.yaml": (b"", "a configuration is a mapping of keys"),
    "broken.yaml": (b"run: [", "neither YAML nor JSON"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_configuration_that_can_not_be_read_is_one_line_of_snakemake_and_of_make(simulated, name):
    content, said = BAD[name]
    if content is not None:
        (simulated.root / name).write_bytes(content)
    shutil.copy2(ROOT / "Makefile", simulated.root)
    before = sorted((simulated.root / "results").rglob("*"))
    for option in ([], ["--dry-run"]):
        done = simulated.snakemake("--logger", "kvlab", *option, config=name)
        assert done.returncode == 1
        assert done.stderr.startswith(f"kvlab: {name}: {said}"), done.stderr
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = simulated.command("env", f"PATH={path}", "make", "-o", "setup", "run", f"CONFIG={name}")
    assert done.returncode == 2
    first, *rest = done.stderr.splitlines()
    assert first.startswith(f"kvlab doctor: {name}: {said}")
    assert all(re.match(r"make(\[\d+\])?: \*\*\* ", line) for line in rest), rest  # [1]: within `make test`
    assert sorted((simulated.root / "results").rglob("*")) == before


def hidden(folder):
    return [path for path in folder.rglob(".*") if path.name != ".snakemake_timestamp"]


def test_results_that_can_not_be_written_are_one_line(simulated, tmp_path):
    """On a file system that may only be read; where nobody may mount one, a folder that may only be read."""
    results = simulated.root / "results"
    if results.exists():
        results.rename(tmp_path / "kept")
    results.mkdir()
    command = shlex.join([str(SNAKEMAKE), "--configfile", SMALL, "--cores", "1", "--logger", "kvlab"])
    mount = f"mount -t tmpfs -o ro tmpfs {shlex.quote(str(results))}"
    try:
        if os.geteuid():
            results.chmod(0o555)
        elif simulated.command("unshare", "-rm", "sh", "-c", mount).returncode:
            pytest.skip("root may write everywhere, and here it may not mount (unshare -rm)")
        else:
            command = shlex.join(["unshare", "-rm", "sh", "-c", f"{mount} && {command}"])
        done = simulated.command("bash", "-c", command)
    finally:
        results.chmod(0o755)
        assert list(results.iterdir()) == []
        results.rmdir()
        if (tmp_path / "kept").exists():
            (tmp_path / "kept").rename(results)
    assert done.returncode == 1
    why = "Permission denied" if os.geteuid() else "Read-only file system"
    assert done.stderr == f"kvlab: results/small: {why}; check that it exists and can be written\n"


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(simulated):
    """Files above 8 KiB are refused, as a disk without room refuses them."""
    run_ = simulated.root / "results" / "small"
    shutil.rmtree(run_, ignore_errors=True)
    command = shlex.join([str(SNAKEMAKE), "--configfile", SMALL, "--cores", "1", "--logger", "kvlab"])
    done = simulated.command("bash", "-c", f"ulimit -f 8; {command}")
    assert done.returncode == 1
    first, *rest = done.stderr.splitlines()
    assert first.startswith("kvlab simulate: results/small/simulated/")
    assert first.endswith("File too large; make room there")
    assert rest[0] == "failed: simulate"
    assert rest[-1].startswith("1 of 3 jobs failed, 0 are done and stay")
    assert "Traceback" not in done.stderr
    assert "CalledProcessError" not in done.stderr
    assert not hidden(run_)
    assert not (run_ / "simulated" / "metrics.json").exists()
    assert run(simulated).returncode == 0
    assert (run_ / "simulated" / "figures" / "figures.json").exists()
