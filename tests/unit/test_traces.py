"""The authors' requests, served when theirs arrived: with a synthetic file everywhere, with theirs where it is."""

from __future__ import annotations

import hashlib
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from tests.published import SHAREGPT, needs_sharegpt

from kvlab import config
from kvlab.allocators.contiguous import SimulatedRequest
from kvlab.allocators.paged import Paged
from kvlab.errors import ConfigError, LogError
from kvlab.prepare import artifact
from kvlab.prepare.lengths import paper as drawn_lengths
from kvlab.publish import simulation_table
from kvlab.publish.figures import simulation as figures
from kvlab.records import read_lines
from kvlab.simulate.scheduler import Scheduler
from kvlab.simulate.step_times import StepTimes
from kvlab.simulate.studies import stage, traces
from kvlab.simulate.studies.cases import POLICIES

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SHORT = {"duration_s": 60, "window_s": [20, 60], "step_ms": [30]}
FIG2 = {"rate": 4, **SHORT, "step_ms": [30, 28, 33], "seeds": 3}


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A file of the artifact's form, and its digest."""
    file = tmp_path_factory.mktemp("own") / "lengths.csv"
    pairs = drawn_lengths(500, seed=0).pairs()
    file.write_text("prompt_tokens,output_tokens\n" + "".join(f"{p},{o}\n" for p, o in pairs))
    return {"kind": "sharegpt", "path": str(file), "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}


def section(asked, workloads=None):
    simulation = {"iterations": 300, "warmup_iterations": 100, "seeds": 1, "traces": asked}
    simulation["workloads"] = workloads or {"azure-conv": {"lengths": {"kind": "azure-conv"}}}
    return config.parse({"run": "t", "simulation": simulation}, "test").section("simulate")


@pytest.fixture(scope="module")
def made(own, tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    settings = section({"fig2": FIG2 | {"lengths": own}})
    return root, settings, stage.simulate(settings, root)


def test_a_line_a_case_and_a_quantity_a_measure(made):
    root, _, metrics = made
    lines = read_lines(root / "simulated/traces.jsonl", traces.ServedTrace)
    cases = {(30.0, 0), (28.0, 0), (33.0, 0), (30.0, 1), (30.0, 2)}
    assert len(lines) == 4 * len(cases)
    for policy in POLICIES:
        assert {(line.step_ms, line.seed) for line in lines if line.policy == policy} == cases
    for number, line in enumerate(lines, start=1):
        assert line.tokens + line.reserved + line.internal + line.external == pytest.approx(1)
        for measure in traces.MEASURES:
            quantity = metrics.quantities[f"simulated.fig2.{line.policy}.{line.label}.{measure}"]
            assert (quantity.value, quantity.sources[0].rows) == (getattr(line, measure), str(number))
    first = metrics.quantities["simulated.fig2.paged.tokens"]
    assert first.value == metrics.quantities["simulated.fig2.paged.30ms-seed0.tokens"].value


def test_the_window_counts_the_iterations_that_begin_in_it(made, own):
    """40 s of a clock that never stops, at 30 ms each, by hand."""
    root, _, _ = made
    line = next(
        one
        for one in read_lines(root / "simulated/traces.jsonl", traces.ServedTrace)
        if (one.policy, one.label) == ("paged", "30ms-seed0")
    )
    drawn, arrivals = artifact.trace(artifact.read(**own), 4, 60, 0)
    jobs = [SimulatedRequest(n, *pair, at) for n, (pair, at) in enumerate(zip(drawn.pairs(), arrivals, strict=True))]
    pool = Paged(15_728, 16, watermark=0.01)
    bounds = {"max_running": 256, "token_budget": 2560, "chunk_prompts": False}
    steps = list(Scheduler(jobs, pool, **bounds, step_times=StepTimes(0.030)).run().steps(pool))
    inside = [step for step in steps if 20 <= step.t_s < 60]
    assert (line.iterations, line.requests) == (len(inside), len(jobs))
    assert line.running == pytest.approx(np.mean([step.running for step in inside]))
    assert line.tokens == pytest.approx(np.mean([sum(held[1] for held in step.held) for step in inside]) / 15_728)


def test_no_pair_of_lengths_is_in_any_file_of_the_run(made, own):
    root, _, _ = made
    files = [path for path in root.rglob("*") if path.is_file() and ("trace" in path.name or "claims" in path.name)]
    assert len(files) == 2
    for path in files:
        assert not re.search(r'"(prompt|output)"|prompt_tokens', path.read_text())
    folders = {path.name for path in (root / "simulated").iterdir() if path.is_dir()}
    assert folders == {"azure-conv"}


def test_another_file_decides_no_claim(made):
    root, _, _ = made
    verdicts = [one for one in stage.read_claims(root) if one.id.startswith("trace.fig2.")]
    assert len(verdicts) == 12
    assert {(one.verdict, one.note) for one in verdicts} == {
        ("not decided", "the lengths are of another file than the artifact's")
    }


@pytest.mark.parametrize(("output", "decided"), [(58, {"held", "failed", "informative"}), (60, {"not decided"})])
def test_a_file_of_no_known_digest_decides_where_its_means_are_those_of_fig_11(output, decided, tmp_path):
    file = tmp_path / "alpaca.csv"
    pairs = [(19, output), (20, output + 1)] * 400 + [(2000, 100)]  # the last one is dropped by the authors' filter
    file.write_text("prompt_tokens,output_tokens\n" + "".join(f"{p},{o}\n" for p, o in pairs))
    lengths = {"kind": "alpaca", "path": str(file)}
    stage.simulate(section({"fig13b": {"lengths": lengths, "rate": 30, **SHORT}}), tmp_path)
    found = [one for one in stage.read_claims(tmp_path) if one.id.startswith("trace.fig13b.")]
    assert len(found) == 4
    assert {one.verdict for one in found} <= decided
    means = f"prompts and outputs of 19.50 and {output}.50 tokens, 19.31 and 58.45 in Fig. 11"
    assert all(one.note.endswith(means) for one in found)


def test_the_requests_together_are_shown_at_each_step_time(own, tmp_path, monkeypatch, capsys):
    asked = {"fig13a": {"lengths": own, "rate": 4, **SHORT, "step_ms": [40, 20, 30], "seeds": 2}}
    found = stage.simulate(section(asked), tmp_path).quantities
    by_id = {one.id: one for one in stage.read_claims(tmp_path)}
    claim = by_id["trace.fig13a.paged.running"]
    assert list(claim.by_step) == ["20", "30", "40"]
    running = [found[key].value for key in claim.by_step.values()]
    assert running == sorted(running)  # bound by arrivals
    assert by_id["trace.fig2.paged.tokens"].by_step == {}
    simulation_table.show_claims([*by_id.values()], found, stage.read_traces(tmp_path))
    said = capsys.readouterr().out
    assert (
        "fig13a: 4 requests/s, means over iterations from 20 to 60 s, a step of 40 ms (others: 20, 30), seed 0" in said
    )
    points = ", ".join(f"{value:.2f} at {ms} ms" for ms, value in zip((20, 30, 40), running, strict=True))
    assert f"- trace.fig13a.paged.running: {points}\n" in said


def test_a_trace_that_is_no_longer_asked_for_leaves_no_numbers(own, tmp_path):
    stage.simulate(section({"fig2": {"lengths": own, "rate": 4, **SHORT}}), tmp_path)
    found = stage.simulate(section({}), tmp_path).quantities
    assert not [quantity.id for quantity in found if ".fig2." in quantity.id]
    assert not [one.id for one in stage.read_claims(tmp_path) if one.spread]


def test_the_table_shows_the_spread_and_what_the_scripts_do_differently(made, capsys):
    root, _, metrics = made
    simulation_table.show_claims(stage.read_claims(root), metrics.quantities)
    said = capsys.readouterr().out.split("\n")
    lines = read_lines(root / "simulated/traces.jsonl", traces.ServedTrace)
    shares = [f"{100 * one.tokens:.1f}%" for one in lines if one.policy == "paged" and one.seed == 0]
    row = next(line for line in said if line.startswith("trace.fig2.paged.tokens"))
    assert f"{min(shares)} to {max(shares)}" in row
    assert any("sends 1.5 requests a second for 900 s, the text says 2" in line for line in said)


def test_without_the_lengths_the_rest_works_and_says_what_is_not_decided(tmp_path, monkeypatch):
    monkeypatch.delenv("KVLAB_SHAREGPT", raising=False)
    made = stage.simulate(section({"fig2": FIG2 | {"lengths": {"kind": "sharegpt"}}}), tmp_path)
    assert "simulated.azure-conv.paged.tokens" in made.quantities
    verdicts = {one.id: one for one in stage.read_claims(tmp_path)}
    one = verdicts["trace.fig2.paged.tokens"]
    assert (one.verdict, one.ours, one.unit) == ("not decided", None, "share")
    assert "KVLAB_SHAREGPT" in one.note
    assert verdicts["trace.fig13b.paged.running"].note == "this run did not simulate it"
    step = verdicts["trace.fig13a.step-of-paper-batch"]
    assert (step.verdict, step.unit) == ("not decided", "ms")


def test_the_same_file_gives_the_same_bytes(made, tmp_path):
    root, settings, _ = made
    again = tmp_path / root.name
    stage.simulate(settings, again)
    for name in ("traces.jsonl", "metrics.json", "claims.json"):
        assert (again / "simulated" / name).read_bytes() == (root / "simulated" / name).read_bytes()


def test_the_environment_names_the_file_and_no_configuration_holds_it(own, monkeypatch):
    monkeypatch.setenv("KVLAB_SHAREGPT", own["path"])
    simulation = {"workloads": {"w": {"lengths": {"kind": "sharegpt"}}}}
    simulation["traces"] = {"fig2": FIG2 | {"lengths": {"kind": "sharegpt"}}}
    asked = config.parse({"run": "t", "simulation": simulation}, "test")
    assert asked.simulation_files() == [own["path"]]
    given = asked.section("simulate")
    assert given["traces"]["fig2"]["lengths"]["path"] == given["workloads"]["w"]["lengths"]["path"] == own["path"]
    assert own["path"] not in json.dumps(asked.model_dump(mode="json"))
    monkeypatch.setenv("KVLAB_SHAREGPT", "download")
    assert asked.simulation_files() == []


def test_a_simulated_workload_is_resampled_from_them(own, tmp_path):
    made = stage.simulate(section({}, {"theirs": {"lengths": own}}), tmp_path)
    assert made.quantities["simulated.theirs.paged.tokens"].value > 0.9
    pairs = set(artifact.read(**own).pairs())
    stays = [json.loads(line) for line in io.StringIO((tmp_path / "simulated/theirs/paged/0/stays.jsonl").read_text())]
    assert {(stay["prompt"], stay["output"]) for stay in stays} <= pairs


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"window_s": [30, 20]}, "times in order"),
        ({"window_s": [20, 70]}, "within duration_s 60"),
        ({"window_s": [float("nan"), 20]}, "window_s.0: Input should be a finite number"),
        ({"step_ms": []}, "step_ms"),
        ({"step_ms": [30, 30]}, "listed twice"),
        ({"rate": 0}, "rate"),
        ({"lengths": {"kind": "paper"}}, "kind"),
    ],
)
def test_a_trace_that_can_not_be_is_refused(change, says):
    with pytest.raises(ConfigError, match=says):
        section({"fig2": FIG2 | {"lengths": {"kind": "sharegpt"}} | change})


