"""Whether the simulator holds what the engine held, at every step: `python -m kvlab agree LOGS`.

A raw folder is a test case for any simulator of an engine that batches continuously. In: `run.json` (`policy`,
`pool_slots`, `block_size`, `max_model_len`, `max_num_seqs`; in `engine`: `max_num_batched_tokens`,
`async_scheduling`), and of each line of `requests.jsonl` its `id`, `prompt_tokens`, `output_tokens` (`asked_tokens`
where it was stopped) and, of an open loop, `seen_s`. Expected: the lines of `steps.jsonl` in which something is held:
who holds how many tokens in how many slots. For a reserving policy the slots of a request are `asked_slots` of its
line, and the pool's are the sum of `chunk_slots`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kvlab.errors import KvlabError
from kvlab.messages import said
from kvlab.raw import RawRun
from kvlab.records import read_run
from kvlab.simulate.counterfactual import Agreement, agreement


@dataclass(frozen=True)
class Comparable:
    """One part of one raw folder: how far the two agree, or why they are not compared."""

    name: str
    found: Agreement | None
    why_not: str = ""

    @property
    def differs(self) -> bool:
        """Whether a step differs."""
        return self.found is not None and not self.found.whole


def agree(logs: Path) -> list[Comparable]:
    """A verdict for each part of each raw folder below `logs`; KvlabError where there is none."""
    folders = sorted(file.parent for file in logs.rglob("run.json") if ".passes" not in file.parts)
    if not folders:
        raise KvlabError(f"{logs}: no raw folder (one with a run.json) in it; give a run's folder, or one of its raw/")
    return [verdict for folder in folders for verdict in _of(folder, logs)]


def _of(folder: Path, logs: Path) -> list[Comparable]:
    name, run = str(folder.relative_to(logs)), read_run(folder)
    if run.status != "completed":
        return [Comparable(name, None, f"{run.status}: {run.reason}")]
    if run.engine.get("name") != "vllm" or not run.engine.get("max_num_batched_tokens"):
        return [Comparable(name, None, f"{run.engine.get('name')} schedules otherwise than the simulator")]
    raw = RawRun.at(folder, logs)
    parts = [part for part in (raw.of(name) for name in run.parts) if part is not None]
    return [Comparable(f"{name} ({part.part})", agreement(part)) for part in parts if part.steps]


def show(verdicts: list[Comparable]) -> bool:
    """Print a line a verdict and a last one for all; whether anything differs."""
    for one in verdicts:
        if one.found is None:
            print(f"{one.name}: not compared ({one.why_not})")
        else:
            steps = f"{one.found.equal} of {max(one.found.measured, one.found.simulated)} steps agree"
            where = f"; first difference: {said('en', one.found.difference)}" if one.found.difference else ""
            print(f"{one.name}: {steps}{where}")
    compared = [one.found for one in verdicts if one.found is not None]
    print(f"{sum(one.equal for one in compared)} of {sum(one.measured for one in compared)} steps agree in all")
    return any(one.differs for one in verdicts)
