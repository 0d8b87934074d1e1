"""The words of the page, from `report/strings.<language>.yaml`: templates and code hold no text.

A text is Markdown, of which emphasis, code and links are used, and may hold `{placeholders}`. Formulas, reasons and a
guard's findings are messages (`kvlab.messages`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from kvlab.messages import LANGUAGES as LANGUAGES
from kvlab.messages import Message
from kvlab.messages import look_up as look_up
from kvlab.messages import said as said
from kvlab.messages import words as words
from kvlab.quantities import Quantity

TAGS = {"en": "en", "zh": "zh-Hans"}  # what the lang attribute says

_HOLE = re.compile(r"\{(\w+)\}")
_BEFORE_STOP = re.compile(
    r"(\})(?=[，。；：、）])"
)  # no line begins with a Chinese punctuation mark after a placeholder


def has(key: str) -> bool:
    """Whether the strings have the dotted `key`."""
    try:
        look_up(LANGUAGES[0], key)
    except KeyError:
        return False
    return True


class _Markdown(MarkdownIt):
    """Emphasis, code, and links to the page itself or to https; everything else is escaped text."""

    def __init__(self) -> None:
        super().__init__("zero")
        self.enable(["backticks", "emphasis", "link"])

    def validateLink(self, url: str) -> bool:
        return url.startswith(("https://", "#"))


_MARKDOWN = _Markdown()


@cache
def _html(text: str) -> str:
    return _BEFORE_STOP.sub("\\1\u2060", str(_MARKDOWN.renderInline(text)))


def rich(text: str, values: Mapping[str, Any] | None = None) -> Markup:
    """`text`, Markdown, as HTML with its placeholders filled. Every value that is not Markup is escaped."""

    def fill(hole: re.Match[str]) -> str:
        if values is None or hole[1] not in values:
            raise KeyError(f"nothing given for {{{hole[1]}}} in {text!r}")
        return str(escape(values[hole[1]]))

    return Markup(_HOLE.sub(fill, _html(text)))


def of_quantity(language: str, quantity: Quantity) -> str:
    """How a quantity was computed, in words; of how many repeats it is the median, or of how many seeds the mean."""
    words_ = said(language, quantity.formula)
    if quantity.bound:
        words_ = said(language, Message(f"bound-{quantity.bound}", {"what": words_}))
    of_seeds = isinstance(quantity.formula, Message) and quantity.formula.key == "simulated.seeds"  # it says so itself
    if len(quantity.samples) < 2 or of_seeds:
        return words_
    kind = "mean-ratio-of" if quantity.interval_kind == "t" else "median-of"
    return said(language, Message(kind, {"what": words_, "n": quantity.n}))
