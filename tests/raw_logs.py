"""Raw logs of small made-up runs, for tests of what is computed from them. Every number is stated by the test."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from kvlab.arms import ARMS
from kvlab.records import Output, Phase, Run, Sample, Served, Step, cell, write_json, write_lines


def write_model(root: Path) -> None:
    write_json(root / "model" / "fingerprint.json", {"source": "random:tiny", "sha256": "f" * 64, "parameters": 1})


def write_raw(
    root: Path,
    arm: str,
    repeat: int = 0,
    *,
    workload: str = "w",
    steps: list[Step] | None = None,
    served: list[Served] | None = None,
    outputs: list[Output] | None = None,
    samples: list[Sample] | None = None,
    seconds: float = 10.0,
    **run,
) -> Path:
    """One raw folder. By default: two requests of 4 + 3 tokens, one after the other, in a pool of 64 slots."""
    served = served or [
        Served(0, 4, 3, 1.0, [2.0, 3.0, 4.0], 4.0, "length"),
        Served(1, 4, 3, 1.0, [5.0, 6.0, 1.0 + seconds], 1.0 + seconds, "length"),
    ]
    if steps is None:
        steps = [Step(i, 1.0 + i, 1, 0, 0, 1, [[0, 4 + i, 16]]) for i in range(3)]
        steps += [Step(3 + i, 4.0 + i, 1, 0, 0, 1, [[1, 4 + i, 16]]) for i in range(3)]
    outputs = outputs or [Output(one.id, list(range(one.output_tokens)), "") for one in served]
    facts = {
        "status": "completed",
        "parts": ["all"],
        "pool_slots": 64,
        "kv_slots_asked": 64,
        "block_size": 16,
        "max_model_len": 32,
        "kv_bytes_per_slot": 1024,
        "dtype": "float32",
        "workload_sha256": "a" * 64,
        "model_fingerprint": "f" * 64,
        "idle_device_bytes": 100,
    }
    folder = root / "raw" / workload / cell(arm, run.get("rate")) / str(repeat)
    write_json(folder / "run.json", asdict(Run(**{"workload": workload, "arm": arm, "repeat": repeat} | facts | run)))
    write_lines(folder / "phases.jsonl", [Phase("load", 0.0, 0.9), Phase("measure", 0.95, 1.5 + seconds)])
    write_lines(folder / "steps.jsonl", steps)
    write_lines(folder / "requests.jsonl", served)
    write_lines(folder / "device.jsonl", samples or [Sample(t / 2, 1000 + t) for t in range(int(2 * seconds) + 2)])
    write_lines(folder / "outputs.jsonl", outputs)
    return folder


def section(*which: tuple[str, str, int]) -> dict:
    """What the analysis of these runs is given."""
    return {
        "run": "made-up",
        "raw": [list(w) for w in which],
        "arms": {name: arm.shown() for name, arm in ARMS.items()},
        "analysis": {"bootstrap_resamples": 200, "confidence": 0.95},
    }
