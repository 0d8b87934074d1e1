"""What is run again after a change: asked of the DAG, for every module of the package and every kind of setting."""

from __future__ import annotations

import re
import resource
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from .conftest import copy_project

pytestmark = pytest.mark.engine

VLLM = {"words/vllm/0", "queue/vllm/0", "queue/vllm-paged-eager/0"}
HF = {"words/hf-sequential-static/0"}
HF |= {f"queue/hf-{arm}/0" for arm in ("sequential-static", "sequential-dynamic", "batch-static", "continuous")}
WORKLOADS = {"words", "queue"}
PAGE = {"report", "verify"}
FOLLOWERS = {"calibrate", "claims", "crate"}  # what follows metrics or page is not told apart here
DRAWN = {"notebook", *PAGE}
ANALYSED = {"analyse", *DRAWN}

# module -> (rules that run again, workloads made again, measures made again)
EXPECTED: dict[str, tuple[set[str], set[str], set[str]]] = {
    "prepare/probe.py": ({"probe", *PAGE}, set(), set()),
    "prepare/model.py": ({"model", "workload", "measure", *ANALYSED}, WORKLOADS, VLLM | HF),
    "prepare/shapes.py": ({"model", "workload", "measure", *ANALYSED}, WORKLOADS, VLLM | HF),
    "prepare/workload.py": ({"workload", "measure", *ANALYSED}, WORKLOADS, VLLM | HF),
    "measure/run.py": ({"measure", *ANALYSED}, set(), VLLM | HF),
    "measure/monitor.py": ({"measure", *ANALYSED}, set(), VLLM | HF),
    "measure/engines/vllm/driver.py": ({"measure", *ANALYSED}, set(), VLLM),
    "measure/engines/vllm/recorder.py": ({"measure", *ANALYSED}, set(), VLLM),
    "measure/engines/transformers/driver.py": ({"measure", *ANALYSED}, set(), HF),
    "measure/engines/transformers/generate.py": ({"measure", *ANALYSED}, set(), HF),
    "analyse/metrics.py": (ANALYSED, set(), set()),
    "accounting.py": (ANALYSED, set(), set()),
    "analyse/statistics.py": (ANALYSED, set(), set()),
    "analyse/ladder.py": (ANALYSED, set(), set()),
    "publish/figures/drawing.py": (DRAWN, set(), set()),
    "publish/figures/pool.py": (DRAWN, set(), set()),
    "publish/notebook.py": (DRAWN, set(), set()),
    "publish/page/render.py": (PAGE, set(), set()),
    "publish/check/verify.py": ({"verify"}, set(), set()),
    "cli.py": (set(), set(), set()),
    "config/run.py": (set(), set(), set()),
    "arms.py": (set(), set(), set()),
}

# what commands import that no rule runs, and what reaches a stage as its parameters
COMMANDS = ["completion", "prepare.doctor", "publish.summary", "publish.check.compare", "publish.check.packed"]
COMMANDS += ["publish.simulation_table", "publish.prediction_table", "publish.plan_page", "publish.trace"]
COMMANDS += ["simulate.agree", "simulate.forecasts.predict"]
COMMANDS += [f"simulate.planning.{name}" for name in ("plan", "demand", "memory")]
SETTINGS = ["part", "measure.engines.registry"]
SETTINGS += [f"measure.engines.{engine}.settings" for engine in ("transformers", "vllm")]


@contextmanager
def edited(file: Path, text: str = "\n# edited\n"):
    before = file.read_bytes()
    file.write_bytes(before + text.encode())
    try:
        yield
    finally:
        file.write_bytes(before)


def test_a_second_run_does_nothing_within_five_seconds(project):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = project.snakemake()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout + done.stderr
    # Of the processor's time: what else the machine does is not Snakemake's.
    assert after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime < 5


@pytest.mark.parametrize("module", EXPECTED)
def test_an_edited_module_reruns_what_uses_it_and_nothing_else(project, module):
    rules, workloads, measures = EXPECTED[module]
    with edited(project.root / "workflow" / "kvlab" / module):
        due = project.due()
    assert set(due) - FOLLOWERS == rules
    assert due.get("workload", set()) == workloads
    assert due.get("measure", set()) == measures


