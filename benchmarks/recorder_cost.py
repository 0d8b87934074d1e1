"""What recording every step costs: throughput of paging with the recorder, divided by without.

    python benchmarks/recorder_cost.py           a tiny model: steps of 1 to 2 ms, the worst case
    python benchmarks/recorder_cost.py --model results/smoke/model --requests 16
    python benchmarks/recorder_cost.py --model results/full/model --dtype bfloat16 --scale 1 --max-model-len 2048 \\
        --kv-slots 16384 --requests 256                                      on a GPU

One engine is loaded; recording is switched on and off from round to round, and nothing else changes.
"""

from __future__ import annotations

import sys

import sides

from kvlab.arms import ARMS
from kvlab.roles import PAGING

WITH, WITHOUT = "with the recorder", "without"
TARGET = 0.99


def main() -> int:
    args = sides.parser(__doc__).parse_args()
    if args.side:
        served = sides.requests(args)
        paging = next(arm.name for arm in ARMS.values() if arm.role == PAGING)
        engine = sides.engine(args, paging)
        plays = {name: sides.arm(engine, served, paging, recorded=name == WITH) for name in (WITH, WITHOUT)}
        sides.serve_rounds(plays)
        engine.close()
        return 0
    print(f"{args.requests} requests of {args.model}, {args.dtype}, {args.kv_slots} KV slots")
    met = sides.compare(WITH, WITHOUT, args.rounds, TARGET, together=True, on_cpu=sides.on_cpu(args))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
