"""What the commands print and where, what they refuse to replace, and how they end when they are stopped."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.fixtures.small_run import build

from kvlab import cli
from kvlab.publish.check.packed import MANIFEST, pack

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return build(tmp_path_factory.mktemp("results") / "small", figures=False)


@pytest.fixture
def run(small, tmp_path):
    return Path(shutil.copytree(small, tmp_path / "run"))


@pytest.fixture(scope="module")
def packed(small):
    folder = small.parent / "packed"
    pack(small, folder)
    return folder


@pytest.mark.parametrize(
    "command", [["claims"], ["compare", "same"], ["summary"], ["what-if", "seed", "vllm-paged", "0"]]
)
def test_results_go_to_standard_output_and_nothing_else_does(run, capsys, command):
    name, *rest = command
    cli.main([name, str(run), *(str(run) if word == "same" else word for word in rest)])
    out, err = capsys.readouterr()
    assert out.strip()
    assert err == ""


def test_the_summary_says_nothing_of_arms_that_were_not_asked_for(run, capsys):
    cli.main(["summary", str(run)])
    told = capsys.readouterr().out
    _, seed, pressured = re.split(r"^(?=seed|pressured)", told, flags=re.M)
    assert "memory efficiency: " in seed  # which has the sequential arm
    assert "memory efficiency: " not in pressured
    assert "paging alone: " in pressured
    assert "was not run" not in told


def test_a_result_reaches_a_pipe_also_with_a_log(run, tmp_path):
    done = kvlab("claims", str(run), "--log", str(tmp_path / "claims.log"))
    assert "no-prefix-cache" in done.stdout
    assert done.stderr == ""


def test_a_row_of_a_table_is_a_line_of_a_pipe(run):
    lines = kvlab("claims", str(run)).stdout.split("\n")
    assert all(line.split()[0] in ("verdict", "held", "failed", "not") for line in lines if line)


@pytest.mark.parametrize("place", ["results", "results/run", "results/run/model"])
def test_replay_replaces_only_what_a_replay_made(run, packed, tmp_path, place):
    (tmp_path / "results").mkdir()
    run.rename(tmp_path / "results" / "run")
    before = contents(tmp_path)
    done = kvlab("replay", str(packed), "--into", str(tmp_path / place))
    assert done.returncode == 2
    assert f"{tmp_path / place}: not replaced" in done.stderr
    assert len(done.stderr.split("\n")) == 2
    assert contents(tmp_path) == before


@pytest.mark.parametrize("place", ["results", "results/run", "packed"])
def test_pack_replaces_only_what_it_packed_itself(run, packed, tmp_path, place):
    (tmp_path / "results").mkdir()
    other = Path(shutil.copytree(run, tmp_path / "results" / "run"))
    shutil.copytree(packed, tmp_path / "packed")
    (tmp_path / "packed" / "notes.txt").write_text("of the user")
    before = contents(tmp_path)
    done = kvlab("pack", str(other), str(tmp_path / place))
    assert done.returncode == 2
    assert "not replaced" in done.stderr
    assert contents(tmp_path) == before


def test_pack_replaces_an_older_pack(run, packed, tmp_path):
    older = Path(shutil.copytree(packed, tmp_path / "packed"))
    (older / "metrics.json.xz").write_bytes(b"cut short")
    assert kvlab("pack", str(run), str(older)).returncode == 0
    assert (older / MANIFEST).read_bytes() == (packed / MANIFEST).read_bytes()


def test_a_full_disk_is_one_line(tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    target = tmp_path / "config.json"
    done = kvlab("configure", str(ROOT / "config/smoke.yaml"), "--output", str(target), preexec_fn=limit)
    assert done.returncode == 2
    assert done.stderr == f"kvlab configure: {target}: File too large; make room there\n"
    assert list(tmp_path.iterdir()) == []


def test_a_log_that_can_not_be_written_is_one_line_too(tmp_path):
    said = "kvlab configure: missing.yaml: cannot be read (No such file or directory); pass a file such as"
    done = kvlab("configure", "missing.yaml", "--log", "/dev/full")  # it opens, and takes nothing
    assert (done.returncode, done.stderr) == (2, f"{said} config/smoke.yaml\n")
    done = kvlab("configure", "missing.yaml", "--log", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == f"kvlab configure: {tmp_path}: Is a directory; check that it exists and can be written\n"


def test_an_interrupt_is_one_line(tmp_path):
    script = (
        "import os, signal, sys, threading\n"
        "from kvlab import cli, commands\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it\n"
        "def analyse(args):\n"
        "    os.kill(os.getpid(), signal.SIGINT); threading.Event().wait(30)\n"
        "analyse.__doc__ = commands.analyse.__doc__\n"
        "commands.analyse = analyse\n"
        "sys.exit(cli.main(['analyse', 'results/x']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment(), check=False
    )
    assert done.returncode == 130
    assert done.stderr.startswith("kvlab analyse: interrupted")
    assert len(done.stderr.split("\n")) == 2


def test_a_pipe_that_its_reader_closes_is_no_fault(run):
    script = f"{sys.executable} -m kvlab summary {run} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment(), check=False)
    assert done.stderr == ""
    assert done.returncode == 141


def kvlab(*arguments, **options):
    command = [sys.executable, "-m", "kvlab", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), check=False, **options)


def environment():
    return os.environ | {"PYTHONPATH": str(ROOT / "workflow")}


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
