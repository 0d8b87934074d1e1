"""What verify finds in a run of the fixture; the same on a run of real engines: tests/workflow/test_verify.py."""

from __future__ import annotations

import json
import re
import shutil
from html import unescape
from pathlib import Path

import pytest
from tests.fixtures import small_run

from kvlab import cli, config
from kvlab.errors import KvlabError
from kvlab.publish.check import evidence, made_again
from kvlab.publish.check import verify as stage
from kvlab.publish.check.claims import write as judge_again
from kvlab.publish.check.found import Found
from kvlab.publish.check.verify import verify
from kvlab.publish.figures.simulation import draw as draw_simulation
from kvlab.publish.page.render import render
from kvlab.records import read_text, write_json
from kvlab.simulate.studies.stage import simulate

pytestmark = pytest.mark.slow

SIMULATION = {
    "iterations": 300,
    "warmup_iterations": 100,
    "seeds": 1,
    "workloads": {"sharegpt": {"lengths": {"kind": "paper"}}},
}
CONFIG = config.parse(small_run.CONFIG | {"simulation": SIMULATION}, "fixture")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    run = small_run.build(tmp_path_factory.mktemp("verify") / "small")
    write_json(run / "config.json", CONFIG.model_dump(mode="json"))
    simulate(CONFIG.section("simulate"), run)
    draw_simulation(CONFIG.section("simulate"), run, "okabe-ito")
    render(CONFIG.section("report"), run)
    stage.write(run / "verify.json", verify(run / "report.html", CONFIG.section))
    return run


@pytest.fixture
def run(small, tmp_path):
    return Path(shutil.copytree(small, tmp_path / "small"))


def faults(run):
    return verify(run / "report.html", CONFIG.section).faults


def test_an_untouched_run_has_no_faults(run):
    assert faults(run) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("\n", "\r\n"),
        ("\n", "\u2028"),
        ("</html>\n", "</html>"),
        ("</html>\n", "</html>\n\n"),
        ("<!doctype", "\ufeff<!doctype"),
    ],
    ids=["CRLF", "U+2028", "no last line end", "one more line end", "BOM"],
)
def test_a_page_that_differs_in_line_ends_alone_does_not_pass(run, old, new):
    page = (run / "report.html").read_bytes().decode()
    assert old in page
    (run / "report.html").write_bytes(page.replace(old, new, 1).encode())
    (fault,) = stage._unlike(run / "report.html", read_text(run / "report.html"), page)
    assert fault.startswith(f"{run / 'report.html'}:")
    assert "where this run's page has" in fault


def test_a_page_that_is_not_byte_for_byte_what_its_run_renders_does_not_pass(run):
    page = (run / "report.html").read_bytes()
    (run / "report.html").write_bytes(page.replace(b"\n", b"\r\n", 1))
    assert len(faults(run)) == 1


def test_a_quantity_that_differs_in_another_field_than_its_value_is_named_with_that_field(run):
    file = run / "metrics.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    quantity = next(q for q in document["quantities"] if q["id"] == "seed.vllm-paged.throughput")
    quantity["n"] += 1
    file.write_text(json.dumps(document), encoding="utf-8")
    found = next(fault for fault in faults(run) if "seed.vllm-paged.throughput" in fault)
    assert f"has n {quantity['n']}, the raw logs give {quantity['n'] - 1}" in found


# --- each file that a page shows, changed, and the page rendered again -------------------------------------


def edit(file, change):
    document = json.loads(file.read_text(encoding="utf-8"))
    change(document)
    file.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def replace(file, old, new):
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


def picture(run):
    """A picture with another curve, and a manifest that agrees with it."""
    import hashlib

    file = next((run / "figures").glob("occupancy.seed.en.svg"))
    old = hashlib.sha256(file.read_bytes()).hexdigest()
    replace(file, "<path d=", "<path  d=")
    replace(run / "figures" / "figures.json", old, hashlib.sha256(file.read_bytes()).hexdigest())


