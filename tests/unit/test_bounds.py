"""A run that its time budget stopped gives bounds: in its log, quantities, claims, on the page and the terminal."""

import json
from dataclasses import replace

import pytest
from tests.fixtures import small_run
from tests.raw_logs import section, write_model, write_raw

from kvlab import config
from kvlab.analyse.metrics import analyse
from kvlab.errors import OutOfTime
from kvlab.measure.journal import Journal
from kvlab.publish import summary
from kvlab.publish.check import claims
from kvlab.publish.page.render import build
from kvlab.publish.words.numbers import text_of
from kvlab.publish.words.strings import of_quantity, said
from kvlab.quantities import Metrics
from kvlab.records import Request, Run, Served, read_lines, read_run, write_json, write_lines

HALF = [
    Served(0, 4, 3, 1.0, [2.0, 3.0, 4.0], 4.0, "length"),
    Served(1, 4, 2, 1.0, [5.0, 6.0], None, None, asked_tokens=3),
    Served(2, 4, 0, 1.0, [], None, None, asked_tokens=3),
]  # stopped at 11.5 s, in its measure phase


def stopped(root, arm, repeat=0, **more):
    write_raw(root, arm, repeat, served=HALF, status="stopped", stopped="all", reason="stopped", **more)


@pytest.fixture
def root(tmp_path):
    write_model(tmp_path)
    return tmp_path


def test_what_a_stopped_run_did_bounds_what_it_would_have_given(root):
    stopped(root, "vllm-paged")
    metrics = analyse(section(("w", "vllm-paged", 0)), root)
    found = {name: metrics.quantities[f"w.vllm-paged.{name}"] for name in
             ("span", "throughput", "latency.median", "latency.p95", "ttft.median", "pool.slots")}  # fmt: skip
    assert (found["span"].value, found["span"].bound) == (10.5, "least")
    assert (found["throughput"].value, found["throughput"].bound) == (pytest.approx(9 / 10.5), "most")
    assert (found["latency.median"].value, found["latency.median"].bound) == (10.5, "least")
    assert (found["ttft.median"].value, found["ttft.median"].bound) == (pytest.approx(4000), "least")
    assert (found["pool.slots"].value, found["pool.slots"].bound) == (64, None)
    assert text_of(found["span"], "en") == "≥\u00a010.5\u00a0s"
    assert text_of(found["throughput"], "zh").startswith("≤\u00a00.86")
    assert "no larger, since a run was stopped" in of_quantity("en", found["throughput"])
    for name in ("tpot.median", "running.mean", "efficiency", "share.tokens", "halves"):  # a part bounds no mean
        quantity = metrics.quantities[f"w.vllm-paged.{name}"]
        assert (quantity.value, quantity.why_none.key) == (None, "stopped-before")
    (entry,) = metrics.runs
    assert entry["validity"] == "stopped"
    assert "1 of 3 requests done" in said("en", entry["reason"])
    metrics.write(root / "metrics.json")
    again = Metrics.read(root / "metrics.json")
    assert again.quantities["w.vllm-paged.span"].bound == "least"
    assert "bound" not in next(q for q in json.loads((root / "metrics.json").read_text())["quantities"]
                               if q["id"] == "w.vllm-paged.pool.slots")  # fmt: skip


def test_the_median_over_repeats_is_bounded_where_one_was_stopped(root):
    for repeat, seconds in ((0, 8.0), (1, 9.0)):
        write_raw(root, "vllm-paged", repeat, seconds=seconds)
    stopped(root, "vllm-paged", 2)
    q = analyse(section(*(("w", "vllm-paged", r) for r in range(3))), root).quantities
    span, tpot = q["w.vllm-paged.span"], q["w.vllm-paged.tpot.median"]
    assert (span.value, span.bound, span.n, span.interval) == (9.0, "least", 3, None)
    assert (tpot.bound, tpot.n) == (None, 2)


