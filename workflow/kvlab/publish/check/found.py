"""What a verification finds: faults, how much was checked, and what can't be proved."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

Sections = Callable[[str], dict[str, Any]]  # a stage's name to its part of the configuration

MOST = 20  # faults of one kind that are named; the rest is counted
ALWAYS = (
    "raw logs: that they are what the engines did; only that nothing after them was changed",
    "answers: that each text is what its tokens spell; the tokens are those of the logs",
    "analysis.ipynb: the executed notebook; the figures that it drew are drawn again",
)


@dataclass
class Found:
    """What was checked: faults, a line each; how many of each thing; and what can't be proved here."""

    faults: list[str] = field(default_factory=list)
    checked: dict[str, int] = field(default_factory=dict)
    not_proved: list[str] = field(default_factory=lambda: list(ALWAYS))

    def add(self, faults: Iterable[str], rest: str = "") -> None:
        """Name the first faults of one kind and count the others."""
        all_of_them = list(faults)
        self.faults += all_of_them[:MOST]
        if len(all_of_them) > MOST:
            self.faults.append(f"{rest}: {len(all_of_them) - MOST} more")
