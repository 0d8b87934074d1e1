"""That `analyse` takes time in proportion to the requests, up to 50,000 of them.

    PYTHONPATH=workflow python benchmarks/analysis.py

Writes the raw log of a run of vLLM's scheduler as the simulator plays it (paged, a full queue, one arm, one repeat) and
times `analyse` on it, on one core. Prints, for 3,125 requests and doublings of them: seconds, their ratio to the line
before, and the exponent of growth (1 is linear). Exits 1 where the exponent over the whole range is above 1.25.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from kvlab.allocators.contiguous import SimulatedRequest
from kvlab.allocators.paged import Paged
from kvlab.analyse.metrics import analyse
from kvlab.arms import ARMS
from kvlab.prepare import lengths
from kvlab.records import Output, Phase, Request, Run, Sample, Served, digest, write_json, write_lines
from kvlab.roles import PAGING
from kvlab.simulate.scheduler import Scheduler
from kvlab.simulate.step_times import StepTimes

SIZES = (3_125, 6_250, 12_500, 25_000, 50_000)
STEEPEST = 1.25  # exponent allowed, with a margin for timing noise
POOL, BLOCK, LONGEST = 4096, 16, 256
ARM = next(arm for arm in ARMS.values() if arm.role == PAGING)
SECTION = {
    "run": "benchmark",
    "raw": [["w", ARM.name, 0]],
    "arms": {ARM.name: ARM.shown()},
    "analysis": {"bootstrap_resamples": 100, "confidence": 0.95},
}


def write_log(root: Path, requests: int, mean: float = 20.0, pool_slots: int = POOL, longest: int = LONGEST) -> None:
    """A raw log as an engine that keeps the simulator's schedule writes it; `mean`: of prompt and output tokens."""
    drawn = lengths.paper(requests, 0, prompt_mean=mean, output_mean=mean, max_total=longest)
    jobs = [SimulatedRequest(number, *pair) for number, pair in enumerate(drawn.pairs())]
    pool = Paged(pool_slots, BLOCK)
    timeline = Scheduler(jobs, pool, max_running=256, token_budget=2048, step_times=StepTimes(0.01)).run()
    done, end = timeline.finished(), float(timeline.ends[-1])
    asked = root / "workloads" / "w.jsonl"
    asked.parent.mkdir(parents=True)
    write_lines(asked, [Request(job.id, [0] * job.prompt, job.output, "") for job in jobs])
    run = Run(
        workload="w",
        arm=ARM.name,
        repeat=0,
        status="completed",
        parts=["all"],
        engine={"name": "vllm", "max_num_batched_tokens": 2048},
        settings={"arm": {"feed": ARM.feed}},
        dtype="float32",
        kv_slots_asked=pool_slots,
        pool_slots=pool_slots,
        block_size=BLOCK,
        max_model_len=longest,
        max_num_seqs=256,
        kv_bytes_per_slot=1024,
        workload_sha256=digest(asked),
        model_fingerprint="f" * 64,
        idle_device_bytes=100,
    )
    served = []
    for job, first, last in zip(jobs, done.first.tolist(), done.last.tolist(), strict=True):
        gap = (last - first) / max(job.output - 1, 1)
        came = [first + gap * token for token in range(job.output - 1)] + [last]
        served.append(Served(job.id, job.prompt, job.output, 0.0, came, last, "length"))
    place = root / "raw" / "w" / ARM.name / "0"
    write_json(root / "model" / "fingerprint.json", {"source": "random:tiny", "sha256": "f" * 64, "parameters": 1})
    write_json(place / "run.json", asdict(run))
    write_lines(place / "phases.jsonl", [Phase("load", 0.0, 0.0), Phase("measure", 0.0, end)])
    write_lines(place / "steps.jsonl", timeline.steps(pool))
    write_lines(place / "requests.jsonl", served)
    write_lines(place / "device.jsonl", [Sample(float(second), 1000) for second in range(int(end) + 2)])
    write_lines(place / "outputs.jsonl", [Output(one.id, list(range(one.output_tokens)), "") for one in served])


def main() -> int:
    took: list[float] = []
    print(f"{'requests':>10}  {'seconds':>8}  {'ratio':>6}  growth")
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            write_log(root, size)
            began = time.process_time()
            metrics = analyse(SECTION, root)
            took.append(time.process_time() - began)
        agreement = metrics.quantities[f"w.{ARM.name}.served-again.agreement"]
        assert agreement.value == 1.0, "the log is not what the simulator plays"
        ratio = "" if len(took) == 1 else f"{took[-1] / took[-2]:.2f}"
        growth = "" if len(took) == 1 else f"{math.log2(took[-1] / took[-2]):.2f}"
        print(f"{size:>10,}  {took[-1]:>8.2f}  {ratio:>6}  {growth}", flush=True)
    exponent = math.log(took[-1] / took[0]) / math.log(SIZES[-1] / SIZES[0])
    print(f"over the whole range: requests ** {exponent:.2f} (at most {STEEPEST:g})")
    return int(exponent > STEEPEST)


if __name__ == "__main__":
    sys.exit(main())
