"""What recording every step costs: throughput of vllm-paged with the recorder, divided by without.

    python benchmarks/recorder_cost.py           a tiny model: steps of 1 to 2 ms, the worst case
    python benchmarks/recorder_cost.py --model results/smoke/model --requests 16
    python benchmarks/recorder_cost.py --model random:opt-13b --dummy --dtype bfloat16 --scale 0.5 \\
        --max-model-len 2048 --kv-slots 15728 --max-num-seqs 64 --requests 96 --rounds 4          on a GPU of 80 GB

One engine serves both: the recorder is told with the requests whether to record.
"""

from __future__ import annotations

import sys

import sides

from kvlab.measure.job import Feed

WITH, WITHOUT = "with the recorder", "without"
TARGET = 0.99


def main() -> int:
    args = sides.parser(__doc__).parse_args()
    if args.side:
        served = sides.requests(args)
        engine = sides.engine(args, "vllm-paged")
        sides.serve_rounds(
            {name: sides.arm(engine, served, Feed("batch", record=name == WITH)) for name in (WITH, WITHOUT)}
        )
        engine.close()
        return 0
    print(f"{args.requests} requests of {args.model}, {args.dtype}, {args.kv_slots} KV slots")
    met = sides.compare(WITH, WITHOUT, args.rounds, TARGET, together=True, on_cpu=sides.on_cpu(args))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
