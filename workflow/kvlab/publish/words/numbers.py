"""A quantity as text, by locale: the only place where a number becomes what a reader sees."""

from __future__ import annotations

import datetime

from babel import Locale
from babel.dates import format_date
from babel.numbers import format_decimal, format_percent

from kvlab.publish.words.strings import look_up
from kvlab.quantities import Message, Quantity, Said

LOCALES = {"en": Locale.parse("en_US"), "zh": Locale.parse("zh_Hans_CN")}
_BINARY = ((1 << 40, "tebibytes"), (1 << 30, "gibibytes"), (1 << 20, "mebibytes"), (1 << 10, "kibibytes"))
_WHOLE = {"requests", "tokens", "slots", "blocks", "count"}
_SECOND = 1000  # milliseconds, from which on seconds are shown
_SMALLEST = 0.001  # smaller times are shown as less than this


def text_of(quantity: Quantity, language: str) -> str:
    """The value with its unit, ≥ or ≤ before a bound; in words where there is none."""
    if quantity.value is None:
        return str(look_up(language, f"none.{_kind_of_none(quantity.why_none)}"))
    text = value_text(quantity.value, quantity.unit, language)
    return text if quantity.bound is None else str(look_up(language, f"interval.{quantity.bound}")).format(n=text)


def interval_text(quantity: Quantity, language: str) -> str | None:
    """Both ends with the unit; None where there is no interval."""
    if quantity.interval is None:
        return None
    low, high = (value_text(end, quantity.unit, language) for end in quantity.interval)
    return str(look_up(language, "interval.between")).format(low=low, high=high)


def value_text(value: float, unit: str, language: str) -> str:
    """`value` in `unit`, one of `quantities.UNITS`, with as many digits as a reader can use."""
    if unit == "share":
        return _share(value, language)
    if unit == "change":
        places = 0 if abs(value) >= 0.1 else 1
        sign = "+" if value > 0 else ""
        return sign + str(format_percent(value, format=_pattern(places) + "%", locale=LOCALES[language]))
    if unit == "points":
        return _with_unit(value, ("+" if value > 0 else "") + decimal(100 * value, language), unit, language)
    if unit == "bytes":
        for size, name in _BINARY:
            if abs(value) >= size:
                return _with_unit(value / size, decimal(value / size, language), name, language)
        return _with_unit(value, decimal(value, language, 0), "bytes", language)
    if unit == "ms" and abs(value) >= _SECOND:
        return value_text(value / _SECOND, "s", language)
    if unit in ("s", "ms") and 0 < value < _SMALLEST:
        text = _with_unit(value, decimal(_SMALLEST, language, 3), unit, language)
        return str(look_up(language, "interval.less")).format(n=text)
    whole = unit in _WHOLE and float(value).is_integer()
    return _with_unit(value, decimal(value, language, 0 if whole else None), unit, language)


def decimal(value: float, language: str, places: int | None = None) -> str:
    """A plain number; without `places`, three significant digits, more before the point."""
    if places is None:
        size = abs(value)
        places = 0 if size >= 99.95 or size == 0 else 1 if size >= 9.995 else 2 if size >= 0.1 else 3
    return str(format_decimal(value, format=_pattern(places), locale=LOCALES[language]))


def date_text(iso: str, language: str) -> str:
    """The day of an ISO time stamp."""
    return str(format_date(datetime.datetime.fromisoformat(iso), format="long", locale=LOCALES[language]))


def level_text(value: float, language: str) -> str:
    """A confidence level: 95%, not 95.0%."""
    return str(format_percent(value, format="0.#%", locale=LOCALES[language]))


def _share(value: float, language: str) -> str:
    per_cent = 100 * value
    if 0 < per_cent < 0.095:
        least = format_percent(0.001, format="0.0%", locale=LOCALES[language])
        return str(look_up(language, "interval.less")).format(n=least)
    places = 0 if per_cent in (0, 100) else 2 if per_cent < 1 or 99.95 <= per_cent < 100 else 1
    return str(format_percent(value, format=_pattern(places) + "%", locale=LOCALES[language]))


def _pattern(places: int) -> str:
    return "#,##0" + ("." + "0" * places if places else "")


def _with_unit(value: float, text: str, unit: str, language: str) -> str:
    forms = look_up(language, f"units.{unit}")
    if isinstance(forms, dict):
        forms = forms.get(LOCALES[language].plural_form(value), forms["other"])
    return str(forms).format(n=text)


def _kind_of_none(why: Said | None) -> str:
    key = why.key if isinstance(why, Message) else ""
    if key.startswith("arm-not-run"):
        return "not_run"
    return {
        "arm-not-asked": "not_asked",
        "not-told": "not_told",
        "no-counter": "not_told",
        "never-queued": "not_queued",
    }.get(key, "not_decided")
