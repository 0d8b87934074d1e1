"""Arms by their roles: code that compares arms or shows them finds them by role, never by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

RUNGS = ("baseline", "engine", "batching", "paging")  # of the ladder, from the bottom
BASELINE, ENGINE, BATCHING, PAGING = RUNGS
RESERVING, EAGER = "reserving", "eager"
ADMITTING = (BATCHING, RESERVING, PAGING)  # one engine, and only who may be admitted differs
GREY = "#777777"


@dataclass(frozen=True)
class Roles:
    """The run's arms by name: {role, engine, feed, policy, label, colour} of each, as `kvlab.arms` declares them.

    An arm at a rate (`<arm>@<rate>`) is that arm. One without an entry has no role; it is shown by its name, in
    grey.
    """

    arms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def about(self, arm: str, key: str) -> Any:
        """One of role, engine, feed, policy, label, colour; None where the entry lacks it."""
        return self.arms.get(arm.partition("@")[0], {}).get(key)

    def first(self, role: str, arms: Iterable[str]) -> str | None:
        """The first of `arms` that has this role; None where none has."""
        return next((arm for arm in arms if self.about(arm, "role") == role), None)

    def every(self, roles: Iterable[str], arms: Iterable[str]) -> list[str]:
        """Those of `arms` that have one of the roles, in their own order."""
        wanted = set(roles)
        return [arm for arm in arms if self.about(arm, "role") in wanted]

    def with_paging(self, arms: Iterable[str]) -> list[str]:
        """Those of `arms` that serve requests together on the engine of an arm that pages."""
        engines = {about["engine"] for about in self.arms.values() if about["role"] == PAGING}
        return [a for a in arms if self.about(a, "feed") == "batch" and self.about(a, "engine") in engines]

    def label(self, arm: str, language: str) -> str:
        """The arm's name for readers of a language."""
        return str((self.about(arm, "label") or {}).get(language) or arm)

    def colour(self, arm: str) -> str:
        """As #rrggbb."""
        return str(self.about(arm, "colour") or GREY)