def test_a_bound_of_either_side_bounds_the_ratio(root):
    write_raw(root, "vllm-paged", seconds=5.0)
    stopped(root, "hf-sequential-static")
    which = [("w", "hf-sequential-static", 0), ("w", "vllm-paged", 0)]
    speedup = analyse(section(*which), root).quantities["w.speedup"]
    assert (speedup.value, speedup.bound) == (pytest.approx(1.2 / (9 / 10.5)), "least")
    write_raw(root, "hf-sequential-static", seconds=20.0)
    stopped(root, "vllm-paged")
    speedup = analyse(section(*which), root).quantities["w.speedup"]
    assert (speedup.value, speedup.bound) == (pytest.approx((9 / 10.5) / 0.3), "most")
    stopped(root, "hf-sequential-static")
    speedup = analyse(section(*which), root).quantities["w.speedup"]
    assert (speedup.value, speedup.why_none.key) == (None, "stopped-both")


def test_paging_is_not_compared_with_a_stopped_arm(root):
    write_raw(root, "vllm-paged")
    stopped(root, "vllm-contiguous", reserve_slots=32)
    metrics = analyse(section(("w", "vllm-contiguous", 0), ("w", "vllm-paged", 0)), root)
    assert said("en", metrics.quantities["w.paging.gain"].why_none) == "vllm-contiguous was stopped at its time budget"
    assert {g["id"]: g["outcome"] for g in metrics.guards}["same-token-counts"] == "pass"


@pytest.mark.parametrize(
    ("relation", "expected", "verdict"),
    [("above", 1.3, "held"), ("above", 2.0, "not decided"), ("below", 1.3, "failed"), ("below", 2.0, "not decided")],
)
def test_a_claim_is_decided_by_a_bound_only_where_it_can_be(root, relation, expected, verdict):
    write_raw(root, "vllm-paged", seconds=5.0)
    stopped(root, "hf-sequential-static")
    analyse(section(("w", "hf-sequential-static", 0), ("w", "vllm-paged", 0)), root).write(root / "metrics.json")
    claim = {"id": "c", "statement": {"en": "", "zh": ""}, "origin": "", "quantity": "*.speedup", "exact": True}
    write_json(root / "claims.yaml", {"claims": [claim | {"relation": relation, "expected": expected}]})
    (found,) = claims.judge(root, root / "claims.yaml")
    assert found["verdict"] == verdict
    assert "≥" in said("en", found["seen"])


def test_page_and_terminal_show_bounds(tmp_path, capsys):
    run = small_run.build(tmp_path / "small", figures=False)
    for arm in ("hf-sequential-static", "vllm-contiguous"):
        for repeat in range(3):
            folder = run / "raw" / "seed" / arm / str(repeat)
            served = read_lines(folder / "requests.jsonl", Served)
            cut = replace(served[-1], finish_s=None, finish_reason=None, asked_tokens=served[-1].output_tokens)
            write_lines(folder / "requests.jsonl", [*served[:-1], cut])
            told = replace(read_run(folder), status="stopped", stopped="all", reason="stopped at the time budget")
            write_json(folder / "run.json", vars(told))
    parsed = config.parse(small_run.CONFIG, "fixture")
    analyse(parsed.section("analyse"), run).write(run / "metrics.json")
    claims.write(run)
    page = build(parsed.section("report"), run)
    assert 'data-q="seed.speedup">≥\u00a0' in page
    assert 'data-q="seed.hf-sequential-static.throughput">≤\u00a0' in page
    assert 'data-q="seed.hf-sequential-static.span">≥\u00a0' in page
    assert "at least so much, since a run was stopped at its time budget" in page
    assert "至少如此" in page
    assert "requests done: a bound" in page
    summary.show(run)
    out = capsys.readouterr().out
    assert "speedup on the requests that all arms served: ≥" in out
    assert "≤" in next(line for line in out.splitlines() if "hf-sequential-static" in line)


def test_a_journal_past_its_deadline_notes_what_there_is():
    journal = Journal([Request(i, [1], 3) for i in range(3)], "all", deadline_ns=10)
    journal.arrive([0], 1)
    with pytest.raises(OutOfTime, match="0 of 3 requests of part 'all' were done"):
        journal.tokens(0, [5], 11)
    journal.stop(12)
    journal.check()  # what is unfinished is no fault
    first, second, _ = journal.served(0)
    assert (first.output_tokens, first.asked_tokens, first.finish_s) == (1, 3, None)
    assert second.arrival_s == pytest.approx(0.0, abs=1e-6)
    assert Run("w", "a", 0, "completed").stopped is None
