"""Studies vary one setting, and the results follow the expected order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kvlab.allocators.contiguous import SimulatedRequest
from kvlab.errors import KvlabError
from kvlab.quantities import Quantities
from kvlab.simulate.studies import paper_values as paper
from kvlab.simulate.studies import sweeps as studies
from kvlab.simulate.studies.cases import POLICIES, Case, allocator_of

BASE = Case("paged", {"kind": "paper"}, 0, 15_728, 2048, 1500, 500, 16, 0.01)
LENGTHS = {"kind": "paper"}
SHORT = {"kind": "paper", "prompt_mean": 19.31, "prompt_cv": 0.6, "output_mean": 58.45, "output_cv": 1.05}
SECTION = {
    "iterations": 1500,
    "workloads": {
        "long": {"lengths": LENGTHS, "iterations": None},
        "short": {"lengths": SHORT, "iterations": 1000},
    },
    "studies": {
        "iterations": 1500,
        "warmup_iterations": 500,
        "seeds": 2,
        "block_size": {"workloads": ["long", "short"], "sizes": [1, 16, 256, 2048]},
        "pool": {"workload": "long", "slots": [4096, 16384, 65536], "max_running": 16},
        "output_cv": {"workload": "long", "values": [0.25, 1.25]},
        "load": {"workload": "short", "values": [0.3, 0.6, 0.95]},
        "shapes": {"workload": "long", "output_families": ["gamma"], "prompt_cv": [1.6], "output_cv": [0.877]},
        "sharing": {"workloads": ["short"], "samples": [2, 4]},
        "prefix": {"workload": "short", "tokens": [64, 320]},
    },
}


@pytest.fixture(scope="module")
def points():
    return list(studies.run(SECTION, BASE))


@pytest.fixture(scope="module")
def found(points):
    return Quantities(studies.quantities(points, "simulated/studies.jsonl", "0" * 64))


def values(found, key, labels, measure):
    return [found[f"simulated.{key}.{label}.{measure}"].value for label in labels]


def test_every_case_is_a_line_and_each_quantity_names_its_lines(points, found):
    assert len({(p.study, p.workload, p.policy, p.label, p.seed) for p in points}) == len(points)
    for quantity in found:
        begin, end = map(int, quantity.sources[0].rows.split("-"))
        lines = points[begin - 1 : end]
        measure = quantity.id.rsplit(".", 1)[1]
        assert quantity.samples == [getattr(line, measure) for line in lines]
        assert {line.seed for line in lines} == {0, 1}
        assert all(f".{line.study}.{line.workload}.{line.policy}.{line.label}." in quantity.id for line in lines)


def test_larger_blocks_waste_more_most_of_all_with_short_requests(found):
    long, short = (
        values(found, f"block-size.{name}.paged", [1, 16, 256, 2048], "tokens") for name in ("long", "short")
    )
    assert long == sorted(long, reverse=True)
    assert short == sorted(short, reverse=True)
    assert long[1] > short[1]


def test_blocks_as_long_as_the_longest_request_are_no_paging(found):
    assert found["simulated.block-size.long.paged.2048.running"].value == 15_728 // 2048


def test_paging_gains_nothing_where_the_pool_holds_all_requests(found):
    starved, _, ample = ([4096, 16384, 65536][n] for n in range(3))
    paged, whole = (found[f"simulated.pool.long.{policy}.{starved}.running"].value for policy in ("paged", "orca-max"))
    assert paged > 2 * whole
    assert {found[f"simulated.pool.long.{policy}.{ample}.running"].value for policy in POLICIES} == {16}


def test_more_load_runs_more_together_and_never_more_than_a_full_queue(found):
    running = values(found, "load.short.paged", ["0.3", "0.6", "0.95"], "running")
    assert running == sorted(running)
    assert running[-1] <= 1.02 * found["simulated.load.short.paged.full.running"].value
    served = values(found, "load.short.paged", ["0.3", "0.6"], "finished")
    full = found["simulated.load.short.paged.full.finished"].value
    assert served == pytest.approx([0.3 * full, 0.6 * full], rel=0.1)


def test_the_load_of_the_papers_batch_lies_between_the_loads(points, found):
    target = next(claim["paper"] for claim in paper.read()["claims"] if claim["id"] == "fig13a.paged.running")
    (load,) = paper.load_quantities(found, points)
    low, high = values(found, "load.short.paged", ["0.3", "0.95"], "running")
    assert (load.value is not None) == (low <= target <= high)
    moved = Quantities(replace(q, value=q.value * target / low * 0.9) if q.id.endswith("running") else q for q in found)
    (load,) = paper.load_quantities(moved, points)
    assert 0.3 < load.value < 0.6


def test_more_samples_share_more(found):
    two, four = values(found, "sharing.short.paged", ["n2", "n4"], "saved")
    assert 0.03 < two < four < 2 * two
    assert "simulated.block-size.long.paged.16.saved" not in found


def test_a_shared_prefix_leaves_room_for_more_requests(found):
    for tokens in (64, 320):
        apart, shared = values(found, "prefix.short.paged", [f"{tokens}-apart", f"{tokens}-shared"], "running")
        assert shared > (1 + tokens / 200) * apart


def test_the_queue_never_runs_dry_and_no_more_is_drawn_than_is_needed():
    for policy in POLICIES:
        case = replace(BASE, policy=policy, iterations=400, warmup=0)
        timeline = case.run()
        assert timeline.waiting.all()
        assert len(case.jobs()) < 1000


def test_arrivals_are_at_the_load_that_is_asked_for():
    jobs = replace(BASE, load=0.25, iterations=40_000).jobs()
    assert len(jobs) / jobs[-1].arrival == pytest.approx(0.25, rel=0.05)
    assert all(isinstance(job, SimulatedRequest) for job in jobs)


@pytest.mark.parametrize("load", [0.0, -1.0, float("nan"), float("inf")])
def test_a_load_that_is_none_is_refused(load):
    with pytest.raises(KvlabError, match="load"):
        replace(BASE, load=load).jobs()


def test_an_unknown_policy_is_refused():
    with pytest.raises(KvlabError, match="policy 'best'"):
        allocator_of("best", 100, 10, 4)
