"""The check of the predictor, in every run."""

import json
import re
import shutil

import pytest
from tests.unit.test_calibration import synthetic

from kvlab.paths import ROOT
from kvlab.publish.check import claims
from kvlab.publish.words.strings import said
from kvlab.quantities import Metrics, Quantities
from kvlab.raw import RawRun
from kvlab.records import read_text
from kvlab.simulate.forecasts import before, validation
from kvlab.simulate.forecasts.forecast import measured
from kvlab.simulate.planning import grid

pytestmark = pytest.mark.slow

LLAMA = ROOT / "results" / "reference" / "llama-8b"


def which(*runs):
    return [["w", arm, repeat] for arm, repeat in runs]


def test_other_repeats_and_arms_are_predicted_and_compared(tmp_path):
    synthetic(tmp_path)
    folder = tmp_path / "raw" / "w" / "vllm-paged"
    shutil.copytree(folder / "0", folder / "1")
    run = folder / "1" / "run.json"
    run.write_text(run.read_text().replace('"repeat": 0', '"repeat": 1'))
    made = validation.validate(tmp_path, which(("vllm-paged", 0), ("vllm-paged", 1)), "made-up")
    assert [(one["repeat"], one["status"]) for one in made.runs] == [(0, "fitted"), (1, "predicted")]
    assert made.quantities["w.predicted.worst.throughput"].value < 0.01
    assert made.quantities["w.vllm-paged.off.latency"].value == pytest.approx(0, abs=0.01)
    assert made.quantities["w.calibration.base"].value == pytest.approx(7.0, rel=0.05)
    predicted, unused = (made.quantities[f"w.vllm-paged.{kind}.running"] for kind in ("predicted", "unused"))
    assert predicted.value == pytest.approx(unused.value, rel=0.01)
    assert {source.file for source in unused.sources} == {
        f"raw/w/vllm-paged/1/{name}" for name in ("requests.jsonl", "steps.jsonl", "run.json")
    }
    assert all(sha256 == made.files[source.file] for source in unused.sources for sha256 in [source.sha256])


@pytest.mark.parametrize(
    ("arm", "run", "says"),
    [
        ("hf-continuous", {"engine": {"name": "transformers"}}, "another engine, transformers: "),
        ("vllm-paged", {"repeat": 1, "dtype": "float16"}, "dtype float16, not float32"),
        ("vllm-paged", {"repeat": 1, "model_fingerprint": "0" * 64}, "another model"),
        ("vllm-paged", {"repeat": 1, "max_num_seqs": 7}, "none above 4 has a full CUDA graph"),
        ("vllm-paged", {"repeat": 1, "status": "not_run", "reason": "no memory"}, "its status is not_run: no memory"),
        ("vllm-paged", {"repeat": 1, "busy": 0.5}, "host-bound: the GPU was busy 50%"),
    ],
)
def test_what_the_step_times_do_not_hold_for_is_not_predicted(tmp_path, arm, run, says):
    synthetic(tmp_path)
    if "engine" not in run:
        repeat = run.pop("repeat")
        synthetic(tmp_path, arm=arm, repeat=repeat, **run)
    else:
        repeat = 0
        synthetic(tmp_path, arm=arm, **run)
    made = validation.validate(tmp_path, which(("vllm-paged", 0), (arm, repeat)), "made-up")
    (entry,) = [one for one in made.runs if one["status"] == "not predicted"]
    assert says in said("en", entry["reason"])
    assert re.search(r"[\u4e00-\u9fff]", said("zh", entry["reason"]))
    assert "w.predicted.worst.throughput" not in made.quantities


def test_step_times_of_one_workload_predict_another_whose_requests_arrive_over_time(tmp_path):
    raw = synthetic(tmp_path)
    arriving = {"kind": "poisson", "duration_s": raw.end_s, "drain_s": 1.0, "leave_out_s": 0.0}
    synthetic(tmp_path, workload="open", rate=9.0, arrivals=arriving, read=False)
    every = [["w", "vllm-paged", 0], ["open", "vllm-paged@9", 0]]
    made = validation.validate(tmp_path, every, "made-up")
    assert [(one["arm"], one["status"]) for one in made.runs] == [
        ("vllm-paged", "fitted"),
        ("vllm-paged@9", "predicted"),
    ]
    assert abs(made.quantities["open.vllm-paged@9.off.throughput"].value) < 0.05


def test_a_run_without_step_times_leaves_the_claims_open(tmp_path):
    synthetic(tmp_path, busy=0.3)
    made = validation.validate(tmp_path, which(("vllm-paged", 0)), "made-up")
    assert made.guards[0]["outcome"] == "not decided"
    why = made.quantities["w.predicted.worst.throughput"].why_none
    assert why == made.guards[0]["detail"]
    assert said("en", why).startswith("w/vllm-paged/0: host-bound: the GPU was busy 30% of the time")
    assert said("zh", why).startswith("w/vllm-paged/0：受主机限制：GPU 忙碌时间为 30%")


def test_rows_that_have_a_full_graph():
    assert validation.largest_graph(7, None) == 4
    assert validation.largest_graph(64, None) == 64
    assert validation.largest_graph(192, None) == 192
    assert validation.largest_graph(1000, None) == 512
    assert validation.largest_graph(50, [1, 2, 4, 8, 16, 32]) == 32


