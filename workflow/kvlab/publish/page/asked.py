"""What a workload asked: how long its prompts and outputs are, and how its requests arrive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kvlab.paths import DATA
from kvlab.publish.words.bilingual import Both, text
from kvlab.publish.words.facts import Facts
from kvlab.quantities import Message, Quantity
from kvlab.raw import RawRun
from kvlab.records import read_json

BINS = 24


@dataclass(frozen=True)
class AskedLengths:
    """One of prompt and output. `bars`: heights of equal bins from 0 to `most`, the highest 100."""

    name: str
    mean: Quantity
    most: Quantity
    bars: list[float]


@dataclass(frozen=True)
class Asking:
    """A workload's requests: their kind in the configuration, how they arrive in words, their lengths."""

    kind: str
    arrivals: Both
    lengths: list[AskedLengths]

    @classmethod
    def of(cls, workload: str, facts: Facts, runs: Sequence[RawRun]) -> Asking:
        """From the configuration and the workload's `runs`."""
        part = (facts.document("config.json") or {}).get("workloads", {}).get(workload, {})
        kind = str(part.get("requests", {}).get("kind", "other"))
        rate = facts.get("config.json", f"workloads.{workload}.arrivals.rate", "requests/s")
        arrives = (part.get("arrivals") or {}).get("kind", "closed")
        known = text(f"workload.{arrives}", rate=rate) if rate is not None else text("workload.closed")
        if rate is None and arrives != "closed":
            known = text("workload.rates")
        return cls(kind, known, lengths(workload, runs))


def lengths(workload: str, runs: Sequence[RawRun]) -> list[AskedLengths]:
    """Prompt and output lengths of the workload's requests, from the run that served the most of them."""
    if not runs:
        return []
    run = max(runs, key=lambda one: len(one.served))
    source = [run.source("requests.jsonl")]
    made = []
    for name, values in (
        ("prompt", [one.prompt_tokens for one in run.served]),
        ("output", [one.output_tokens for one in run.served]),
    ):
        if not values:
            return []
        at = f"{workload}.workload.{name}."
        mean = Quantity(
            f"{at}mean", float(np.mean(values)), "tokens", Message("workload.mean", {"what": name}), 1, source
        )
        most = Quantity(f"{at}max", float(max(values)), "tokens", Message("workload.max", {"what": name}), 1, source)
        counts, _ = np.histogram(values, bins=BINS, range=(0, max(max(values), 1)))
        made.append(AskedLengths(name, mean, most, [round(100 * c / counts.max(), 1) for c in counts.tolist()]))
    return made


def published() -> dict[str, Any]:
    """Pairs, moments and quantiles, in tokens, of the lengths that the paper's authors published.

    Source and licence: config/data/SOURCES.md.
    """
    found: dict[str, Any] = read_json(DATA / "sharegpt-summary.json")
    return found