ALTERED = {
    "a claim's verdict": (
        lambda run: edit(run / "claims.json", lambda d: d["claims"][0].update(verdict="failed")),
        "claims.json: claim",
    ),
    "a claim left out": (lambda run: edit(run / "claims.json", lambda d: d["claims"].pop()), "claims.json: "),
    "a guard": (
        lambda run: edit(run / "metrics.json", lambda d: d["guards"][0].update(outcome="fail")),
        "metrics.json: guards",
    ),
    "whether a run counts": (
        lambda run: edit(run / "metrics.json", lambda d: d["runs"][0].update(reason="because")),
        "metrics.json: runs",
    ),
    "a version in the metrics": (
        lambda run: edit(run / "metrics.json", lambda d: d["facts"]["model"].update(architecture="Other")),
        "metrics.json: facts",
    ),
    "a prompt": (
        lambda run: replace(run / "workloads" / "seed.jsonl", "Hello!", "Good evening!"),
        "workloads/seed.jsonl: sha256",
    ),
    "an answer": (
        lambda run: replace(run / "raw/seed/vllm-paged/0/outputs.jsonl", "You are welcome", "Never mind"),
        "outputs.jsonl: changed",
    ),
    "the model's fingerprint": (
        lambda run: edit(run / "model/fingerprint.json", lambda d: d.update(sha256="e" * 64)),
        "fingerprint.json: sha256",
    ),
    "the model's name": (
        lambda run: edit(run / "model/fingerprint.json", lambda d: d.update(source="meta-llama/Other")),
        "fingerprint.json: changed since the run was verified",
    ),
    "the cores": (
        lambda run: edit(run / "environment.json", lambda d: d["machine"].update(cores_usable=64)),
        "environment.json: changed since the run was verified",
    ),
    "an engine's version": (
        lambda run: edit(run / "environment.json", lambda d: d["packages"].update(transformers="9.9")),
        "was run by 5.17.0",
    ),
    "a stage's seconds": (lambda run: replace(run / "costs/probe.tsv", "1.5", "0.5"), "costs/probe.tsv: changed"),
    "a picture": (picture, "occupancy.seed.en.svg: not the figure that metrics and logs give"),
    "a caption": (
        lambda run: edit(run / "figures/figures.json", lambda d: d["figures"][0]["caption"].update(en="Ten times.")),
        "caption or text alternative",
    ),
    "a simulated claim": (
        lambda run: edit(run / "simulated/claims.json", lambda d: d[0].update(verdict="failed")),
        "simulated/claims.json: not what is made",
    ),
    "a simulated number": (
        lambda run: edit(run / "simulated/metrics.json", lambda d: d["quantities"][0].update(value=0.5)),
        "simulated/metrics.json: not what is made",
    ),
    "a simulated log": (
        lambda run: replace(run / "simulated/table1.jsonl", "{", "{ "),
        "simulated/table1.jsonl: not what is made",
    ),
    "a simulated picture": (
        lambda run: replace(run / "simulated/figures/shares.en.svg", "<path d=", "<path  d="),
        "shares.en.svg: not what is made",
    ),
    "a simulated picture in the place of another": (
        lambda run: shutil.copy(run / "simulated/figures/pool.zh.svg", run / "simulated/figures/shares.zh.svg"),
        "shares.zh.svg: not what is made",
    ),
}


FIRST = ("an answer",)  # a changed log keeps the metrics from being computed again, so it is altered by itself


@pytest.fixture(scope="module")
def altered(small, tmp_path_factory):
    """The faults of a run in which all things are altered, and of one in which FIRST are; each page follows its run."""
    found = []
    for names in ([name for name in ALTERED if name not in FIRST], FIRST):
        run = Path(shutil.copytree(small, tmp_path_factory.mktemp("altered") / "small"))
        for name in names:
            ALTERED[name][0](run)
        render(CONFIG.section("report"), run)
        found += faults(run)
    return found


@pytest.mark.parametrize("what", ALTERED)
def test_a_changed_file_is_found_though_the_page_was_changed_to_match(altered, what):
    assert any(ALTERED[what][1] in fault for fault in altered), altered


CHECKS = {
    "claims.json": lambda run, found: evidence._claims(run, found),
    "environment.json": lambda run, found: evidence._machine(run, [], found),
    "model/fingerprint.json": lambda run, found: evidence._model(run, [], found),
    "figures/figures.json": lambda run, found: made_again.pictures(run, CONFIG.section("report"), found),
    "simulated/metrics.json": lambda run, found: made_again.simulated(run, CONFIG.section, found),
}


@pytest.mark.parametrize("file", CHECKS)
def test_a_file_that_is_malformed_is_named(run, file):
    for content in (
        *("", "{", "[]", "3", "null", "[" * 20_000, '{"claims": 3, "figures": 3, "packages": 3, "files": 3}'),
        '{"claims": [{}], "figures": [{}], "packages": {}, "gpus": [3], "machine": 3, "files": {"a": 3}}',
    ):
        (run / file).write_text(content)
        found = Found()
        CHECKS[file](run, found)
        assert [fault for fault in found.faults if file in fault], content
        assert all("\n" not in fault for fault in found.faults)


def test_a_page_that_can_not_be_rendered_from_malformed_files_is_a_fault(run):
    (run / "claims.json").write_text('{"claims": [3]}')
    assert any("can't be rendered from these files" in fault for fault in faults(run))
    (run / "metrics.json").write_text("[]")
    with pytest.raises(KvlabError, match="not a metrics document"):
        faults(run)


def test_what_can_not_be_proved_is_listed(run, capsys):
    assert cli.main(["verify", str(run / "report.html")]) == 0
    out = capsys.readouterr().out
    for what in ("raw logs: ", "answers: ", "environment.json, ", "costs/, ", "model, ", "unchanged since verify.json"):
        assert f"not proved: {what}" in out or what == "unchanged since verify.json"
        assert what in out
    (run / "verify.json").unlink()
    assert cli.main(["verify", str(run / "report.html")]) == 0
    assert "no verify.json holds its digest yet" in capsys.readouterr().out


def test_the_page_lists_what_verify_can_not_prove(run):
    """In the same words, for each of them that a run can leave open."""
    html = (run / "report.html").read_text()
    section = html[html.index('id="not-proved"') :].partition("</ul>")[0]
    items = [unescape(re.sub(r"<[^>]+>", "", one)) for one in re.findall(r"<li>(.*?)</li>", section)]
    proved = verify(run / "report.html", CONFIG.section).not_proved
    assert len(proved) >= 7
    for line in proved:
        assert any(item.startswith(line.removesuffix(": unchanged since verify.json was written").removesuffix(
            ": they are not here")) for item in items), line  # fmt: skip
    assert "原始日志" in section
    with pytest.raises(KeyError, match=r"has no proof\.not_proved\.of\.more"):
        Found().leave("more")


def test_judging_claims_again_gives_what_verify_expects(run):
    judge_again(run)
    assert faults(run) == []