def test_an_edit_that_is_taken_back_reruns_nothing(project):
    with edited(project.root / "workflow" / "kvlab" / "analyse" / "metrics.py"):
        pass
    assert project.due() == {}


def test_every_module_reruns_something_or_is_the_entrance(project):
    """Each module that a stage imports is an input of some rule."""
    from kvlab.dag.imports import ENTRANCE, closure

    package = project.root / "workflow" / "kvlab"
    known = project.snakemake("-n", "-F").stdout + project.snakemake("-n", "-F", config="config/paper.yaml").stdout
    without_a_rule = {str(path.relative_to(package)) for path in closure(package, [*COMMANDS, *SETTINGS])}
    for path in sorted(package.rglob("*.py")):
        name = "kvlab." + ".".join(path.relative_to(package).with_suffix("").parts)
        if name in ENTRANCE or name.startswith(("kvlab.config.", "kvlab.dag.")) or path.name == "__init__.py":
            continue
        if str(path.relative_to(package)) in without_a_rule:
            continue
        assert str(path.relative_to(project.root)) in known, f"{name} is no rule's input"


@pytest.mark.parametrize(
    ("settings", "rules", "measures"),
    [
        (['prompts=["Another prompt"]'], {"workload", "measure", *ANALYSED}, {"words"}),
        (["block_size=32"], {"measure", *ANALYSED}, {"words", "queue"}),
        (["attn_implementation=eager"], {"measure", *ANALYSED}, {"words", "queue"}),
        (["interval_ms=50"], {"measure", *ANALYSED}, {"words", "queue"}),
        (["analysis={confidence: 0.9}"], ANALYSED, set()),
        (["palette=tol-bright"], DRAWN, set()),
        (["title=Ours"], PAGE, set()),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_changed_setting_reruns_what_depends_on_it(project, settings, rules, measures):
    due = project.due("--config", *settings)
    assert set(due) - FOLLOWERS == rules
    assert {w for job in due.get("measure", set()) for w in job.split("/") if w in WORKLOADS} == measures


def test_more_repeats_keep_those_there_are(project):
    due = project.due("--config", "repeats=2")
    assert len(due["measure"]) == len(VLLM | HF)
    assert all(job.endswith("/1") for job in due["measure"])
    assert "workload" not in due
    assert "model" not in due


def test_a_changed_text_of_the_page_renders_it_alone(project):
    with edited(project.root / "report" / "strings.en.yaml", "\n# edited\n"):
        assert set(project.due()) - FOLLOWERS == PAGE


def test_snakemakes_report_holds_the_page_and_what_proves_it(project, tmp_path):
    done = project.snakemake("--report", str(tmp_path / "report.zip"))
    assert done.returncode == 0, done.stderr[-3000:]
    with zipfile.ZipFile(tmp_path / "report.zip") as made:
        names = {Path(name).name for name in made.namelist()}
        page = next(made.read(name).decode() for name in made.namelist() if name.endswith("report/report.html"))
    assert {"report.html", "analysis.ipynb", "claims.json", "verify.json"} <= names
    assert all(f'"{category}"' in page for category in ("Page", "Notebook", "Claims", "Verified"))
    assert "a single file that needs no network" in page


def test_a_process_asks_a_cluster_for_the_time_of_all_its_passes(project):
    """Fifteen minutes to load, and ten for each pass: four policies and feeds in one process."""
    block = next(
        block
        for block in project.snakemake("-n", "-F").stdout.split("\n\n")
        if "rule measure_vllm" in block and "workload=queue, process=vllm," in block
    )
    assert "runtime=45" in block


def test_tensor_parallel_2_asks_for_two_gpus_and_the_run_beside_it_for_one(tmp_path):
    made = copy_project(tmp_path)

    def asked(*settings):
        done = made.snakemake("-n", *settings, config="config/llama-8b-tp2.yaml")
        assert done.returncode == 0, done.stderr[-3000:]
        blocks = re.split(r"\n(?=(?:local)?rule )", done.stdout + done.stderr)
        return [re.search(r"gpu=(\d+)", block)[1] for block in blocks if block.startswith("rule measure_vllm")]

    assert asked() == ["2", "2"]
    assert asked("--config", "tensor_parallel_size=1", "run=llama-8b-tp1") == ["1", "1"]
