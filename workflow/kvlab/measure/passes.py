"""One pass of a process: what it serves, what it notes, and its raw folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kvlab.errors import ConfigError
from kvlab.folders import whole_folder
from kvlab.measure.job import Feed
from kvlab.measure.journal import Journal
from kvlab.records import (
    PREEMPTIONS,
    Output,
    Phase,
    Preemption,
    Request,
    Run,
    Sample,
    Served,
    Step,
    cell,
    write_json,
    write_lines,
)


@dataclass(frozen=True)
class Planned:
    """What is asked for: an arm on a workload in one block, all requests at once or `rate` a second."""

    section: dict[str, Any]  # the configuration's, of stage `measure`
    workload: str
    arm: str
    repeat: int  # the block's number
    folder: Path
    rate: float | None = None

    @property
    def name(self) -> str:
        """`arm` or `arm@rate`."""
        return cell(self.arm, self.rate)

    @property
    def policy(self) -> str | None:
        """Who is admitted: the arm's own option; None leaves it to the engine."""
        policy: str | None = self.section["arm"]["options"].get("policy")
        return policy


class Pass:
    """A cell under way: its journals, then its lines."""

    def __init__(self, asked: Planned, run: Run, requests: list[Request]) -> None:
        self.cell, self.run, self.requests = asked, run, requests
        self.journals: list[Journal] = []
        self.forget()

    @property
    def title(self) -> str:
        """What it is called while it runs."""
        return f"measure {self.run.workload} {self.run.cell} #{self.run.repeat}:"

    def forget(self) -> None:
        """Drop everything that was logged."""
        self.phases: list[Phase] = []
        self.steps: list[Step] = []
        self.served: list[Served] = []
        self.samples: list[Sample] = []
        self.outputs: list[Output] = []
        self.preemptions: list[Preemption] = []

    def parts(self) -> dict[str, list[Request]]:
        """What is measured: a cut workload in part by sequential and other slow arms, in part and whole by the rest.

        Of an open loop, the requests that arrive within its time.
        """
        if self.cell.rate is not None:
            return {"all": self._arriving()}
        section, requests = self.cell.section, shuffled(self.requests, self.cell)
        cut = section["sequential_requests"]
        if cut is None or cut >= len(requests):
            return {"all": requests}
        if section["cut_only"]:
            return {"cut": requests[:cut]}
        return {"cut": requests[:cut], "all": requests}

    def _arriving(self) -> list[Request]:
        """The block's requests with their planned arrivals, seconds; those within `duration_s`."""
        arrivals, rate = self.cell.section["arrivals"], self.cell.rate
        assert rate is not None
        planned = in_block(self.requests, self.cell.repeat, arrivals["kind"])
        found = [replace(one, arrival_s=one.arrival_s / rate) for one in planned]
        lasts = arrivals["duration_s"]
        inside = [one for one in found if one.arrival_s <= lasts]
        where = f"{self.cell.workload} at {rate:g} requests a second"
        if len(inside) == len(found):
            raise ConfigError(
                f"{where}: its {len(found)} requests have all arrived before {lasts:g} s are over; "
                f"raise requests.requests above {int(1.2 * rate * lasts) + 10}"
            )
        if not inside:
            raise ConfigError(f"{where}: none arrives within {lasts:g} s; raise arrivals.duration_s or the rate")
        return inside

    def feed(self, requests: list[Request]) -> Feed:
        """How `requests` reach the engine."""
        kind, policy = self.cell.section["arm"]["feed"], self.cell.policy
        if self.cell.rate is None:
            return Feed(kind, policy)
        arrivals = self.cell.section["arrivals"]
        due = tuple(one.arrival_s for one in requests)
        return Feed("open", policy, due, arrivals["duration_s"] + arrivals["drain_s"])

    def warming(self) -> Feed:
        """How the warm-up's requests reach the engine: all at once, unless the arm serves one by one."""
        return Feed(self.cell.section["arm"]["feed"], "paged" if self.cell.policy else None)

    def collect(self, phases: list[Phase], decode: Callable[[list[int]], str]) -> None:
        """The lines of the logs, once the clock has stopped."""
        self.phases, origin = phases, self.run.origin_ns
        for journal in self.journals:
            first = len(self.steps)
            self.steps += journal.stepped(origin, first)
            self.preemptions += journal.preempted(origin, first)
            self.served += journal.served(origin)
            self.outputs += journal.outputs(decode)

    def write(self) -> None:
        """The raw folder, whole or not at all."""
        with whole_folder(self.cell.folder, "run.json") as folder:
            write_lines(folder / "phases.jsonl", self.phases)
            write_lines(folder / "steps.jsonl", self.steps)
            write_lines(folder / "requests.jsonl", self.served)
            write_lines(folder / "device.jsonl", self.samples)
            write_lines(folder / "outputs.jsonl", self.outputs)
            write_lines(folder / PREEMPTIONS, self.preemptions)
            write_json(folder / "run.json", vars(self.run))

    def summary(self) -> str:
        """One line for the terminal."""
        if self.run.status != "completed":
            return f"{self.title} {self.run.status.replace('_', ' ')}: {self.run.reason}"
        measured = [phase for phase in self.phases if phase.phase == "measure"]
        last = measured[-1]
        took = last.end_s - last.start_s
        mine = [served for served in self.served if served.part == last.part]
        tokens, open_ = sum(served.output_tokens for served in mine), sum(one.finish_s is None for one in mine)
        return (
            f"{self.title} {len(mine)} requests, {tokens} output tokens in {took:.2f} s "
            f"({tokens / took:.1f} tokens/s), ready after {min(phase.start_s for phase in measured):.1f} s"
            + (f", {open_} unfinished at its time limit" if open_ else "")
        )


def shuffled(requests: list[Request], asked: Planned) -> list[Request]:
    """The queue of a block: as the workload has it, or in the block's own order where `shuffle` is on."""
    if not asked.section.get("shuffle"):
        return requests
    order = np.random.default_rng([asked.repeat, 2]).permutation(len(requests))
    return [requests[i] for i in order]


def in_block(requests: list[Request], block: int, kind: str) -> list[Request]:
    """The requests of an open loop as they arrive in a block, at one a second: the same for every arm and rate.

    Poisson: the drawn requests and the drawn gaps each in an order of the block's own. A trace keeps its order and
    gaps, and begins at another place.
    """
    gaps = np.diff([0.0, *(one.arrival_s for one in requests)])
    count = len(requests)
    if kind == "poisson":
        of, which = (np.random.default_rng([block, stream]).permutation(count) for stream in (3, 4))
    else:
        of = which = np.roll(np.arange(count), -(block * count // 7) % count)
    times = np.cumsum(gaps[which])
    return [replace(requests[i], arrival_s=float(t)) for i, t in zip(of, times, strict=True)]
