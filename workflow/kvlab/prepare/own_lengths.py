"""The user's own lengths: prompt and output tokens of requests, from JSON Lines or CSV."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from kvlab.errors import ConfigError
from kvlab.prepare.lengths import Lengths
from kvlab.records import read_text

NAMES = (("prompt_tokens", "output_tokens"), ("ContextTokens", "GeneratedTokens"), ("input_tokens", "output_tokens"))


def read_pairs(path: Path, max_total: int | None = None) -> Lengths:
    """All pairs of a file, in its order: JSON Lines {"prompt_tokens": …, "output_tokens": …}, or CSV with a header.

    The columns may also be called as in the Azure traces (ContextTokens, GeneratedTokens). With `max_total` a pair
    above it is an error, since without the long ones the plan would be too optimistic. ConfigError names file and line.
    """
    try:
        text = read_text(path)
    except Exception as error:
        raise ConfigError(f"{path}: the lengths can't be read ({error})") from None
    lines = text.splitlines()
    rows = _json_lines(path, lines) if text.lstrip().startswith("{") else _csv(path, text)
    pairs = []
    for number, row in rows:
        try:
            names = next(names for names in NAMES if all(name in row for name in names))
            pair = (_whole(row[names[0]]), _whole(row[names[1]]))
        except (StopIteration, TypeError, ValueError):
            raise ConfigError(
                f'{path}:{number}: not lengths of a request; write {{"prompt_tokens": 12, "output_tokens": 34}} a '
                "line, or CSV whose first line is prompt_tokens,output_tokens; whole numbers of at least 1"
            ) from None
        if max_total is not None and sum(pair) > max_total:
            raise ConfigError(
                f"{path}:{number}: prompt {pair[0]} + output {pair[1]} = {sum(pair)} tokens, above the maximum of "
                f"{max_total}; raise --max-model-len, or take the line out"
            )
        pairs.append(pair)
    if not pairs:
        raise ConfigError(f"{path}: no request in it; at least one line of lengths is needed")
    columns = np.array(pairs, dtype=np.int64)
    return Lengths(columns[:, 0].copy(), columns[:, 1].copy())


def _json_lines(path: Path, lines: list[str]) -> list[tuple[int, dict[str, Any]]]:
    rows = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                rows.append((number, dict(json.loads(line))))
            except (TypeError, ValueError) as error:
                raise ConfigError(f"{path}:{number}: not a line of JSON ({error})") from None
    return rows


def _csv(path: Path, text: str) -> list[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text))
    return [(reader.line_num, row) for row in reader]


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not (isinstance(value, int | str) and int(value) >= 1):
        raise ValueError
    return int(value)
