"""The paper's figures as they are measured: what is drawn is what the metrics hold, and a run without them has none."""

import json
import re
import shutil
from types import SimpleNamespace

import pytest
from tests.fixtures import small_run

from kvlab.arms import ARMS
from kvlab.paths import ROOT
from kvlab.publish.check.packed import unpack
from kvlab.publish.check.verify import numbers_shown
from kvlab.publish.figures.drawing import Figures
from kvlab.publish.figures.paper import MARKS, by_block
from kvlab.publish.page.headlines import filling, rated
from kvlab.publish.page.render import build
from kvlab.quantities import UNITS, Metrics
from kvlab.roles import ADMITTING

pytestmark = pytest.mark.slow

SECTION = {"language": "en", "title": None, "palette": "okabe-ito"}
PER_TOKEN = "ms/token" if "ms/token" in UNITS else "ms"
POLICIES = ["vllm-contiguous", "vllm-pow2", "vllm-oracle", "vllm-paged"]
KINDS = ("paper-shares", "rates", "batched", "preemption")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return small_run.build(tmp_path_factory.mktemp("paper") / "small", figures=False)


@pytest.fixture(scope="module")
def measured(run, tmp_path_factory):
    """The run with quantities such as a sweep over request rates has: four policies at three rates."""
    root = tmp_path_factory.mktemp("paper") / "rates"
    shutil.copytree(run, root)
    document = json.loads((root / "metrics.json").read_text(encoding="utf-8"))
    model = next(q for q in document["quantities"] if q["id"] == "pressured.vllm-paged.throughput")

    def put(key, value, unit):
        document["quantities"] = [q for q in document["quantities"] if q["id"] != f"pressured.{key}"]
        document["quantities"].append(
            model
            | {"id": f"pressured.{key}", "value": value, "unit": unit, "interval": None, "samples": [value], "n": 1}
        )

    for number, arm in enumerate(POLICIES, start=1):
        for share, value in (
            ("tokens", 0.2 * number),
            ("reserved", 0.1),
            ("internal", 0.05),
            ("external", 0.85 - 0.2 * number),
        ):
            put(f"{arm}.queued.share.{share}", value, "share")
        for rate in (1, 2, 4):
            put(f"{arm}@{rate}.normalized", 10.0 * rate / number, PER_TOKEN)
            put(f"{arm}@{rate}.running.mean", 3.0 * rate * number, "requests")
            put(f"{arm}@{rate}.recomputed.share", 0.01 * rate if arm == "vllm-paged" else 0.0, "share")
            put(f"{arm}@{rate}.preemptions", 5.0 * rate if arm == "vllm-paged" else 0.0, "count")
        put(f"{arm}.sustained", 1.2 * number, "requests/s")
    document["facts"]["arms"] = {name: arm.shown() for name, arm in ARMS.items()}
    (root / "metrics.json").write_text(json.dumps(document), encoding="utf-8")
    config = json.loads((root / "config.json").read_text(encoding="utf-8"))
    config["workloads"]["pressured"] |= {
        "requests": {"kind": "sharegpt", "requests": 18},
        "kv_slots": 15728,
        "arrivals": {"kind": "poisson", "bound_s_per_token": 0.015},
    }
    (root / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return root


def drawn(root):
    figures = Figures(root, root / "figures", "okabe-ito", "en")
    for kind in KINDS:
        figures.draw(kind, "pressured")
    figures.finish()
    return figures, {
        one["kind"]: (root / "figures" / one["file"]).read_text(encoding="utf-8") for one in figures.manifest
    }


def test_a_run_without_policies_or_rates_leaves_them_out(run):
    figures, svg = drawn(run)
    assert svg == {}
    assert len(figures.left_out) == len(KINDS)
    assert 'id="paper"' not in build(SECTION, run)


def test_each_figure_shows_every_policy_and_the_paper_beside_it(measured):
    _, svg = drawn(measured)
    assert set(svg) == set(KINDS)
    for kind in ("paper-shares", "rates", "batched"):
        assert all(f">{arm}<" in svg[kind] for arm in POLICIES), kind
    assert "the paper" in svg["paper-shares"]
    for words in ("the bound", "sustained rate"):
        assert words in svg["rates"]
    assert "the paper, at its rate" in svg["batched"]
    assert "vllm-paged" in svg["preemption"]
    assert "vllm-oracle" not in svg["preemption"]  # it computed nothing again


def test_the_bars_are_the_quantities(measured):
    _, svg = drawn(measured)
    labels = re.findall(r">(\d+\.\d)<", svg["paper-shares"])
    assert {"20.0", "40.0", "60.0", "80.0", "10.0", "65.0", "45.0", "25.0"} <= set(labels)


def test_the_paper_s_numbers_stand_only_beside_its_own_lengths_and_pool(measured, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(measured, other)
    config = json.loads((other / "config.json").read_text(encoding="utf-8"))
    config["workloads"]["pressured"]["kv_slots"] = 4096
    (other / "config.json").write_text(json.dumps(config), encoding="utf-8")
    _, svg = drawn(other)
    assert "the paper" not in svg["paper-shares"] + svg["batched"]


def test_the_page_has_a_section_for_them(measured):
    drawn(measured)
    page = build(SECTION, measured)
    assert 'id="paper"' in page
    assert 'data-q="pressured.vllm-paged.sustained"' in page
    assert 'data-q="pressured.vllm-paged@4.recomputed.share"' in page
    assert "The cost of preemption" in page


def test_every_policy_has_a_mark_of_its_own():
    assert len(set(MARKS.values())) == len(MARKS)
    assert {arm.options.get("policy") for arm in ARMS.values() if arm.role in ADMITTING} == set(MARKS)


def test_requests_that_arrive_over_time_are_drawn_and_open_the_page_where_they_alone_show_paging(tmp_path):
    root = tmp_path / "policies"
    assert unpack(ROOT / "results" / "reference" / "opt-13b-policies", root) == []
    figures = Figures(root, root / "figures", "okabe-ito", "en")
    assert figures.rated == ["open"]
    for kind in KINDS:
        assert figures.draw(kind, "open") is not None, kind
    figures.finish()
    document = json.loads((root / "metrics.json").read_text(encoding="utf-8"))
    for quantity in document["quantities"]:
        if quantity["id"] == "closed.paging.gain":  # a run whose closed workload lacks one of the two arms
            quantity |= {"value": None, "interval": None, "samples": [], "why_none": "not asked"}
    (root / "metrics.json").write_text(json.dumps(document), encoding="utf-8")
    found = {quantity["id"]: quantity["value"] for quantity in document["quantities"]}
    workload, base, paged = filling(Metrics.read(root / "metrics.json")) or ("", "", "")
    assert (workload, base.split("@")[0], paged.split("@")[0]) == ("open", "vllm-contiguous", "vllm-paged")
    for cell in (base, paged):
        others = [key for key in found if re.fullmatch(rf"open\.{cell.split('@')[0]}@[\d.]+\.queued\.span", key)]
        assert found[f"open.{cell}.queued.span"] == max(found[key] for key in others)
    filled = {
        float(hit[1]): value
        for key, value in found.items()
        if (hit := re.fullmatch(r"open\.vllm-paged@([\d.]+)\.queued\.share\.tokens", key)) and value
    }
    drawn = (root / "figures" / "paper-shares.open.en.svg").read_text(encoding="utf-8")
    assert f">{100 * filled[max(filled)]:.1f}<" in drawn  # token states of the paged arm, beside the paper's marks
    page = build(SECTION, root)
    first = page.split('class="lede"')[1]
    for part in (first.split("</p>")[0], first.split('class="answers"')[1].split("</article>")[0]):
        cells = {key.partition(".queued")[0] for key, _ in numbers_shown(part)}
        assert cells == {f"open.{base}", f"open.{paged}"}
    assert "No claim is made about <strong>throughput</strong>" in page
    assert 'class="big undecided"' not in page
    paper = page.split('<section id="paper">')[1].split("</section>")[0]
    assert "never queued" in paper
    assert '<span class="swatch" style="background:var(--vllm-paged, #777)"></span>' in paper
    assert "f-rates-open" in paper
    checks = page.split('<section id="proof"')[1]
    assert checks.count("requests were sent within 1 ms of their planned arrival") == 1
    assert checks.count("one engine configuration in") == 2  # closed, and arriving over time


def test_a_line_joins_the_rates_of_one_block(tmp_path):
    asked = {"open": {"arrivals": {"rates": {"a": [[1.0, 3.0], [2.0, 4.0]], "b": [1.0, 2.0]}}}}
    (tmp_path / "config.json").write_text(json.dumps({"workloads": asked}), encoding="utf-8")
    canvas = SimpleNamespace(root=tmp_path, workload="open")
    line = [(rate, f"at {rate}") for rate in (1.0, 2.0, 3.0, 4.0)]
    assert [[rate for rate, _ in block] for block in by_block(canvas, "a", line)] == [[1.0, 3.0], [2.0, 4.0]]
    assert by_block(canvas, "b", line[:2]) == [line[:2]]
    assert rated(SimpleNamespace(facts={"open": {"w": {"cells": ["b@10", "a@2", "b@9"]}}}, counts=lambda *_: True)) == {
        "w": ["b@9", "b@10", "a@2"]
    }
