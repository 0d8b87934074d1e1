"""Reading a configuration as plain data: YAML or JSON text, whatever is in it, or one line that says what is wrong."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from kvlab.config.part import Part
from kvlab.errors import ConfigError


def read(path: Path) -> Any:
    """The data of a YAML or JSON file in UTF-8. ConfigError where it can't be read."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); pass a file such as config/smoke.yaml") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 (byte {error.start}); save it in that encoding") from None
    return understand(text, str(path))


def understand(text: str, where: str) -> Any:
    """The data of a YAML or JSON text. JSON is read as such: in YAML an escaped pair of surrogates is no character."""
    try:
        try:
            data = json.loads(text)
        except json.JSONDecodeError:
            data = yaml.safe_load(text)
        return whole(data, where)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: neither YAML nor JSON: {' '.join(str(error).split())}") from None
    except (ValueError, OverflowError) as error:  # a number of thousands of digits, a date that is none
        raise ConfigError(f"{where}: neither YAML nor JSON: {error}") from None
    except RecursionError:
        raise ConfigError(f"{where}: nested too deeply for a configuration") from None


def whole(data: Any, where: str) -> Any:
    """`data` with each pair of surrogates as the character that it stands for; ConfigError names half a pair."""
    if isinstance(data, dict):
        return {whole(key, where): whole(value, where) for key, value in data.items()}
    if isinstance(data, list):
        return [whole(value, where) for value in data]
    if not isinstance(data, str):
        return data
    try:
        return data.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        raise ConfigError(f"{where}: {data!r} has half of a surrogate pair, which is no character") from None


def mappings(data: Any) -> list[dict[str, Any]]:
    """The values of a mapping that are mappings; none where it is something else."""
    return [value for value in data.values() if isinstance(value, dict)] if isinstance(data, dict) else []


def nearest(key: str) -> str:
    """A hint for a key that does not exist: the one that was probably meant, in brackets, or nothing."""
    known = {name for part in _parts(Part) for name in part.model_fields}
    near = difflib.get_close_matches(key, known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _parts(part: type[Part]) -> Iterator[type[Part]]:
    for kind in part.__subclasses__():
        yield kind
        yield from _parts(kind)
