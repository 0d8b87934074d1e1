"""What a verification finds: faults, how much was checked, and what can't be proved."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from kvlab.publish.words.strings import look_up

Sections = Callable[[str], dict[str, Any]]  # a stage's name to its part of the configuration

MOST = 20  # faults of one kind that are named; the rest is counted
ALWAYS = ("logs", "answers", "notebook")


@dataclass
class Found:
    """What was checked: faults, a line each; how many of each thing; and what can't be proved here.

    What can't be is a key of `proof.not_proved.of` in the strings, which the page lists too.
    """

    faults: list[str] = field(default_factory=list)
    checked: dict[str, int] = field(default_factory=dict)
    not_proved: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for key in ALWAYS:
            self.leave(key)

    def leave(self, key: str, more: str = "") -> None:
        """Name what is not proved: the words that the page has for `key`, and `more` of this run."""
        words = look_up("en", f"proof.not_proved.of.{key}").replace("`", "")
        self.not_proved.append(f"{words}: {more}" if more else words)

    def add(self, faults: Iterable[str], rest: str = "") -> None:
        """Name the first faults of one kind and count the others."""
        all_of_them = list(faults)
        self.faults += all_of_them[:MOST]
        if len(all_of_them) > MOST:
            self.faults.append(f"{rest}: {len(all_of_them) - MOST} more")
