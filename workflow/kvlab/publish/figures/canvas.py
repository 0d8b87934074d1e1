"""What all figures share: one workload's numbers and logs, the words of one language, colours and style."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from kvlab.publish.figures.palette import INK, colour
from kvlab.quantities import COUNTS, Metrics, Quantity
from kvlab.raw import RawRun

mpl.use("agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

LANGUAGES = ("en", "zh")
STYLE = {
    "svg.fonttype": "none",  # text stays text: searchable, small, in the reader's font
    "svg.hashsalt": "kvlab",  # the same figure has the same ids
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "axes.unicode_minus": False,
}


def thinned(count: int, most: int) -> np.ndarray:
    """Indices of at most `most` of `count` things, evenly spread, the last one among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


class Nothing(Exception):
    """The run has nothing that this figure could show; the text says what is missing."""


@dataclass
class Canvas:
    """What a drawing needs: the numbers, the logs of one workload, the words of one language."""

    workload: str
    metrics: Metrics
    root: Path
    words: dict[str, Any]
    palette: str
    figure: Figure = field(default_factory=plt.figure)
    read: dict[str, dict[str, RawRun]] = field(default_factory=dict)  # by workload; shared by a run's figures
    note: str = ""  # what the caption adds about this drawing: that it was thinned

    @property
    def arms(self) -> list[str]:
        """The workload's arms that have a run that counts, in the order of the configuration."""
        planned = self.metrics.facts["workloads"][self.workload]["arms"]
        known = [arm for arm in planned if f"{self.workload}.{arm}.throughput" in self.metrics.quantities]
        return [arm for arm in known if self.metrics.counts(self.workload, arm)]

    @cached_property
    def first_runs(self) -> dict[str, RawRun]:
        """Of each such arm, the first repeat that counts: what figures over time are drawn from."""
        if self.workload in self.read:
            return self.read[self.workload]
        found: dict[str, RawRun] = self.read.setdefault(self.workload, {})
        for entry in self.metrics.runs:
            arm = entry["arm"]
            counts = entry["workload"] == self.workload and entry["validity"] in COUNTS
            if counts and arm not in found:
                found[arm] = RawRun.read(self.root, self.workload, arm, entry["repeat"])
        return found

    def quantity(self, name: str) -> Quantity | None:
        """`<workload>.<name>` where it has a value, and not only a bound."""
        found = self.metrics.quantities.get(f"{self.workload}.{name}")
        return found if found is not None and found.value is not None and not found.bound else None

    def word(self, key: str, **values: Any) -> str:
        """A label in the figure's language."""
        return str(self.words["labels"][key]).format(**values)

    def colour(self, name: str) -> str:
        """Of a share, or a phase of a request."""
        return colour(self.palette, name)

    def arm_colour(self, arm: str) -> str:
        """Of an arm, or an arm at a rate."""
        return self.metrics.roles.colour(arm)

    def role_colour(self, role: str) -> str:
        """Of the workload's arm in a role; grey where it has none."""
        return self.arm_colour(self.metrics.roles.first(role, self.arms) or "")
