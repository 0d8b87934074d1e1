"""What recording every step costs: throughput of vllm-paged with the recorder, divided by without.

    python benchmarks/recorder_cost.py           a tiny model: steps of 1 to 2 ms, the worst case
    python benchmarks/recorder_cost.py --model results/smoke/model --requests 16
    python benchmarks/recorder_cost.py --model results/full/model --dtype bfloat16 --scale 1 --max-model-len 2048 \\
        --kv-slots 16384 --requests 256                                      on a GPU

Both engines are loaded side by side, each in a process of its own, and serve the same requests in turn.
"""

from __future__ import annotations

import sys

import sides

WITH, WITHOUT = "with the recorder", "without"
TARGET = 0.99


def main() -> int:
    args = sides.parser(__doc__).parse_args()
    if args.side:
        served = sides.requests(args)
        engine = sides.engine(args, "vllm-paged", record_steps=args.side == WITH)
        play = sides.arm(engine, served, recorded=args.side == WITH)
        sides.serve_rounds({args.side: play})
        engine.close()
        return 0
    print(f"{args.requests} requests of {args.model}, {args.dtype}, {args.kv_slots} KV slots")
    met = sides.compare(WITH, WITHOUT, args.rounds, TARGET, together=False, on_cpu=sides.on_cpu(args))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
