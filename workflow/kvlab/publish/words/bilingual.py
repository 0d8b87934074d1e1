"""Text, numbers and facts as HTML in every language of the page at once; the page shows one of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from markupsafe import Markup, escape

from kvlab.publish.words import numbers
from kvlab.publish.words.facts import Fact
from kvlab.publish.words.strings import LANGUAGES, TAGS, look_up, rich, said
from kvlab.quantities import Quantity, Said

STOPS = "，。；：、）.,;:)"
_ID = re.compile(r"\b[a-z0-9]{1,16}(-[a-z0-9]{1,16}){1,4}\b")  # of an arm or a workload: it stays on one line


class Both:
    """A piece of HTML in each language. As a value in another text it is used in that text's language."""

    def __init__(self, of: Callable[[str], Any]) -> None:
        self.texts = {language: Markup(escape(of(language))) for language in LANGUAGES}

    def __getitem__(self, language: str) -> Markup:
        return self.texts[language]

    def __html__(self) -> str:
        if len(set(self.texts.values())) == 1:
            return str(self.texts[LANGUAGES[0]])
        return "".join(
            f'<span class="{language}" lang="{TAGS[language]}">{text}</span>' for language, text in self.texts.items()
        )


def text(key: str, **values: Any) -> Both:
    """The string at `key`, its placeholders filled with `values`: quantities, facts, other texts, or plain words."""
    return filled(lambda language: look_up(language, key), **values)


def filled(words: Callable[[str], str], **values: Any) -> Both:
    """What `words` says in each language, its placeholders filled as `text` fills them.

    A stop stays on the line of the number before it, which is a button: a browser breaks lines on both its sides.
    """
    numbers_ = "|".join(key for key, value in values.items() if isinstance(value, Quantity))

    def of(language: str) -> Any:
        filling = {key: _in(value, language) for key, value in values.items()}

        def keep(found: re.Match[str]) -> str:
            key = f"{found[1]}_{found.start()}"
            filling[key] = Markup('<span class="word">{}{}</span>').format(filling[found[1]], found[2])
            return f"{{{key}}}"

        said = words(language)
        return rich(re.sub(rf"\{{({numbers_})\}}([{STOPS}]+)", keep, said) if numbers_ else said, filling)

    return Both(of)


def plain(key: str, language: str) -> str:
    """The string at `key` as it is, for an attribute or a title."""
    return str(look_up(language, key))


def recorded(message: Said | None) -> Both:
    """A message in each language; what was recorded as English text, marked as English."""
    if message is None:
        return Both(lambda language: "")
    if isinstance(message, str):
        whole = _ids_whole(message)
        return Both(lambda language: whole if language == "en" else Markup('<span lang="en">{}</span>').format(whole))
    return Both(lambda language: _ids_whole(said(language, message)))


def _ids_whole(said_: str) -> Markup:
    return Markup(_ID.sub(r'<span class="word">\g<0></span>', str(escape(said_))))


def number(quantity: Quantity | None) -> Both | Markup:
    """A quantity as the element that opens its trail; a dash where the run has no such quantity."""
    if quantity is None:
        return Markup('<span class="none" aria-hidden="true">–</span>')
    kind = "q none" if quantity.value is None else "q"
    return Both(
        lambda language: Markup('<button type="button" class="{}" data-q="{}">{}</button>').format(
            kind, quantity.id, numbers.text_of(quantity, language)
        )
    )


def tick(ratio: float) -> Both:
    """The label of a grid line in a chart of ratios."""
    return Both(lambda language: look_up(language, "units.ratio").format(n=f"{ratio:g}"))


def amount(value: float, unit: str) -> Both:
    """A number that was not measured here, such as one printed in the paper; it has no trail."""
    return Both(lambda language: numbers.value_text(value, unit, language))


def fact(named: Fact | None) -> Both | Markup:
    """A fact as the element that opens its trail."""
    if named is None:
        return Markup('<span class="none" aria-hidden="true">–</span>')
    return Both(
        lambda language: Markup('<button type="button" class="q" data-f="{}">{}</button>').format(
            named.id, named.text(language)
        )
    )


def interval(quantity: Quantity | None, level: Fact | None) -> Both | str:
    """A quantity's interval in words, or why there is none."""
    if quantity is None or quantity.value is None:
        return ""
    if quantity.bound:
        return text(f"interval.of_{quantity.bound}")
    repeats = Markup('<span data-n="{}">{}</span>').format(quantity.id, quantity.n)
    if quantity.interval is None:
        key = "interval.one" if quantity.n == 1 else "interval.few"
        return text(key, n=repeats)

    key = "interval.range" if quantity.interval_kind == "range" else "interval.level"

    def of(language: str) -> Any:
        between = Markup('<span data-interval="{}">{}</span>').format(
            quantity.id, numbers.interval_text(quantity, language)
        )
        values = {"between": between, "n": repeats} | ({"level": _in(level, language)} if key.endswith("level") else {})
        return rich(look_up(language, key), values)

    return Both(of)


def _in(value: Any, language: str) -> Any:
    if isinstance(value, Quantity):
        value = number(value)
    elif isinstance(value, Fact):
        value = fact(value)
    elif isinstance(value, str) and not isinstance(value, Markup) and _ID.fullmatch(value):
        value = Markup('<span class="word">{}</span>').format(value)
    return value[language] if isinstance(value, Both) else value
