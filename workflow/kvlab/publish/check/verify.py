"""The proof: every number of a page, recomputed from the raw logs; every digest, checked.

What it does, in the order in which a fault is most telling: the raw logs against the digests that the metrics hold;
the metrics against those computed from the logs now; each number in the page against its quantity; the page against
the one that the same run renders now; the figures against their digests.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from kvlab.analyse.metrics import analyse
from kvlab.errors import KvlabError
from kvlab.publish.page.render import build
from kvlab.quantities import Metrics
from kvlab.raw import foreign
from kvlab.records import PACKINGS, digest, read_text, write_json

MOST = 20  # faults of one kind that are named; the rest is counted


def verify(
    page: Path, analyse_section: dict[str, Any], report_section: dict[str, Any]
) -> tuple[list[str], dict[str, int]]:
    """(faults, how many of each thing were checked). Each fault is one line that names the file or the number."""
    root = page.parent
    faults: list[str] = []
    checked: dict[str, int] = {}
    shown = read_text(page)
    kept = Metrics.read(root / "metrics.json")
    faults += _raw_files(root, kept, checked)
    if not faults:  # a changed log is the cause; the numbers that it changes would only be its echo
        faults += _recompute(root, kept, analyse_section, checked)
    else:
        faults += _affected(kept, faults)
    faults += _figures(root, checked)
    faults += _numbers(shown, root, report_section, checked)
    return faults, checked


def write(path: Path, faults: list[str], checked: dict[str, int]) -> None:
    """`verify.json`: what was checked. Only written for a page without faults, or as a record of them."""
    write_json(path, {"schema": 1, "outcome": "fail" if faults else "pass", "checked": checked, "faults": faults})


def _raw_files(root: Path, kept: Metrics, checked: dict[str, int]) -> Iterator[str]:
    for file, sha256 in kept.files.items():
        try:
            found = digest(root / file)
        except KvlabError as error:
            yield str(error)
            continue
        if found != sha256:
            yield f"{root / file}: changed: sha256 {found[:12]}…, the metrics were computed from {sha256[:12]}…"
    try:
        yield from foreign(root, [(run["workload"], run["arm"], run["repeat"]) for run in kept.runs])
    except KvlabError as error:
        yield str(error)
    checked["raw logs"] = len(kept.files)


def _affected(kept: Metrics, faults: list[str]) -> Iterator[str]:
    for file in kept.files:
        if any(f"{file}{end}" in fault for fault in faults for end in (":", *PACKINGS)) and (
            what := kept.resting_on(file)
        ):
            yield f"{file}: {what}"


def _recompute(root: Path, kept: Metrics, section: dict[str, Any], checked: dict[str, int]) -> Iterator[str]:
    try:
        now = analyse(section, root)
    except KvlabError as error:
        yield str(error)
        return
    checked["quantities"] = len(now.quantities)
    names = {q.id for q in now.quantities} | {q.id for q in kept.quantities}
    wrong = [name for name in sorted(names) if kept.quantities.get(name) != now.quantities.get(name)]
    for name in wrong[:MOST]:
        old, new = kept.quantities.get(name), now.quantities.get(name)
        yield (
            f"{root / 'metrics.json'}: {name} is {old.value if old else 'missing'}, "
            f"the raw logs give {new.value if new else 'no such quantity'}"
        )
    if len(wrong) > MOST:
        yield f"{root / 'metrics.json'}: {len(wrong) - MOST} more quantities differ"
    for name in ("facts", "runs", "guards", "files"):
        if not wrong and getattr(kept, name) != getattr(now, name):
            yield f"{root / 'metrics.json'}: {name} are not those that the raw logs give"


def _figures(root: Path, checked: dict[str, int]) -> Iterator[str]:
    manifest = root / "figures" / "figures.json"
    if not manifest.exists():
        yield f"{manifest}: no such file; make it again with: python -m kvlab notebook {root}"
        return
    count = 0
    for figure in json.loads(read_text(manifest))["figures"]:
        for entry in figure["files"].values():
            file = root / "figures" / entry["file"]
            count += 1
            try:
                found = hashlib.sha256(read_text(file).encode()).hexdigest()
            except KvlabError as error:
                yield str(error)
                continue
            if found != entry["sha256"]:
                yield f"{file}: changed since the notebook drew it"
    checked["figures"] = count


class _Shown(HTMLParser):
    """Collects the text of every element that carries a quantity's id, in order."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, str]] = []
        self._open: list[tuple[str, str, list[str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        key = dict(attrs).get("data-q")
        if key:
            self._open.append((tag, key, []))
        elif self._open and tag == self._open[-1][0]:
            self._open.append((tag, "", []))

    def handle_data(self, data: str) -> None:
        if self._open:
            self._open[-1][2].append(data)

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1][0] == tag:
            _, key, text = self._open.pop()
            if key:
                self.found.append((key, " ".join("".join(text).split())))
            elif self._open:
                self._open[-1][2].extend(text)


def numbers_shown(html: str) -> list[tuple[str, str]]:
    """Every (quantity id, text) of a page, in order."""
    parser = _Shown()
    parser.feed(html)
    return parser.found


def _numbers(shown: str, root: Path, section: dict[str, Any], checked: dict[str, int]) -> Iterator[str]:
    """The page against the one that this run renders now: numbers one by one, then every byte."""
    try:
        now = build(section, root)
    except KvlabError as error:
        yield str(error)
        return
    here, there = numbers_shown(shown), numbers_shown(now)
    checked["numbers in the page"] = len(here)
    page = root / "report.html"
    faults = 0
    if [key for key, _ in here] != [key for key, _ in there]:
        yield f"{page}: it does not show the quantities that this run's page shows; render it again"
        faults += 1
    else:
        for (key, text), (_, right) in zip(here, there, strict=True):
            if text != right:
                yield f"{page}: shows {text!r} for {key}, which is {right!r}"
                faults += 1
    if shown != now and not faults:
        yield from _differences(page, shown, now)


def _differences(page: Path, shown: str, now: str) -> Iterator[str]:
    matcher = difflib.SequenceMatcher(None, shown.splitlines(), now.splitlines(), autojunk=False)
    old, new = shown.splitlines(), now.splitlines()
    count = 0
    for tag, i1, _, j1, _ in matcher.get_opcodes():
        if tag == "equal":
            continue
        count += 1
        if count <= MOST:
            a, b = (old[i1] if i1 < len(old) else ""), (new[j1] if j1 < len(new) else "")
            at = next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
            yield f"{page}:{i1 + 1}: has {_near(a, at)!r} where this run's page has {_near(b, at)!r}"
    if count > MOST:
        yield f"{page}: {count - MOST} more places differ"


def _near(line: str, at: int) -> str:
    return re.sub(r"\s+", " ", line[max(0, at - 24) : at + 24]).strip()