def test_a_trace_has_not_the_name_of_a_workload(own):
    with pytest.raises(ConfigError, match=r"traces\.azure-conv: a simulated workload"):
        section({"azure-conv": FIG2 | {"lengths": own}})


def test_a_line_that_is_none_is_refused(made, tmp_path):
    root, settings, _ = made
    from shutil import copytree

    copytree(root, tmp_path / "copy")
    file = tmp_path / "copy/simulated/traces.jsonl"
    file.write_text(file.read_text().replace('"step_ms"', '"steps"', 1))
    with pytest.raises(LogError, match=r"traces\.jsonl"):
        stage.quantities(settings, tmp_path / "copy")


def test_the_figure_has_bars_of_the_trace_beside_the_papers(made):
    root, settings, metrics = made
    figures.draw(settings, root, "okabe-ito")
    svg = (root / "simulated/figures/shares.en.svg").read_text()
    assert "the authors' requests" in re.sub(r"&#x27;|&apos;", "'", svg)
    share = 100 * metrics.quantities["simulated.fig2.orca-max.internal"].value
    assert f">{share:.1f}<" in svg
    assert ">57.3<" in svg  # the paper's


@needs_sharegpt
def test_with_the_authors_requests_every_bar_of_fig_2_is_within_a_point(tmp_path, monkeypatch):
    monkeypatch.setenv("KVLAB_SHAREGPT", SHAREGPT)
    asked = config.load(ROOT / "config/paper.yaml").section("simulate")["traces"]
    few = {"fig2": asked["fig2"] | {"seeds": 1}, "fig13a": asked["fig13a"]}
    found = stage.simulate(section(few), tmp_path).quantities
    verdicts = {one.id: one for one in stage.read_claims(tmp_path) if one.id.startswith("trace.fig")}
    for name in ("fig2", "fig13a"):
        decided = {one.verdict for key, one in verdicts.items() if key.startswith(f"trace.{name}.")}
        assert decided == {"held"} | ({"informative"} if name == "fig13a" else set())
    # Bound by arrivals: the paper's batch needs a longer step, and between the simulated ones by straight lines.
    assert {28, 29, 30, 31, 32, 33} == {*asked["fig2"]["step_ms"]}
    running = [found[f"simulated.fig13a.paged.{step}ms-seed0.running"].value for step in (40, 45)]
    assert running[0] < 30.42 < running[1]
    step = found["simulated.fig13a.paged.step-of-paper-batch"]
    assert (step.unit, step.value) == ("ms", pytest.approx(np.interp(30.42, running, [40, 45])))
    # As far as another step time is concerned, 28 to 33 ms, too.
    lines = read_lines(tmp_path / "simulated/traces.jsonl", traces.ServedTrace)
    for line in (one for one in lines if one.trace == "fig2"):
        for measure in ("tokens", "reserved", "internal", "external"):
            if claim := verdicts.get(f"trace.fig2.{line.policy}.{measure}"):
                assert abs(getattr(line, measure) - claim.paper) <= 0.01
