"""Facts of a run that are not measured but named in the page: the machine, the model, versions, settings.

Like a quantity, a fact leads back to its file: `environment.json#machine.cores_usable` is a key in a document.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvlab.publish.words import numbers
from kvlab.publish.words.strings import look_up
from kvlab.records import digest, read_json, there


@dataclass(frozen=True)
class Fact:
    """One value of a document of the run. `kind`: how it is shown (text, number, bytes, millions, date, share …)."""

    id: str
    value: Any
    kind: str
    file: str
    sha256: str

    def text(self, language: str) -> str:
        """As a reader of `language` expects it."""
        if self.value is None or self.value == "":
            return str(look_up(language, "none.not_told"))
        if self.kind == "text":
            return str(self.value)
        if self.kind == "date":
            return numbers.date_text(str(self.value), language)
        if self.kind == "number":
            return numbers.decimal(float(self.value), language, 0 if float(self.value).is_integer() else None)
        if self.kind == "level":
            return numbers.level_text(float(self.value), language)
        if self.kind == "millions":
            return numbers.value_text(float(self.value) / 1e6, "millions", language)
        return numbers.value_text(float(self.value), self.kind, language)


class Facts:
    """Reads documents of the run in `root` once and remembers every fact that was asked for."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.shown: dict[str, Fact] = {}
        self._documents: dict[str, Any] = {}
        self._digests: dict[str, str] = {}

    def document(self, file: str) -> Any:
        """A JSON document of the run; None where it is not there (an older run)."""
        if file not in self._documents:
            path = self.root / file
            self._documents[file] = read_json(path) if there(path) else None
        return self._documents[file]

    def get(self, file: str, key: str, kind: str = "text") -> Fact | None:
        """The fact at the dotted `key` of `file`; None where the run does not have it."""
        found = self.document(file)
        for part in key.split("."):
            if isinstance(found, list) and part.isdigit() and int(part) < len(found):
                found = found[int(part)]
            elif isinstance(found, dict) and part in found:
                found = found[part]
            else:
                return None
        return self.keep(file, key, found, kind)

    def cell(self, file: str, column: str, kind: str, scale: float = 1.0) -> Fact | None:
        """A number of the first row of a tab-separated table, times `scale`; None where it is not there."""
        with (self.root / file).open(encoding="utf-8", newline="") as stream:
            line = next(csv.DictReader(stream, delimiter="\t"), {})
        try:
            return self.keep(file, column, float(line[column]) * scale, kind)
        except (KeyError, TypeError, ValueError):
            return None

    def keep(self, file: str, key: str, value: Any, kind: str) -> Fact:
        """Remember a fact that the caller has read; `get` is for JSON documents."""
        if file not in self._digests:
            self._digests[file] = digest(self.root / file)
        fact = Fact(f"{file}#{key}", value, kind, file, self._digests[file])
        return self.shown.setdefault(fact.id, fact)
