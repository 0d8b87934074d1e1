"""Verification: what a page shows is computed again from the raw logs and compared; every digest is checked.

The run's files come first (`evidence`), causes before their effects; then each number in the page
against its quantity, and every byte of the page against the one that the same run renders now.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from jinja2 import TemplateError

from kvlab.errors import KvlabError
from kvlab.publish.check.evidence import examine, seals
from kvlab.publish.check.found import Found, Sections
from kvlab.publish.page.render import build
from kvlab.records import read_json, read_text, write_json


def verify(page: Path, section: Sections) -> Found:
    """What was checked of the page and of its run's folder, what is wrong, and what can't be proved here.

    `section`: a stage's name to its part of the configuration.
    """
    root = page.parent
    shown = read_text(page)
    found = examine(root, section, _sealed(root / "verify.json"))
    try:
        now = build(section("report"), root)
    except KvlabError as error:
        found.faults.append(str(error))
    except (TypeError, ValueError, LookupError, AttributeError, TemplateError) as error:
        if not found.faults:
            raise
        found.faults.append(f"{page}: can't be rendered from these files ({type(error).__name__}: {error})")
    else:
        found.checked["numbers in the page"] = len(numbers_shown(shown))
        found.add(_unlike(page, shown, now), str(page))
    return found


def write(path: Path, found: Found) -> None:
    """`verify.json`: what was checked, with the digests of what can't be computed again."""
    document = {"schema": 2, "outcome": "fail" if found.faults else "pass", "checked": found.checked}
    sealed = {} if found.faults else seals(path.parent)
    write_json(path, document | {"faults": found.faults, "not_proved": found.not_proved, "sealed": sealed})


def _sealed(file: Path) -> dict[str, str]:
    if not file.exists():
        return {}
    document = read_json(file)
    sealed = document.get("sealed") if isinstance(document, dict) else None
    return {str(k): str(v) for k, v in sealed.items()} if isinstance(sealed, dict) else {}


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


def _unlike(page: Path, shown: str, now: str) -> Iterator[str]:
    """The page against the one that this run renders now: numbers one by one, then every byte."""
    here, there = numbers_shown(shown), numbers_shown(now)
    if [key for key, _ in here] != [key for key, _ in there]:
        yield f"{page}: it does not show the quantities that this run's page shows; render it again"
        return
    wrong = [(key, text, right) for (key, text), (_, right) in zip(here, there, strict=True) if text != right]
    for key, text, right in wrong:
        yield f"{page}: shows {text!r} for {key}, which is {right!r}"
    if shown != now and not wrong:
        yield from _differences(page, shown, now)


def _differences(page: Path, shown: str, now: str) -> Iterator[str]:
    old, new = shown.split("\n"), now.split("\n")
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    for tag, i1, _, j1, _ in matcher.get_opcodes():
        if tag == "equal":
            continue
        a, b = (old[i1] if i1 < len(old) else ""), (new[j1] if j1 < len(new) else "")
        at = next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
        yield f"{page}:{i1 + 1}: has {_near(a, at)!r} where this run's page has {_near(b, at)!r}"


def _near(line: str, at: int) -> str:
    return line[max(0, at - 24) : at + 24]
