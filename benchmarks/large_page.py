"""That a run with very many requests becomes a page: analyse, notebook and report on a simulated log of 20,000.

    PYTHONPATH=workflow python benchmarks/large_page.py [--requests 20000]

Writes the raw log of a run of vLLM's scheduler as the simulator plays it (see `analysis.py`) and runs the three
commands on it, each a process. Prints for each: seconds of the wall clock, seconds of the processor, peak memory; then
the page's size. Exits 1 above two minutes of the processor, 4 GiB, or 6 MiB. On an idle machine the wall clock is close
to the processor's.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from analysis import ARM, write_log

from kvlab import config

POOL, LONGEST, MEAN = 32768, 1024, 100.0  # slots; tokens of a request at most; of its prompt and its output, mean
LIMIT_S, LIMIT_MEMORY, LIMIT_PAGE = 120.0, 4 << 30, 6 << 20
SETTINGS = {
    "run": "large",
    "model": "random:tiny",
    "workloads": {
        "w": {
            "requests": {"kind": "paper", "requests": 4},
            "arms": [ARM.name],
            "kv_slots": POOL,
            "max_model_len": LONGEST,
            "repeats": 1,
        }
    },
}


def command(name: str, root: Path) -> tuple[float, float, int]:
    """Run one command; (seconds, seconds of the processor, peak bytes of the largest process so far)."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-m", "kvlab", name, str(root)], check=True, env=os.environ)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - began, used, after.ru_maxrss << 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        parsed = config.parse(SETTINGS, "benchmark")
        (root / "config.json").write_text(json.dumps(parsed.model_dump(mode="json")), encoding="utf-8")
        (root / "environment.json").write_text("{}", encoding="utf-8")
        write_log(root, args.requests, MEAN, POOL, LONGEST)
        steps = root / "raw" / "w" / ARM.name / "0" / "steps.jsonl"
        with steps.open(encoding="utf-8") as stream:
            print(f"{args.requests:,} requests, {sum(1 for _ in stream):,} steps, {steps.stat().st_size / 1e6:.0f} MB")
        total, peak = 0.0, 0
        for name in ("analyse", "notebook", "report"):
            wall, used, peak = command(name, root)
            total += used
            print(f"{name:<10} {wall:7.1f} s  {used:7.1f} s of the processor  peak {peak / 2**30:.2f} GiB", flush=True)
        size = (root / "report.html").stat().st_size
    print(f"{'page':<10} {size / 2**20:7.2f} MiB; {total:.1f} s of the processor in all")
    return int(total > LIMIT_S or peak > LIMIT_MEMORY or size > LIMIT_PAGE)


if __name__ == "__main__":
    sys.exit(main())
