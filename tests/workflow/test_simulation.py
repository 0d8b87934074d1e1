"""The simulation's part of the DAG: no engine, no model; an edit reruns what it touches; faults are one line."""

from __future__ import annotations

import json
import re
import sys
from contextlib import contextmanager

import pytest

from .conftest import copy_project

SMALL = "small.yaml"
TEXT = """\
run: small
simulation:
  iterations: 600
  warmup_iterations: 100
  seeds: 2
  workloads:
    sharegpt: { lengths: { kind: paper } }
    azure-conv: { lengths: { kind: azure-conv } }
"""


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    made = copy_project(tmp_path_factory.mktemp("simulated"))
    (made.root / SMALL).write_text(TEXT)
    done = made.snakemake(config=SMALL)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return made


def due(project):
    done = project.snakemake("-n", config=SMALL)
    assert done.returncode == 0, done.stderr
    return set(re.findall(r"^(?:local)?rule (\w+):", done.stdout + done.stderr, re.M)) - {"all"}


@contextmanager
def edited(file, change=lambda text: text + "\n# edited\n"):
    before = file.read_bytes()
    file.write_text(change(before.decode()))
    try:
        yield
    finally:
        file.write_bytes(before)


def test_nothing_but_the_simulation_runs(simulated):
    folder = simulated.root / "results" / "small"
    assert {path.name for path in folder.iterdir()} == {"config.json", "costs", "logs", "simulated"}
    figures = json.loads((folder / "simulated/figures/figures.json").read_text())["figures"]
    assert [figure["id"] for figure in figures] == ["simulated.shares", "simulated.pool"]
    assert due(simulated) == set()


@pytest.mark.parametrize(
    ("file", "again"),
    [
        ("workflow/kvlab/allocators/paged.py", {"simulate", "draw_simulation"}),
        ("workflow/kvlab/accounting.py", {"simulate", "draw_simulation"}),
        ("workflow/kvlab/prepare/lengths.py", {"simulate", "draw_simulation"}),
        ("config/data/paper-values.yaml", {"simulate", "draw_simulation"}),
        ("workflow/kvlab/publish/figures/small_pool.py", {"draw_simulation"}),
        ("report/simulation.en.yaml", {"draw_simulation"}),
        ("workflow/kvlab/measure/run.py", set()),
        ("workflow/kvlab/cli.py", set()),
    ],
)
def test_an_edit_reruns_what_uses_it(simulated, file, again):
    with edited(simulated.root / file):
        assert due(simulated) == again


def test_another_setting_reruns_it(simulated):
    with edited(simulated.root / SMALL, lambda text: text.replace("seeds: 2", "seeds: 3")):
        assert due(simulated) == {"simulate", "draw_simulation"}


def test_the_table_says_both_sides_and_the_limits(simulated):
    done = simulated.kvlab("simulated", "results/small")
    assert done.returncode == 0
    said = done.stdout
    line = next(line for line in said.splitlines() if line.startswith("fig2.orca-max.external"))
    assert line.split() == ["fig2.orca-max.external", "Fig.", "2", "8.9%", "8.9%", "8.8%", "to", "9.0%", "held"]
    assert "consistency check" in said
    assert "fig15.alpaca.n2" in said
    assert "not run" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("simulate", "results/none"), "results/none/config.json: no such file"),
        (("simulated", "results/none"), "metrics.json: no such file"),
        (("draw-simulation", "results/bare"), "has no simulation"),
        (("what-if", "results/small", "w", "vllm-paged", "0"), "no such file"),
    ],
)
def test_faults_are_one_line(simulated, arguments, says):
    bare = simulated.root / "results" / "bare"
    bare.mkdir(parents=True, exist_ok=True)
    workload = {"requests": {"kind": "azure-conv"}, "arms": ["vllm-paged"]}
    (bare / "config.json").write_text(json.dumps({"run": "bare", "workloads": {"w": workload}}))
    done = simulated.kvlab(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_block_larger_than_the_pool_stops_before_anything_runs(simulated):
    with edited(simulated.root / SMALL, lambda text: text + "  pool_slots: 64\n  block_size: 65\n"):
        done = simulated.snakemake(config=SMALL)
    assert done.returncode != 0
    assert "block_size 65 is larger than the pool" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_it_needs_no_engine(simulated):
    """What a light install lacks is not imported, by the stage, the figures or the table."""
    script = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'vllm', 'numba'): sys.modules[name] = None\n"
        "from kvlab.cli import main\n"
        "sys.exit(main(['simulate', 'results/small']) or main(['draw-simulation', 'results/small'])"
        " or main(['simulated', 'results/small']))\n"
    )
    done = simulated.command(sys.executable, "-c", script)
    assert done.returncode == 0, done.stderr
