"""How fast the simulator is, and that its time grows at most linearly with iterations and with requests.

    PYTHONPATH=workflow python benchmarks/simulator.py

Prints, on one core: all four policies on the paper's pool for 60,000 iterations, with their accounting (target: under
5 s); the time for 1, 2 and 4 times the iterations; and, for 1, 2, 4 and 8 times the pool, the time by requests running
together. The last column is the exponent of growth from the line before: 1 is linear. Last, `kvlab plan` with a
calibration (target: under 10 s of processor time). Exits 1 where a target is missed.
"""

from __future__ import annotations

import io
import math
import sys
import time
from contextlib import redirect_stdout
from dataclasses import replace

from kvlab.cli import main as kvlab
from kvlab.paths import ROOT
from kvlab.simulate.studies.cases import POLICIES, Case

TARGET_S = 5.0
PLAN_S = 10.0
PLAN = ("plan", "--model", "llama-3.1-8b", "--kv-slots", "98304", "--lengths", "azure-conv", "--rate", "3")
ITERATIONS = 60_000
STEEPEST = 1.25  # exponent allowed, with a margin for timing noise
CASE = Case("paged", {"kind": "paper"}, 0, 15_728, 2048, ITERATIONS, 1000, 16, 0.01)


def timed(case: Case) -> tuple[float, float]:
    """Seconds of simulating and accounting, the best of two, and requests running together."""
    best, running = math.inf, 0.0
    for _ in range(2):
        began = time.process_time()
        accounting = case.accounting(case.run(), "benchmark")
        best = min(best, time.process_time() - began)
        running = accounting.mean("running")
    return best, running


def growth(title: str, by: str, lines: list[tuple[float, float]]) -> float:
    """Print (size, seconds) lines; the steepest exponent over the whole range."""
    print(f"\n{title}\n{by:>22}  {'seconds':>8}  growth")
    for at, (size, seconds) in enumerate(lines):
        exponent = ""
        if at:
            before, took = lines[at - 1]
            exponent = f"{math.log(seconds / took) / math.log(size / before):.2f}"
        print(f"{size:>22,.0f}  {seconds:>8.3f}  {exponent}")
    (first, took), (last, seconds) = lines[0], lines[-1]
    return math.log(seconds / took) / math.log(last / first)


def plan_seconds() -> float:
    """Seconds of processor time of `kvlab plan` with a calibration."""
    began = time.process_time()
    with redirect_stdout(io.StringIO()):
        assert kvlab([*PLAN, "--calibration", str(ROOT / "results/reference/llama-8b")]) == 0
    return time.process_time() - began


def main() -> int:
    total = 0.0
    print(f"{ITERATIONS:,} iterations on a pool of {CASE.pool:,} slots\n{'':>12}  {'seconds':>8}  running")
    for policy in POLICIES:
        seconds, running = timed(replace(CASE, policy=policy))
        total += seconds
        print(f"{policy:>12}  {seconds:>8.3f}  {running:.2f}")
    print(f"{'all':>12}  {total:>8.3f}  (target: under {TARGET_S:g})")
    sizes = [timed(replace(CASE, iterations=n))[0] for n in (15_000, 30_000, 60_000)]
    by_iterations = growth("paged, by iterations", "iterations", list(zip((15e3, 30e3, 60e3), sizes, strict=True)))
    pools = [timed(replace(CASE, iterations=15_000, pool=CASE.pool * times)) for times in (1, 2, 4, 8)]
    by_running = growth("paged, by requests running", "requests running", [(r, s) for s, r in pools])
    planned = plan_seconds()
    print(f"\nkvlab plan with a calibration: {planned:.1f} s (target: under {PLAN_S:g})")
    missed = [
        what
        for what, bad in (
            (f"{total:.1f} s for all policies", total >= TARGET_S),
            (f"iterations ** {by_iterations:.2f}", by_iterations > STEEPEST),
            (f"{planned:.1f} s for a plan", planned >= PLAN_S),
            (f"requests running ** {by_running:.2f}", by_running > STEEPEST),
        )
        if bad
    ]
    print("\n" + ("missed: " + ", ".join(missed) if missed else "all targets met"))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
