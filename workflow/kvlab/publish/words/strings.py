"""The words of the page, from `report/strings.<language>.yaml`: no text stands in a template or in code.

A text may hold `{placeholders}`, `*emphasis*`, `**strong words**`, `` `code` `` and `[links](https://…)`. What a run
recorded in English (formulas, reasons, a guard's findings) is turned into another language by the file's `said`
patterns where one fits, and stands as it was recorded where none does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import yaml
from markupsafe import Markup, escape

from kvlab.paths import REPORT

LANGUAGES = ("en", "zh")
TAGS = {"en": "en", "zh": "zh-Hans"}  # what the lang attribute says

_MARKS = (
    (re.compile(r"`([^`]+)`"), r"<code>\1</code>"),
    (re.compile(r"\*\*([^*]+)\*\*"), r"<strong>\1</strong>"),
    (re.compile(r"\*([^*]+)\*"), r"<em>\1</em>"),
    (re.compile(r"\[([^\]]+)\]\(((?:https://|#)[^)\s]+)\)"), r'<a href="\2">\1</a>'),
)
_HOLE = re.compile(r"\{(\w+)\}")
_BEFORE_STOP = re.compile(
    r"(\})(?=[，。；：、）])"
)  # a Chinese stop never begins a line, whatever fills the hole before it


@lru_cache(maxsize=len(LANGUAGES))
def words(language: str) -> dict[str, Any]:
    """Everything that `strings.<language>.yaml` holds."""
    loaded = yaml.safe_load((REPORT / f"strings.{language}.yaml").read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def look_up(language: str, key: str) -> Any:
    """What stands at the dotted `key`; KeyError names it where nothing does."""
    found: Any = words(language)
    rest = key
    while isinstance(found, dict):
        if rest in found:  # a key may hold dots itself: names.share.tokens
            return found[rest]
        part, _, rest = rest.partition(".")
        found = found.get(part) if rest else None
    raise KeyError(f"report/strings.{language}.yaml has no {key}")


def has(key: str) -> bool:
    """Whether the strings have the dotted `key`."""
    try:
        look_up(LANGUAGES[0], key)
    except KeyError:
        return False
    return True


def rich(text: str, values: Mapping[str, Any] | None = None) -> Markup:
    """`text` with its marks as HTML. Everything else in it, and every value that is not Markup, is escaped."""
    out = _BEFORE_STOP.sub("\\1\u2060", str(escape(text)))
    for mark, replacement in _MARKS:
        out = mark.sub(replacement, out)

    def fill(hole: re.Match[str]) -> str:
        if values is None or hole[1] not in values:
            raise KeyError(f"nothing given for {{{hole[1]}}} in {text!r}")
        return str(escape(values[hole[1]]))

    return Markup(_HOLE.sub(fill, out))


def said(language: str, recorded: str) -> str | None:
    """What was recorded in English in another language; None where no pattern fits all of it."""
    if language == LANGUAGES[0]:
        return recorded
    for pattern, text in _patterns(language):
        if found := pattern.fullmatch(recorded):
            parts = {name: said(language, value) or value for name, value in found.groupdict().items()}
            return text.format(**parts)
    return None


@lru_cache(maxsize=len(LANGUAGES))
def _patterns(language: str) -> list[tuple[re.Pattern[str], str]]:
    made = []
    for english, text in words(language)["said"].items():
        parts = _HOLE.split(english)
        pattern = "".join(f"(?P<{part}>.+?)" if i % 2 else re.escape(part) for i, part in enumerate(parts))
        made.append((re.compile(pattern, re.DOTALL), str(text)))
    return made