def test_where_paging_stops_to_gain(tmp_path):
    raw = synthetic(tmp_path)
    made = Metrics(run="made-up", quantities=Quantities())
    before.add_grids(made, tmp_path, which(("vllm-paged", 0)))
    found = json.loads((tmp_path / "predicted" / "grid.json").read_text())["workloads"]["w"]
    assert found["timed"]
    assert found["own"] == {"pool": 4096, "block": 16, "max_len": 1024, "rate": None}
    paged = [p for p in found["points"] if p["policy"] == "paged" and p["block"] == 16 and p["rate"] is None]
    gains = [point["gain"] for point in paged]
    assert gains[0] > gains[-1]
    assert gains[0] > 1.2
    assert len(found["axes"]["max_len"]) >= 4
    reserving = [p for p in found["points"] if p["policy"] == "orca-max" and p["pool"] == 16384 and p["rate"] is None]
    assert [p["together"] for p in reserving] == sorted((p["together"] for p in reserving), reverse=True)
    assert reserving[0]["together"] > 4 * reserving[-1]["together"]
    together = [point["together"] for point in paged]
    assert together == sorted(together)
    own = next(point for point in paged if point["pool"] == 4096)
    assert own["throughput"] == pytest.approx(raw.throughput, rel=0.01)
    ends = made.quantities["w.predicted.gain-ends"]
    assert (ends.value is None) == (gains[-1] >= grid.ENDS)


def test_a_grid_without_times_counts_requests_together(tmp_path):
    synthetic(tmp_path, busy=0.2)
    made = Metrics(run="made-up", quantities=Quantities())
    before.add_grids(made, tmp_path, which(("vllm-paged", 0)))
    found = json.loads((tmp_path / "predicted" / "grid.json").read_text())["workloads"]["w"]
    assert not found["timed"]
    assert found["axes"]["rate"] == [None]
    assert all(point["throughput"] is None for point in found["points"])


def test_what_was_predicted_before_stands_beside_the_result(tmp_path):
    committed = ROOT / "config" / "predictions" / "opt-13b-policies.json"
    made = Metrics(run="opt-13b-policies", quantities=Quantities())
    assert before.add_expected(made, tmp_path, committed) == 5 + 24
    paged = made.quantities["closed.vllm-paged.predicted.before.throughput"]
    assert paged.n == 1  # the closed queue has one block
    assert paged.sources[0].file == "predicted/expected.json"
    assert made.quantities["open.vllm-oracle@2.2.predicted.before.per-token"].unit == "ms"
    assert before.add_expected(made, tmp_path, tmp_path / "none.json") == 0


def test_predictions_of_a_run_whose_paged_requests_all_arrive_over_time_stand_beside_it(tmp_path):
    """It gives no step times of its own: what another run's step times predict is compared, cell by cell."""
    reference = ROOT / "results" / "reference" / "opt-13b-policies"
    (tmp_path / "raw").symlink_to(reference / "raw")
    cells = [["open", "vllm-paged@8.4", 0], ["open", "vllm-oracle@2.2", 0], ["closed", "vllm-pow2", 0]]
    cells += [["open", "vllm-paged@9.4", 2]]  # 49 of its requests did not end
    made = validation.validate(tmp_path, cells, "opt-13b-policies")
    assert not any(".off." in quantity.id for quantity in made.quantities)
    before.add_expected(made, tmp_path, ROOT / "config" / "predictions" / "opt-13b-policies.json", cells)
    found = made.quantities
    assert [q.id for q in found if q.id.endswith(".off.before.throughput")] == [
        f"{workload}.{cell}.off.before.throughput" for workload, cell, _ in sorted(cells)
    ]
    for workload, cell, _ in cells:
        key = f"{workload}.{cell}"
        told, seen = (found[f"{key}.{kind}.throughput"] for kind in ("predicted.before", "unused"))
        assert found[f"{key}.off.before.throughput"].value == pytest.approx(told.value / seen.value - 1)
        assert abs(found[f"{key}.off.before.throughput"].value) < 0.05
        assert abs(found[f"{key}.off.before.per-token"].value) < 0.10
    run = RawRun.read(tmp_path, "open", "vllm-paged@8.4", 0)
    assert found["open.vllm-paged@8.4.unused.throughput"].value == pytest.approx(measured(run).throughput)
    assert found["open.vllm-paged.predicted.before.sustained"].n == 3
    for quantity in found:
        assert said("en", quantity.formula)
        assert re.search(r"[\u4e00-\u9fff]", said("zh", quantity.formula)), quantity.id


def test_llama_8b_predicts_its_other_runs_within_the_claims(tmp_path):
    arms = ("hf-sequential-static", "vllm-sequential", "vllm-contiguous", "vllm-paged")
    runs = [["azure-conv", arm, repeat] for repeat in range(3) for arm in arms]
    made = validation.validate(LLAMA, runs, "llama-8b")
    status = [one["status"] for one in made.runs]
    assert (status.count("predicted"), status.count("fitted"), status.count("not predicted")) == (8, 1, 3)
    assert all("another engine" in said("en", one["reason"]) for one in made.runs if one["status"] == "not predicted")
    for arm in ("vllm-paged", "vllm-contiguous"):
        assert all(-0.005 < off < 0.016 for off in made.quantities[f"azure-conv.{arm}.off.throughput"].samples)
        assert abs(made.quantities[f"azure-conv.{arm}.off.running"].value) < 0.02
    made.write(tmp_path / "predicted" / "metrics.json")
    (tmp_path / "metrics.json").write_text(read_text(LLAMA / "metrics.json"), encoding="utf-8")
    verdicts = {one["id"]: one["verdict"] for one in claims.judge(tmp_path)}
    assert verdicts["predicted-throughput"] == verdicts["predicted-latency"] == "held"
    again = validation.validate(LLAMA, runs, "llama-8b")
    assert list(again.quantities) == list(Metrics.read(tmp_path / "predicted" / "metrics.json").quantities)
