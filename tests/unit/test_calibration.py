"""Step times from raw logs, and what they predict of runs that were not used."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from tests.raw_logs import write_raw

from kvlab.allocators.contiguous import SimulatedRequest
from kvlab.errors import KvlabError, NotRunnable
from kvlab.paths import ROOT
from kvlab.raw import RawRun
from kvlab.records import Run, Sample, Served, Step
from kvlab.simulate.forecasts import calibration, forecast
from kvlab.simulate.step_times import StepTimes

KNOWN = StepTimes(0.007, 2e-5, 5e-8, 2e-5)
LLAMA = ROOT / "results" / "reference" / "llama-8b"
OPT = ROOT.parent / "shared" / "reference-runs" / "opt-13b.tar.xz"


def synthetic(
    root: Path, *, arm="vllm-paged", asynchronous=True, busy=0.99, requests=150, jitter=0.0, read=True, **run
) -> RawRun:
    """A run whose steps take what KNOWN says, logged as an engine logs it."""
    rng = np.random.default_rng(0)
    jobs = [SimulatedRequest(n, *rng.integers(20, 400, 2).tolist()) for n in range(requests)]
    setting = forecast.Setting("paged", 4096, 1024, 16, 64, 2048, asynchronous)
    allocator, timeline = forecast.serve(jobs, setting, KNOWN)
    end = float(timeline.ends[-1])
    steps = [*timeline.steps(allocator), Step(len(timeline), end, 0, 0, 0, 0, [])]
    if jitter:
        times = np.sort([step.t_s * rng.uniform(1 - jitter, 1 + jitter) for step in steps])
        steps = [Step(**{**_fields(step), "t_s": float(t)}) for step, t in zip(steps, times, strict=True)]
    done = timeline.finished()
    first, last = dict(zip(done.request, done.first, strict=True)), dict(zip(done.request, done.last, strict=True))
    served = [
        Served(
            j.id,
            j.prompt,
            j.output,
            0.0,
            [*[float(first[j.id])] * (j.output - 1), float(last[j.id])],
            float(last[j.id]),
            "length",
        )
        for j in jobs
    ]
    samples = [Sample(t / 10, 1000, busy) for t in range(int(10 * end))]
    facts = {
        "pool_slots": 4096,
        "kv_slots_asked": 4096,
        "max_model_len": 1024,
        "max_num_seqs": 64,
        "engine": {"name": "vllm", "async_scheduling": asynchronous, "max_num_batched_tokens": 2048, "compiled": True},
    }
    folder = write_raw(root, arm, steps=steps, served=served, samples=samples, seconds=end, **facts | run)
    if not read:  # an open loop's folder has its rate in its name
        folder.parent.rename(folder.parent.with_name(f"{arm}@{run['rate']:g}"))
    return RawRun.read(root, "w", arm, 0)


def _fields(step: Step) -> dict:
    return {name: getattr(step, name) for name in step.__dataclass_fields__}


@pytest.mark.parametrize("asynchronous", [True, False])
def test_known_coefficients_come_back(tmp_path, asynchronous):
    found = calibration.fit(synthetic(tmp_path, asynchronous=asynchronous))
    for name in ("base_s", "per_row_s", "per_kv_token_s", "per_prefill_token_s"):
        assert getattr(found.step_times, name) == pytest.approx(getattr(KNOWN, name), rel=0.05), name
    assert found.r2 > 0.99
    assert found.most_rows <= 64


@pytest.mark.slow
def test_the_same_logs_give_the_same_coefficients_on_every_processor():
    """OpenBLAS has a kernel a processor, and their last bits differ."""
    script = (
        "import sys; from pathlib import Path; from kvlab.raw import RawRun; from kvlab.simulate.forecasts import "
        "calibration; print(calibration.fit(RawRun.read(Path(sys.argv[1]), 'azure-conv', 'vllm-paged', 0)))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", script, str(LLAMA)],
            env=os.environ | {"OPENBLAS_CORETYPE": kernel, "PYTHONPATH": str(ROOT / "workflow")},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for kernel in ("Sandybridge", "Haswell", "SkylakeX")
    }
    assert len(said) == 1


def test_what_was_fitted_predicts_the_same_run(tmp_path):
    raw = synthetic(tmp_path)
    setting = forecast.Setting("paged", 4096, 1024, 16, 64, 2048, True)
    jobs = [SimulatedRequest(one.id, one.prompt_tokens, one.output_tokens) for one in raw.served]
    expected, seen = forecast.forecast(jobs, setting, calibration.fit(raw)), forecast.measured(raw)
    assert expected.throughput == pytest.approx(seen.throughput, rel=0.01)
    assert expected.latency_mean == pytest.approx(seen.latency_mean, rel=0.01)
    assert expected.running == pytest.approx(seen.running, rel=0.01)
    assert expected.outside == 0


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ({"busy": 0.4}, "host-bound: the GPU was busy 40%"),
        ({"engine": {"name": "vllm", "compiled": False}}, "eager"),
        ({"policy": "orca-max"}, "rows and KV tokens vary together"),
        ({"requests": 3}, "windows of 8 steps; at least 40"),
        ({"jitter": 0.9}, "the model does not fit: R²"),
        ({"status": "failed", "reason": "out of memory"}, "not completed"),
    ],
)
def test_no_step_times_where_they_would_mislead(tmp_path, made, says):
    with pytest.raises(NotRunnable, match=says):
        calibration.fit(synthetic(tmp_path, **made))


def test_a_run_without_a_paged_arm_says_so(tmp_path):
    with pytest.raises(NotRunnable, match="that batches with paging"):
        calibration.calibrate(tmp_path)


@pytest.mark.parametrize(
    ("recorded", "policy", "fits"),
    [
        ({}, "paged", True),
        ({"reserve_slots": 1024}, "orca-max", False),  # as older versions recorded it
        ({"policy": "orca-pow2"}, "orca-pow2", False),
        ({"settings": {"arm": {"feed": "sequential"}}}, "paged", False),
        ({"settings": {"arm": {"feed": "batch", "options": {"eager": True}}}}, "paged", False),
        ({"rate": 2.0}, "paged", False),
        ({"engine": {"name": "transformers"}}, None, False),
    ],
)
def test_step_times_are_fitted_by_what_a_run_recorded_whatever_its_arm_is_called(recorded, policy, fits):
    run = Run("w", "any-name", 0, "completed", **{"engine": {"name": "vllm"}} | recorded)
    assert (calibration.policy_of(run), calibration.calibrates(run)) == (policy, fits)


def test_time_outside_what_was_calibrated_is_reported(tmp_path):
    raw = synthetic(tmp_path)
    jobs = [SimulatedRequest(n, 100, 300) for n in range(400)]
    setting = forecast.Setting("paged", 100_000, 1024, 16, 256, 2048, True)
    assert forecast.forecast(jobs, setting, calibration.fit(raw)).outside > 0.5


def test_requests_that_do_not_end_count_with_their_time_so_far(tmp_path):
    fitted = calibration.fit(synthetic(tmp_path))
    setting = forecast.Setting("paged", 4096, 1024, 16, 64, 2048, True)
    jobs = forecast.poisson([(100, 200)] * 400, 20.0, seed=0)
    whole = forecast.forecast(jobs, setting, fitted)
    cut = forecast.forecast(jobs, setting, fitted, until=20.0, skip_s=2.0)
    assert whole.unfinished == 0
    assert cut.unfinished > 0
    assert cut.span_s < 20.1
    assert cut.throughput == pytest.approx(whole.throughput, rel=0.2)


def test_a_sequential_arm_sends_the_next_when_the_last_has_ended(tmp_path):
    fitted = calibration.fit(synthetic(tmp_path))
    setting = forecast.Setting("paged", 4096, 1024, 16, 64, 2048, True, sequential=True)
    found = forecast.forecast([SimulatedRequest(n, 100, 50) for n in range(4)], setting, fitted)
    assert found.latency_mean == pytest.approx(found.latency_p95, rel=0.05)
    assert found.latency_mean * 4 == pytest.approx(found.span_s, rel=0.05)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_a_rate_that_is_none(rate):
    with pytest.raises(KvlabError, match="requests a second"):
        forecast.poisson([(1, 1)], rate, 0)


@pytest.mark.skipif(not LLAMA.exists(), reason="results/reference/llama-8b is not in this checkout")
def test_the_coefficients_of_llama_8b():
    fitted, raw = calibration.calibrate(LLAMA)
    assert raw.name == "azure-conv/vllm-paged/0"
    times = fitted.step_times
    found = (times.base_s, times.per_row_s, times.per_kv_token_s, times.per_prefill_token_s)
    assert found == pytest.approx((6.69e-3, 1.8e-6, 41e-9, 22.9e-6), rel=0.02)


@pytest.mark.skipif(not OPT.exists(), reason="the OPT-13B run is not beside this checkout")
def test_the_coefficients_of_opt_13b(tmp_path):
    with tarfile.open(OPT) as packed:
        packed.extractall(tmp_path, filter="data")
    (root,) = {path.parents[4] for path in tmp_path.rglob("raw/paper/vllm-paged/0/run.json*")}
    times = calibration.calibrate(root)[0].step_times
    found = (times.base_s, times.per_row_s, times.per_kv_token_s, times.per_prefill_token_s)
    assert found == pytest.approx((10.66e-3, 41e-6, 202e-9, 34.6e-6), rel=0.02)
    shutil.rmtree(root)
