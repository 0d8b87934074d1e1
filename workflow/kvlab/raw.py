"""One measured run as it was logged: its six raw files, read once, with their digests.

A run may have measured two parts of its workload (see `records`); a `RawRun` looks at one of them, `of` at another.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from kvlab.accounting import Accounting, Floats, account, final_tokens
from kvlab.errors import LogError
from kvlab.messages import Message, Said
from kvlab.quantities import Source
from kvlab.records import (
    PREEMPTIONS,
    RAW_FILES,
    Output,
    Phase,
    Preemption,
    Run,
    Sample,
    Served,
    Step,
    digest,
    read_lines,
    read_run,
    read_text,
    there,
)

Parted = TypeVar("Parted", Phase, Step, Served, Output, Preemption)


@dataclass(frozen=True)
class RawRun:
    """`raw/<workload>/<arm>/<repeat>/`, one part of it. Times in seconds since the run's origin."""

    root: Path  # the run's folder, that sources are relative to
    folder: Path
    run: Run
    phases: list[Phase]
    all_steps: list[Step]
    all_served: list[Served]
    samples: list[Sample]
    all_outputs: list[Output]
    digests: dict[str, str] = field(default_factory=dict)  # file name -> sha256
    part: str = "all"
    all_preemptions: list[Preemption] | None = None  # None: not recorded

    @classmethod
    def read(cls, root: Path, workload: str, arm: str, repeat: int) -> RawRun:
        """LogError names the file, and the line, that is missing or not what the records say."""
        found = cls.at(root / "raw" / workload / arm / str(repeat), root)
        run, folder = found.run, found.folder
        if (run.workload, run.cell, run.repeat) != (workload, arm, repeat):
            raise LogError(
                f"{folder}/run.json: says it is {run.workload}/{run.cell}/{run.repeat}; logs were moved or swapped"
            )
        return found

    @classmethod
    def at(cls, folder: Path, root: Path) -> RawRun:
        """The run in `folder`, which is somewhere below `root`."""
        run = read_run(folder)
        main = "all" if "all" in run.parts or not run.parts else run.parts[0]
        lost = read_lines(folder / PREEMPTIONS, Preemption) if there(folder / PREEMPTIONS) else None
        return cls(
            root,
            folder,
            run,
            read_lines(folder / "phases.jsonl", Phase),
            read_lines(folder / "steps.jsonl", Step),
            read_lines(folder / "requests.jsonl", Served),
            read_lines(folder / "device.jsonl", Sample),
            read_lines(folder / "outputs.jsonl", Output),
            {name: digest(folder / name) for name in (*RAW_FILES, *([PREEMPTIONS] if lost is not None else []))},
            main,
            lost,
        )

    def of(self, part: str) -> RawRun | None:
        """The same run, another part of it; None where that was not measured."""
        return replace(self, part=part) if part in self.run.parts else None

    def _mine(self, lines: list[Parted]) -> list[Parted]:
        return [line for line in lines if line.part == self.part]

    @property
    def name(self) -> str:
        """`<workload>/<arm>/<repeat>`, of an open loop `<workload>/<arm>@<rate>/<repeat>`."""
        return f"{self.run.workload}/{self.run.cell}/{self.run.repeat}"

    @property
    def completed(self) -> bool:
        """Whether it ran to its end."""
        return self.run.status == "completed"

    @property
    def reason(self) -> Said | None:
        """Why it was not run, or was stopped: a message; of older runs the English text that they recorded."""
        found: Said | None = Message.read(self.run.why) or self.run.reason
        return found

    def source(self, name: str) -> Source:
        """One of its files, the part's rows, as a quantity's source."""
        rows = "all"
        logs: dict[str, list[Any]] = {
            "steps.jsonl": self.all_steps,
            "requests.jsonl": self.all_served,
            "outputs.jsonl": self.all_outputs,
            PREEMPTIONS: self.all_preemptions or [],
        }
        lines = logs.get(name, [])
        mine = [number for number, line in enumerate(lines, start=1) if line.part == self.part]
        if name == "run.json":
            rows = "document"
        elif mine and len(mine) < len(lines):
            rows = f"{mine[0]}-{mine[-1]}"
        return Source(f"{self.folder.relative_to(self.root)}/{name}", self.digests[name], rows)

    def phase_s(self, name: str) -> float:
        """Seconds spent in a phase; 0 where it did not occur."""
        return sum(p.end_s - p.start_s for p in self.phases if p.phase == name)

    @cached_property
    def window(self) -> tuple[float, float]:
        """Start and end of the part's measure phase."""
        for phase in self._mine(self.phases):
            if phase.phase == "measure":
                return phase.start_s, phase.end_s
        raise LogError(f"{self.folder}/phases.jsonl: no measure phase in a run that says it is completed")

    @cached_property
    def steps(self) -> list[Step]:
        """The part's steps."""
        return self._mine(self.all_steps)

    @cached_property
    def served(self) -> list[Served]:
        """The part's requests."""
        return self._mine(self.all_served)

    @cached_property
    def preemptions(self) -> list[Preemption] | None:
        """The part's preemptions; None where the run did not record them."""
        return None if self.all_preemptions is None else self._mine(self.all_preemptions)

    @cached_property
    def outputs(self) -> list[Output]:
        """What the part's requests got."""
        return self._mine(self.all_outputs)

    @property
    def chunks(self) -> dict[int, tuple[int, int]]:
        """Slots asked for and slots of the chunk taken, by request id, of those for which a policy reserved some."""
        return {
            one.id: (one.asked_slots, one.chunk_slots)
            for one in self.served
            if one.asked_slots is not None and one.chunk_slots is not None
        }

    @cached_property
    def accounting(self) -> Accounting:
        """The division of its KV pool at each step. LogError where the log contradicts itself."""
        try:
            return account(self.run, self.steps, final_tokens(self.served), self.chunks, self._ended)
        except LogError as error:
            where = self.folder.relative_to(self.root) / "steps.jsonl"
            raise LogError(Message("in-log", {"file": str(where), "what": error.why})) from None

    @property
    def _ended(self) -> dict[int, float] | None:
        """When the requests of a padded batch finished; None where rows leave as they finish."""
        arm = self.run.settings.get("arm", {})
        if arm.get("feed") != "batch" or arm.get("options", {}).get("cache") not in ("static", "dynamic"):
            return None
        return {one.id: one.finish_s for one in self.served if one.finish_s is not None}

    @cached_property
    def weights(self) -> Floats:
        """Seconds that each step's state lasted, the last one's until the last request finished."""
        return self.accounting.time_weights(max(self.end_s, self.steps[-1].t_s))

    @cached_property
    def end_s(self) -> float:
        """When the last request finished; where one was stopped before it finished, the end of the measure phase."""
        ends = [one.finish_s for one in self.served if one.finish_s is not None]
        return max(ends) if ends and len(ends) == len(self.served) else self.window[1]

    @property
    def span_s(self) -> float:
        """From the first request's arrival to the last one's end."""
        return self.end_s - min((one.arrival_s for one in self.served), default=self.window[0])

    @property
    def output_tokens(self) -> int:
        """Output tokens of all requests."""
        return sum(one.output_tokens for one in self.served)

    @property
    def throughput(self) -> float:
        """Output tokens a second over the span."""
        return self.output_tokens / self.span_s

    def latencies(self) -> list[float]:
        """Seconds from a request's arrival to its last token, one a request."""
        return [one.finish_s - one.arrival_s for one in self.served if one.finish_s is not None]

    def ttft(self) -> list[float]:
        """Time to first token: seconds from arrival to the first output token, one a request."""
        return [one.token_s[0] - one.arrival_s for one in self.served if one.token_s]

    def tpot(self) -> list[float]:
        """Time per output token: mean seconds between a request's later tokens, one a request of two or more."""
        return [
            (one.token_s[-1] - one.token_s[0]) / (len(one.token_s) - 1) for one in self.served if len(one.token_s) > 1
        ]

    def time_waiting(self) -> float:
        """Part of the measured time, 0 to 1, in which requests waited."""
        total = float(self.weights.sum())
        return float(self.weights[self.accounting.waiting > 0].sum()) / total if total else 0.0

    def device_peak(self) -> int | None:
        """Largest device memory in the measure phase, bytes; None where nothing was sampled in it."""
        start, end = self.window
        return max((s.used_bytes for s in self.samples if start <= s.t_s <= end), default=None)

    def sample_gaps_ms(self) -> list[float]:
        """Milliseconds between neighbouring samples."""
        times = [s.t_s for s in self.samples]
        return [1000 * (b - a) for a, b in pairwise(times)]

    def median_gap_ms(self) -> float | None:
        """The real sampling interval, milliseconds."""
        gaps = self.sample_gaps_ms()
        return statistics.median(gaps) if gaps else None


def foreign(root: Path, runs: Iterable[Sequence[Any]]) -> list[str]:
    """Which runs [workload, arm, repeat] were not measured with the requests and the model in `root`, a line each.

    LogError where the requests or the model's fingerprint are missing.
    """
    faults = []
    for workload, arm, repeat in runs:
        folder, requests = root / "raw" / workload / arm / str(repeat), root / "workloads" / f"{workload}.jsonl"
        run, model = read_run(folder), root / "model" / "fingerprint.json"
        if run.workload_sha256 and run.workload_sha256 != digest(requests):
            faults.append(f"{folder}: served other requests than those of {requests}; measure it again")
        if run.model_fingerprint and run.model_fingerprint != json.loads(read_text(model))["sha256"]:
            faults.append(f"{folder}: ran another model than that of {model}; measure it again")
    return faults
