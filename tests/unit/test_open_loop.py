"""Requests that arrive over time, against values worked out by hand."""

import pytest
from tests.raw_logs import section, write_model, write_raw

from kvlab.analyse.metrics import analyse
from kvlab.analyse.open_loop import crossing
from kvlab.paths import ROOT
from kvlab.publish.check import claims
from kvlab.publish.words.strings import said
from kvlab.raw import RawRun
from kvlab.records import Served, Step, read_text
from kvlab.simulate.forecasts.forecast import measured

PLAN = {"kind": "poisson", "duration_s": 10.0, "leave_out_s": 2.0, "drain_s": 1.0, "bound_s_per_token": 1.0}


def cell(root, arm, rate, latencies, repeat=0, steps=None, **more):
    """Requests that arrive 1, 3, 5 … s after the start (0.95 s), with 4 output tokens each; None: not finished."""
    served, start = [], 0.95
    for id, latency in enumerate(latencies):
        at = start + 1.0 + 2 * id
        made = [at + latency * (n + 1) / 4 for n in range(4)] if latency else [at + 0.5]
        served.append(
            Served(
                id, 4, len(made), at, made, made[-1] if latency else None, "length" if latency else None,
                sent_s=at + 0.0002, asked_tokens=None if latency else 4,
            )
        )  # fmt: skip
    steps = steps or [Step(i, start + i, 1, 0, 0, 1, [[0, 4 + min(i, 3), 16]]) for i in range(11)]
    run = {"rate": rate, "arrivals": PLAN, "device": "cuda"}
    write_raw(root, arm, repeat, served=served, steps=steps, seconds=10.5, **(run | more))


def opened(root, *which):
    return analyse(section() | {"open": [["w", name, block] for name, block in which]}, root)


@pytest.fixture
def root(tmp_path):
    write_model(tmp_path)
    return tmp_path


def test_normalized_latency_is_the_papers_and_leaves_out_what_came_first(root):
    cell(root, "vllm-paged", 2.0, [40.0, 2.0, 4.0])  # the first arrived after 1 s, before the 2 s that are left out
    q = opened(root, ("vllm-paged@2", 0)).quantities
    assert q["w.vllm-paged@2.normalized"].value == pytest.approx(1000 * (2 / 4 + 4 / 4) / 2)
    assert q["w.vllm-paged@2.normalized.bound"].value == 0
    assert q["w.vllm-paged@2.latency.median"].value == pytest.approx(3.0)
    assert q["w.vllm-paged@2.goodput"].value == pytest.approx(2 / 8)
    assert q["w.vllm-paged@2.lateness.p95"].value == pytest.approx(0.2)


def test_a_request_that_had_not_finished_is_a_lower_bound(root):
    cell(root, "vllm-paged", 2.0, [1.0, 2.0, None])
    metrics = opened(root, ("vllm-paged@2", 0))
    assert metrics.runs[0]["validity"] != "broken", metrics.runs
    q = metrics.quantities
    left = 12.0 - (0.95 + 5)  # the cell's measure phase ends at 12 s
    assert q["w.vllm-paged@2.normalized"].value == pytest.approx(1000 * (2 / 4 + left / 4) / 2)
    assert q["w.vllm-paged@2.normalized.bound"].value == pytest.approx(0.5)
    assert metrics.runs[0]["arm"] == "vllm-paged@2"
    assert metrics.runs[0]["validity"] != "broken"


def test_the_sustained_rate_is_where_the_bound_is_crossed_and_paging_is_compared(root):
    for arm, low, high in (("vllm-paged", 4.0, 8.0), ("vllm-contiguous", 1.0, 2.0)):
        cell(root, arm, low, [1.0, 2.0, 2.0])  # 500 ms a token
        cell(root, arm, high, [1.0, 8.0, 8.0])  # 2,000 ms a token
    which = [(f"{arm}@{rate}", 0) for arm, rates in (("vllm-paged", "48"), ("vllm-contiguous", "12")) for rate in rates]
    q = opened(root, *which).quantities
    assert q["w.vllm-paged.sustained"].value == pytest.approx(6.0)  # half way in the logarithm
    assert q["w.vllm-contiguous.sustained"].value == pytest.approx(1.5)
    assert q["w.sustained.vllm-contiguous"].value == pytest.approx(4.0)


def test_rates_that_do_not_enclose_the_bound_decide_nothing(root):
    cell(root, "vllm-paged", 4.0, [1.0, 2.0, 2.0])
    found = opened(root, ("vllm-paged@4", 0)).quantities["w.vllm-paged.sustained"]
    assert found.value is None
    assert "does not cross 1000 ms a token between the rates measured (4)" in said("en", found.why_none)


def test_blocks_are_what_is_counted(root):
    for block, (low, high) in enumerate(((4.0, 8.0), (5.0, 9.0), (4.5, 8.5))):
        cell(root, "vllm-paged", low, [1.0, 2.0, 2.0], block)
        cell(root, "vllm-paged", high, [1.0, 8.0, 8.0], block)
    names = [("vllm-paged@4", 0), ("vllm-paged@8", 0), ("vllm-paged@5", 1), ("vllm-paged@9", 1)]
    found = opened(root, *names, ("vllm-paged@4.5", 2), ("vllm-paged@8.5", 2)).quantities["w.vllm-paged.sustained"]
    assert found.samples == pytest.approx([6.0, 7.0, 6.5])
    assert (found.n, found.interval_kind) == (3, "range")


