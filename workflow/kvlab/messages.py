"""What the project says of a run, as data: a key of `said` in `report/strings.<language>.yaml`, and its values.

A reason, a formula or a finding is put into words where a person reads it, in the reader's language. What another
program reported, such as an engine's own error, stays the English text that was recorded.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any, TypeVar

import yaml

from kvlab.paths import REPORT

LANGUAGES = ("en", "zh")


@dataclass(frozen=True)
class Message:
    """A formula, a reason or a finding: a key of `said` in the strings, and the values of its placeholders.

    A value is a number, a text, a message, or a text for each language {en, zh}.
    """

    key: str
    values: dict[str, Any] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash((self.key, json.dumps(asdict(self), sort_keys=True)))

    @classmethod
    def read(cls, document: Any) -> Any:
        """What `asdict` made of a message, and of messages within it; anything else as it is."""
        if isinstance(document, dict) and set(document) == {"key", "values"}:
            return cls(document["key"], {name: cls.read(value) for name, value in document["values"].items()})
        return document


Said = Message | str  # a text is what was recorded in English, such as an engine's own error


Some = TypeVar("Some", Message, Said)


def several(messages: Sequence[Some]) -> Some:
    """Some messages, at least one, as one."""
    if len(messages) == 1:
        return messages[0]
    return Message("several", {"first": messages[0], "rest": several(messages[1:])})


@lru_cache(maxsize=len(LANGUAGES))
def words(language: str) -> dict[str, Any]:
    """Everything that `strings.<language>.yaml` holds."""
    loaded = yaml.safe_load((REPORT / f"strings.{language}.yaml").read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def look_up(language: str, key: str) -> Any:
    """The text at the dotted `key`; KeyError names a key that is missing."""
    found: Any = words(language)
    rest = key
    while isinstance(found, dict):
        if rest in found:  # a key may hold dots itself: names.share.tokens
            return found[rest]
        part, _, rest = rest.partition(".")
        found = found.get(part) if rest else None
    raise KeyError(f"report/strings.{language}.yaml has no {key}")


def said(language: str, message: Said) -> str:
    """A message in words; a text that was recorded as such stays as it is."""
    if isinstance(message, str):
        return message
    values = {name: _value(language, value) for name, value in message.values.items()}
    try:
        return str(look_up(language, f"said.{message.key}")).format(**values)
    except KeyError as error:
        raise KeyError(f"said.{message.key}: {error.args[0]}; it was given {sorted(values)}") from None


def _value(language: str, value: Any) -> Any:
    """The value of a placeholder in a language."""
    if isinstance(value, dict):
        return value[language]
    return said(language, value) if isinstance(value, Message) else value
