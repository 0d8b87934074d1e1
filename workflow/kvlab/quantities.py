"""A number with its unit, interval, formula and sources: the only way a number reaches a reader."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kvlab.catalogue import known
from kvlab.errors import LogError
from kvlab.messages import Message as Message
from kvlab.messages import Said as Said
from kvlab.records import read_text, write_json
from kvlab.roles import Roles

UNITS = {
    "share": "part of a whole, 0 to 1, shown in per cent",
    "change": "relative change, 0.78 is shown as +78 %",
    "ratio": "how many times, shown as 4.2×",
    "bytes": "bytes, shown in KiB, MiB or GiB",
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "tokens/s": "output tokens a second",
    "requests/s": "requests a second",
    "requests": "requests",
    "tokens": "tokens",
    "slots": "KV slots: room for the keys and values of one token in all layers",
    "blocks": "KV blocks",
    "count": "how many",
    "points": "difference of two shares, 0.2 is shown as +20 percentage points",
    "ms/token": "milliseconds a token",
    "J": "joules",
}


COUNTS = ("steady", "saturated", "noisy")  # the classes of runs that count


@dataclass(frozen=True)
class Source:
    """Lines of one raw log that a quantity was computed from. `rows` is "all", "document", or "3-17" (from 1)."""

    file: str  # relative to the run's folder
    sha256: str
    rows: str


@dataclass(frozen=True)
class Quantity:
    """A number that may be shown. `id` is `<workload>.<arm>.<name>`, or `<workload>.<name>` across arms.

    `value` is None where the logs don't decide it; `why_none` then says why. `samples` has one value a repeat, in
    order. `interval`, from three repeats on, is what `interval_kind` says: "range" (lowest and highest of fewer than
    six), "bootstrap" (of the median), or "t" (of a ratio: paired logarithms over blocks). `bound`, where a run was
    stopped before it was done: "least" (the true value is no smaller) or "most" (no larger); there is no interval then.
    """

    id: str
    value: float | None
    unit: str
    formula: Said
    n: int
    sources: list[Source]
    interval: tuple[float, float] | None = None
    samples: list[float] = field(default_factory=list)
    why_none: Said | None = None
    interval_kind: str | None = None
    bound: str | None = None

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ValueError(f"{self.id}: unknown unit {self.unit!r}, one of {sorted(UNITS)}")
        if self.value is None and not self.why_none:
            raise ValueError(f"{self.id}: no value and no reason")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"{self.id}: {self.value} is not a finite number")


class Quantities:
    """Quantities by id; an id names one number only."""

    def __init__(self, items: Iterable[Quantity] = ()) -> None:
        self._by_id: dict[str, Quantity] = {}
        for item in items:
            self.add(item)

    def add(self, item: Quantity) -> Quantity:
        """Keep `item`; raises ValueError where its id is taken."""
        if item.id in self._by_id:
            raise ValueError(f"two quantities named {item.id}")
        self._by_id[item.id] = item
        return item

    def __getitem__(self, key: str) -> Quantity:
        known(key)
        try:
            return self._by_id[key]
        except KeyError:
            raise LogError(f"no quantity named {key!r}: the run did not produce it") from None

    def get(self, key: str) -> Quantity | None:
        """The quantity, or None where the run did not produce it: an older run, or an arm that it lacks.

        UndeclaredId where no run could produce it.
        """
        known(key)
        return self._by_id.get(key)

    def __contains__(self, key: str) -> bool:
        return key in self._by_id

    def __iter__(self) -> Iterator[Quantity]:
        return iter(sorted(self._by_id.values(), key=lambda q: q.id))

    def __len__(self) -> int:
        return len(self._by_id)


def _fields(quantity: Quantity) -> dict[str, Any]:
    return {name: value for name, value in asdict(quantity).items() if name != "bound" or value is not None}


@dataclass
class Metrics:
    """`metrics.json`: every quantity of a run, and the facts that are not numbers.

    `runs`: one entry a raw folder {workload, arm, repeat, status, validity, reason, host_bound}. `guards`: one entry a
    check {id, workload, outcome (pass, fail, not decided), detail}. `files`: digest of every raw file that was read.
    `facts`: what labels need (engine versions, dtype, device, model; `arms`: role, label, colour … of each arm).
    """

    run: str
    quantities: Quantities
    runs: list[dict[str, Any]] = field(default_factory=list)
    guards: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    schema: int = 1

    @property
    def roles(self) -> Roles:
        """Role, label, colour … of the arms; none of an older run, which did not record them."""
        return Roles(self.facts.get("arms", {}))

    def resting_on(self, file: str) -> str | None:
        """In words, the quantities that were computed from a raw file; None where none was."""
        ids = [q.id for q in self.quantities if any(source.file == file for source in q.sources)]
        if not ids:
            return None
        return f"{len(ids)} quantities were computed from it: {', '.join(ids)}"

    def counts(self, workload: str, arm: str) -> bool:
        """Whether a run of the arm counts: one that ran to its end, without a fault."""
        mine = (e for e in self.runs if (e["workload"], e["arm"]) == (workload, arm))
        return any(entry["validity"] in COUNTS for entry in mine)

    def write(self, path: Path) -> None:
        """The same metrics give the same bytes."""
        document = {name: getattr(self, name) for name in ("schema", "run", "facts", "files")}
        for entries in ("runs", "guards"):
            document[entries] = [{k: asdict(v) if isinstance(v, Message) else v for k, v in entry.items()}
                                 for entry in getattr(self, entries)]  # fmt: skip
        write_json(path, document | {"quantities": [_fields(q) for q in self.quantities]})

    @classmethod
    def read(cls, path: Path) -> Metrics:
        """Raises LogError where the file is missing or is not a metrics document."""
        try:
            document = json.loads(read_text(path))
            items = [
                Quantity(
                    **q
                    | {
                        "formula": Message.read(q["formula"]),
                        "why_none": Message.read(q["why_none"]),
                        "sources": [Source(**s) for s in q["sources"]],
                        "interval": tuple(q["interval"]) if q["interval"] else None,
                    }
                )
                for q in document.pop("quantities")
            ]
            for entries, name in ((document["runs"], "reason"), (document["guards"], "detail")):
                for entry in entries:
                    entry[name] = Message.read(entry[name])
            return cls(quantities=Quantities(items), **document)
        except (KeyError, TypeError, ValueError) as error:
            raise LogError(f"{path}: not a metrics document ({error}); make it again with: kvlab analyse") from None