def test_shares_are_of_the_time_that_counts(root):
    cell(root, "vllm-paged", 2.0, [1.0, 2.0, 4.0])
    q = opened(root, ("vllm-paged@2", 0)).quantities
    assert q["w.vllm-paged@2.share.tokens"].value == pytest.approx((6 + 7 * 7) / 8 / 64)  # steps 2 to 9 of 11


def test_late_sending_is_seen(root):
    cell(root, "vllm-paged", 2.0, [1.0, 2.0, 4.0])
    guard = next(g for g in opened(root, ("vllm-paged@2", 0)).guards if g["id"] == "on-time")
    assert guard["outcome"] == "pass"


@pytest.mark.parametrize(
    ("guard", "change"),
    [
        ("same-engine", {"max_num_seqs": 4}),
        ("equal-budget", {"pool_slots": 128}),
        ("same-work", {"workload_sha256": "b" * 64}),
        ("reserving-never-preempts", {"policy": "orca-max"}),
    ],
)
def test_cells_are_held_to_the_guards_of_a_fair_comparison(root, guard, change):
    settings = {"arm": {"feed": "batch", "options": {}}}
    own = {"engine": {"name": "vllm"}, "settings": settings, "max_num_seqs": 8}
    steps = [Step(i, 0.95 + i, 1, 0, int(i == 5), 1, [[0, 4 + min(i, 3), 16]]) for i in range(11)]  # one preemption
    for name, more in (("sound", {"policy": "paged"}), ("unfair", change)):
        for arm, changes in (("vllm-paged", own), ("vllm-contiguous", own | more)):
            cell(root / name, arm, 2.0, [1.0, 2.0, 4.0], steps=steps, **changes)
        write_model(root / name)
        found = opened(root / name, ("vllm-paged@2", 0), ("vllm-contiguous@2", 0)).guards
        seen = {one["id"]: one["outcome"] for one in found}
        expected = "fail" if name == "unfair" else "not decided" if guard.startswith("reserving") else "pass"
        assert seen[guard] == expected, (name, seen)


def test_a_curve_is_crossed_once_or_not_at_all():
    assert crossing({1.0: 10.0, 2.0: 1000.0}, 100.0) == pytest.approx(1.5)
    assert crossing({1.0: 200.0, 2.0: 1000.0}, 100.0) is None
    assert crossing({1.0: 10.0, 2.0: 50.0}, 100.0) is None
    assert crossing({}, 100.0) is None


def test_a_claim_about_a_full_queue_is_held_against_the_cell_with_the_highest_rate(root):
    packed = ROOT / "results/reference/opt-13b-policies"
    (root / "metrics.json").write_text(read_text(packed / "metrics.json"), encoding="utf-8")
    found = {(one["id"], one["workload"]): one for one in claims.judge(root)}
    claim = found["paper-token-share", "open"]
    assert claim["quantity"] == "open.vllm-paged@9.4.queued.share.tokens"
    assert claim["verdict"] == claims.HELD
    assert found["paper-token-share", "closed"]["verdict"] == claims.NOT_HERE
    rates = found["paper-rate-max", "open"]
    assert rates["quantity"] == "open.sustained.vllm-contiguous"
    assert rates["verdict"] == claims.UNDECIDED  # two of three blocks enclose the bound
    assert ("paper-rate-max", "closed") not in found


def test_throughput_of_a_cell_that_was_stopped_counts_the_time_up_to_the_stop(root):
    """The tokens of a request that was not through are counted, so the time in which it made them is counted too."""
    cell(root, "vllm-paged", 2.0, [1.0, 2.0, None])
    q = opened(root, ("vllm-paged@2", 0)).quantities
    first_arrival, stop = 0.95 + 1, 12.0  # the last request that finished did so after 1.95 + 2 + 2 = 5.95 s
    assert q["w.vllm-paged@2.throughput"].value == pytest.approx((4 + 4 + 1) / (stop - first_arrival))


def test_what_had_not_finished_is_neither_goodput_nor_a_request_that_finished(root):
    """Two of three that count run on when the cell ends, 6 s after the first of them came: 1.5 s a token so far."""
    cell(root, "vllm-paged", 2.0, [1.0, 2.0, None, None], arrivals=PLAN | {"bound_s_per_token": 2.0})
    q = opened(root, ("vllm-paged@2", 0)).quantities
    assert q["w.vllm-paged@2.normalized.bound"].value == pytest.approx(2 / 3)
    assert q["w.vllm-paged@2.goodput"].value == pytest.approx(1 / 8)
    assert q["w.vllm-paged@2.request_rate"].value == pytest.approx(2 / (12.0 - 1.95))
    assert "until then" in said("en", q["w.vllm-paged@2.latency.p95"].formula)
    assert "until then" not in said("en", q["w.vllm-paged@2.tpot.median"].formula)


def test_predicted_and_measured_latency_a_token_are_by_the_tokens_that_were_asked_for(root):
    cell(root, "vllm-paged", 2.0, [1.0, 2.0, None])
    seen = measured(RawRun.read(root, "w", "vllm-paged@2", 0))
    assert seen.unfinished == 1
    assert seen.per_token_mean == pytest.approx((2 / 4 + (12.0 - 5.95) / 4) / 2)  # it has made one of its four
