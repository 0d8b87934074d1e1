"""Each changed byte, digit or missing file is named; nothing wrong is named where nothing is."""

from __future__ import annotations

import json
import shutil

import pytest

pytestmark = pytest.mark.engine


@pytest.fixture
def copy(project, tmp_path):
    """A copy of the run's folder, to be changed."""
    run = tmp_path / "results" / "tiny"
    shutil.copytree(project.run, run, ignore=shutil.ignore_patterns("model.safetensors"))
    return run


def faults(project, run):
    done = project.kvlab("verify", str(run / "report.html"))
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    return done.returncode, done.stdout.split("\n")[:-1]


def test_an_unchanged_run_verifies(project, copy):
    code, lines = faults(project, copy)
    assert code == 0
    assert "all as they should be" in lines[-1]
    checked = json.loads((project.run / "verify.json").read_text())
    assert checked["outcome"] == "pass"
    assert checked["checked"]["numbers in the page"] > 20


@pytest.mark.parametrize(
    "name", ["run.json", "phases.jsonl", "steps.jsonl", "requests.jsonl", "device.jsonl", "outputs.jsonl"]
)
def test_a_changed_byte_in_any_raw_log_is_named(project, copy, name):
    file = copy / "raw/words/vllm-paged/0" / name
    data = bytearray(file.read_bytes())
    place = next(i for i in range(len(data) // 2, len(data)) if chr(data[i]).isdigit())
    data[place] = ord("1") if data[place] != ord("1") else ord("2")
    file.write_bytes(data)
    code, lines = faults(project, copy)
    assert code != 0
    assert any(f"raw/words/vllm-paged/0/{name}" in line and "changed" in line for line in lines)
    assert any("quantities were computed from it" in line for line in lines)


def test_a_missing_raw_log_is_named(project, copy):
    (copy / "raw/queue/vllm-paged/0/steps.jsonl").unlink()
    code, lines = faults(project, copy)
    assert code != 0
    assert any("raw/queue/vllm-paged/0/steps.jsonl" in line and "no such file" in line for line in lines)


def test_swapped_repeats_are_named(project, copy):
    a, b = copy / "raw/words/vllm-paged/0", copy / "raw/words/vllm-sequential/0"
    a.rename(copy / "raw/x")
    b.rename(a)
    (copy / "raw/x").rename(b)
    code, lines = faults(project, copy)
    assert code != 0
    assert any("raw/words/vllm-paged/0/run.json" in line for line in lines)


def test_a_changed_digit_in_the_page_is_named(project, copy):
    page = copy / "report.html"
    html = page.read_text(encoding="utf-8")
    at = html.index('data-q="words.vllm-paged.throughput"')
    start = next(i for i in range(html.index(">", at), len(html)) if html[i].isdigit())
    wrong = "1" if html[start] != "1" else "2"
    page.write_text(html[:start] + wrong + html[start + 1 :], encoding="utf-8")
    code, lines = faults(project, copy)
    assert code != 0
    assert any("words.vllm-paged.throughput" in line for line in lines)


def test_a_changed_word_in_the_page_is_found(project, copy):
    page = copy / "report.html"
    html = page.read_text(encoding="utf-8")
    page.write_text(html.replace("</h2>", " indeed</h2>", 1), encoding="utf-8")
    code, lines = faults(project, copy)
    assert code != 0
    assert any(line.startswith(f"{page}:") for line in lines)


def test_changed_metrics_are_found_by_recomputing(project, copy):
    file = copy / "metrics.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    for quantity in document["quantities"]:
        if quantity["id"] == "words.speedup":
            quantity["value"] *= 2
    file.write_text(json.dumps(document), encoding="utf-8")
    code, lines = faults(project, copy)
    assert code != 0
    assert any("words.speedup" in line and "the raw logs give" in line for line in lines)


def test_a_changed_figure_is_named(project, copy):
    file = next((copy / "figures").glob("kv-shares.words.en.svg"))
    file.write_text(file.read_text(encoding="utf-8").replace("<g ", "<g  ", 1), encoding="utf-8")
    code, lines = faults(project, copy)
    assert code != 0
    assert any("kv-shares.words.en.svg" in line for line in lines)


def test_a_stage_by_itself_gives_the_same_bytes(project, tmp_path):
    done = project.kvlab("analyse", "results/tiny", "--output", str(tmp_path / "again.json"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "again.json").read_bytes() == (project.run / "metrics.json").read_bytes()


@pytest.mark.parametrize(
    "command",
    [
        "configure",
        "schema",
        "probe",
        "model",
        "workload",
        "measure",
        "analyse",
        "notebook",
        "report",
        "verify",
        "summary",
    ],
)
def test_each_command_has_help_with_an_example(project, command):
    done = project.kvlab(command, "--help")
    assert done.returncode == 0
    assert f"Example:\n  kvlab {command}" in done.stdout
