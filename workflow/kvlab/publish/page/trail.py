"""Where each number comes from: the data from which the page shows a number's trail."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from kvlab.publish.words import numbers
from kvlab.publish.words.facts import Fact
from kvlab.publish.words.strings import LANGUAGES, of_quantity, said
from kvlab.quantities import Metrics, Quantity


def _each(texts: dict[str, str]) -> Any:
    """One text where all languages say the same, else one for each."""
    return texts[LANGUAGES[0]] if len(set(texts.values())) == 1 else [texts[language] for language in LANGUAGES]


class _Table:
    """Values, each stored once and named by its index."""

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self._index: dict[str, int] = {}

    def at(self, value: Any) -> int:
        key = json.dumps(value, ensure_ascii=False)
        if key not in self._index:
            self._index[key] = len(self.rows)
            self.rows.append(value)
        return self._index[key]


def trails(quantities: Iterable[Quantity], facts: Iterable[Fact]) -> dict[str, Any]:
    """`{quantities, facts, files, sources, formulas, units}`: every quantity and every fact that was shown, by id.

    A file is [path, sha256]; a list of sources holds [index of the file, rows]. Most quantities share both, so they
    are stored once.
    """
    files, sources, formulas, units = _Table(), _Table(), _Table(), _Table()

    def one(quantity: Quantity) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "v": _each({x: numbers.text_of(quantity, x) for x in LANGUAGES}),
            "n": quantity.n,
            "u": units.at(quantity.unit),
            "f": formulas.at(_each({x: of_quantity(x, quantity) for x in LANGUAGES})),
            "s": sources.at([[files.at([s.file, s.sha256]), s.rows] for s in quantity.sources]),
        }
        if quantity.value is None:
            why = quantity.why_none or ""
            entry["w"] = _each({x: said(x, why) for x in LANGUAGES})
        else:
            entry["x"] = repr(quantity.value)
        if quantity.interval:
            entry["i"] = _each({x: numbers.interval_text(quantity, x) or "" for x in LANGUAGES})
            entry["ix"] = list(quantity.interval)
        if len(quantity.samples) > 1:
            entry["e"] = quantity.samples
            entry["et"] = [
                _each({x: numbers.value_text(sample, quantity.unit, x) for x in LANGUAGES})
                for sample in quantity.samples
            ]
        return entry

    made = {quantity.id: one(quantity) for quantity in quantities}

    def source_of(fact: Fact) -> int:
        return sources.at([[files.at([fact.file, fact.sha256]), fact.id.partition("#")[2]]])

    shown = sorted(facts, key=lambda fact: fact.id)
    named = {fact.id: {"v": _each({x: fact.text(x) for x in LANGUAGES}), "s": source_of(fact)} for fact in shown}
    return {
        "quantities": made,
        "facts": named,
        "files": files.rows,
        "sources": sources.rows,
        "formulas": formulas.rows,
        "units": units.rows,
    }


def by_arm(metrics: Metrics) -> Iterator[tuple[str, list[tuple[str, list[Quantity]]]]]:
    """Every quantity of the metrics: by workload, then by arm ("" for those across arms)."""
    for workload, facts in metrics.facts["workloads"].items():
        found: dict[str, list[Quantity]] = {arm: [] for arm in ("", *facts["arms"])}
        for quantity in metrics.quantities:
            if quantity.id.startswith(f"{workload}."):
                arm = quantity.id.split(".")[1]
                found[arm if arm in found else ""].append(quantity)
        yield workload, [(arm, mine) for arm, mine in found.items() if mine]


def embed(value: Any) -> str:
    """JSON that is safe inside <script type="application/json">, whatever a log held."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text.encode("utf-8", "backslashreplace").decode("utf-8")  # a lone surrogate is not UTF-8
