"""The workflow inside another one: `module`, from a folder that is not the project's, with the rules renamed."""

from __future__ import annotations

import json
import os
import re
import subprocess

import pytest

from .conftest import ROOT, SNAKEMAKE

OUTER = """\
configfile: "outer.yaml"


module kvlab:
    snakefile:
        "{snakefile}"
    config:
        config["kvlab"]{more}


use rule * from kvlab as kvlab_*


rule sum_up:
    default_target: True
    input:
        "results/inner/simulated/metrics.json",
        "results/inner/simulated/figures/figures.json",
    output:
        "sum.txt",
    shell:
        "cat {{input}} | wc -l > {{output}}"
"""
CONFIG = {
    "run": "inner",
    "report": {"title": "One"},
    "simulation": {
        "iterations": 300,
        "warmup_iterations": 50,
        "seeds": 2,
        "workloads": {"azure-conv": {"lengths": {"kind": "azure-conv"}}},
    },
}


def outer(folder, more="", **changed):
    (folder / "Snakefile").write_text(OUTER.format(snakefile=ROOT / "workflow" / "Snakefile", more=more))
    (folder / "outer.yaml").write_text(json.dumps({"kvlab": CONFIG | changed}))

    def snakemake(*arguments):
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [SNAKEMAKE, "--cores", "1", *arguments]
        return subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True, check=False)

    return snakemake


def rules(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return set(re.findall(r"^(?:local)?rule (\w+):", done.stdout + done.stderr, re.M))


def test_an_outer_workflow_runs_its_rules_and_repeats_only_what_changed(tmp_path):
    snakemake = outer(tmp_path)
    assert rules(snakemake("-n")) == {"kvlab_simulate", "kvlab_draw_simulation", "sum_up"}
    assert not (tmp_path / "results").exists()  # a dry run writes nothing
    assert rules(snakemake()) == {"kvlab_simulate", "kvlab_draw_simulation", "sum_up"}
    assert int((tmp_path / "sum.txt").read_text()) > 0
    assert json.loads((tmp_path / "results/inner/config.json").read_text())["simulation"]["seeds"] == 2

    assert rules(outer(tmp_path, report={"title": "Two"})("-n")) == set()
    palette = outer(tmp_path, report={"title": "Two", "palette": "tol-bright"})
    assert rules(palette("-n")) == {"kvlab_draw_simulation", "sum_up"}
    assert json.loads((tmp_path / "results/inner/config.json").read_text())["report"]["title"] == "One"
    assert rules(palette()) == {"kvlab_draw_simulation", "sum_up"}
    assert json.loads((tmp_path / "results/inner/config.json").read_text())["report"]["title"] == "Two"


def test_an_outer_workflow_plans_measurements_with_the_projects_own_files(tmp_path):
    workload = {"requests": {"kind": "azure-conv", "requests": 2}, "arms": ["hf-sequential-dynamic"], "repeats": 1}
    snakemake = outer(tmp_path, workloads={"w": workload | {"max_model_len": 256, "kv_slots": 512}})
    found = rules(snakemake("-n", "kvlab_all"))
    assert {"kvlab_probe", "kvlab_measure_transformers", "kvlab_notebook", "kvlab_report", "kvlab_crate"} <= found


@pytest.mark.parametrize("statement", ['prefix: "deep"', 'replace_prefix: {"results/": "ours/"}'])
def test_a_prefix_is_refused_in_one_line(tmp_path, statement):
    done = outer(tmp_path, f"\n    {statement}")("-n")
    assert done.returncode != 0
    assert "kvlab: a run lies in results/inner; leave prefix and replace_prefix out of the module" in done.stderr
    assert "Traceback" not in done.stderr
