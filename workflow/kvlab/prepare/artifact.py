"""The request lengths that the paper's own artifact published, and how its trace is drawn.

Source: sosp-ae-39/sosp-ae-astra, commit 3180d2f8, `datasets/` (first turns of ShareGPT conversations, and Alpaca's
instructions, tokenised by OPT's tokenizer) and `orca/benchmark/trace.py`. No licence is stated for the data, so the
project carries none of it: the file is downloaded by its digest, or a path to it is given. It carries a summary, which
`python -m kvlab.prepare.artifact sharegpt FILE > config/data/sharegpt-summary.json` makes.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import json
import pickle
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from kvlab.errors import ConfigError, LogError
from kvlab.paths import DATA, DOWNLOAD, lengths_variable
from kvlab.prepare import lengths
from kvlab.prepare.lengths import PAPER_MAX_TOTAL, Lengths

Floats = npt.NDArray[np.float64]

HEADER = ["prompt_tokens", "output_tokens"]
SUMMARY = DATA / "sharegpt-summary.json"
QUANTILES = (0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1)
QUANTUM_S = 0.01  # the artifact draws a count of arrivals for every 10 ms
_PINNED = "https://raw.githubusercontent.com/sosp-ae-39/sosp-ae-astra/3180d2f8c2a2aa1729245f9b0cb75a854746e6a8"


@dataclass(frozen=True)
class ArtifactFile:
    """A file of the artifact: its address, None where it is not fetched, and the digests that are taken for it.

    The first digest is the original's, the second that of the same pairs as CSV. None: no digest is known.
    """

    address: str | None
    digests: tuple[str, ...]


FILES = {
    "sharegpt": ArtifactFile(
        f"{_PINNED}/datasets/sharegpt_opt_text_completion_length.pkl",
        (
            "e94cab96a24400f43f8e925de61fec20eec47082c7908d26f28cd578a87b8aeb",
            "f4ba887196d6498aa351ca14d102884aca70d7f9a683d8e3dbb637cc32937658",
        ),
    ),
    "alpaca": ArtifactFile(None, ()),
}


def read(kind: str, path: str | None, sha256: str | None = None) -> Lengths:
    """All pairs of a file of the artifact, in its order.

    `path`: the pickle, or CSV with the header `prompt_tokens,output_tokens`; a path or an address; None or "download"
    fetches the original. `sha256`: digest of a file of your own in the same form; without it only the artifact's is
    taken, where its digest is known. LogError where the file is missing, another one, or not pairs of lengths.
    """
    known = FILES[kind]
    where = known.address if path in (None, DOWNLOAD) else path
    if where is None:
        raise ConfigError(f"kind {kind}: no address is known for its lengths; set path, or {lengths_variable(kind)}")
    return _read(where, (sha256,) if sha256 else known.digests)


@functools.lru_cache(maxsize=4)
def _read(where: str, digests: tuple[str, ...]) -> Lengths:
    data = lengths.read_bytes(where)
    found = hashlib.sha256(data).hexdigest()
    if digests and found not in digests:
        raise LogError(f"{where}: sha256 {found}, wanted {' or '.join(digests)}; fetch that file, or set sha256")
    return _pairs(_csv(data, where) if data[: len(HEADER[0])] == HEADER[0].encode() else _unpickle(data, where), where)


def _csv(data: bytes, where: str) -> list[Any]:
    rows = list(csv.reader(io.StringIO(data.decode("utf-8", "replace"))))
    if rows[0] != HEADER:
        raise LogError(f"{where}: not a file of lengths; its first line must be {','.join(HEADER)}")
    try:
        return [[int(value) for value in row] for row in rows[1:]]
    except ValueError as error:
        raise LogError(f"{where}: a row is not two whole numbers ({error})") from None


class _Plain(pickle.Unpickler):
    """Lists, tuples and numbers; what would import or run anything is refused."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}; only lists, tuples and numbers are read")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError("it asks for an object that is not in it")


def _unpickle(data: bytes, where: str) -> Any:
    try:
        return _Plain(io.BytesIO(data)).load()
    except Exception as error:  # a damaged pickle can raise almost anything
        raise LogError(
            f"{where}: not a pickle of lengths ({error}), nor CSV that begins with {','.join(HEADER)}"
        ) from None


def _pairs(rows: Any, where: str) -> Lengths:
    """Lengths of pairs of numbers, or of lists of token ids."""
    found = []
    for number, row in enumerate(rows if isinstance(rows, Sequence) else ()):
        pair = [len(one) if isinstance(one, list | tuple) else one for one in row] if isinstance(row, Sequence) else []
        if len(pair) != 2 or not all(type(one) is int and 0 < one < 1 << 31 for one in pair):
            raise LogError(f"{where}: entry {number} is not a pair of lengths of at least 1")
        found.append(pair)
    if not found:
        raise LogError(f"{where}: holds no pairs of lengths")
    prompt, output = np.array(found, dtype=np.int64).T
    return Lengths(prompt, output)


def draw(pairs: Lengths, order: str, requests: int, seed: int, **bounds: Any) -> Lengths:
    """`requests` pairs of the artifact's, after its filter (prompt + output < 2,048) and `bounds` (as in `resample`).

    `order` "authors": the first ones in the file's order, from its start again where they are too few, shuffled, as the
    artifact does with the same seed. "resampled": each drawn with replacement, so that another seed gives others.
    """
    within = min(bounds.pop("max_total", None) or PAPER_MAX_TOTAL, PAPER_MAX_TOTAL - 1)
    if order == "resampled":
        table = lengths.LengthTable(pairs.prompt, pairs.output, np.ones(len(pairs), dtype=np.int64))
        return lengths.resample(table, requests, seed, max_total=within, **bounds)
    fit = lengths.fitting(pairs, max_total=within, **bounds).pairs()
    first = (fit * (-(-requests // len(fit))))[:requests]
    random.Random(seed).shuffle(first)
    prompt, output = np.array(first, dtype=np.int64).reshape(-1, 2).T
    return Lengths(prompt, output)


def arrivals(rate: float, duration_s: float, seed: int) -> Floats:
    """The artifact's arrivals, seconds: for each 10 ms a Poisson count of mean `rate` · 0.01, all at its begin."""
    counts = np.random.RandomState(seed).poisson(rate * QUANTUM_S, round(duration_s / QUANTUM_S))
    return np.repeat(np.arange(len(counts)) * QUANTUM_S, counts)


def trace(pairs: Lengths, rate: float, duration_s: float, seed: int) -> tuple[Lengths, Floats]:
    """The artifact's trace: each request's lengths and arrival (seconds). `rate`: requests a second."""
    times = arrivals(rate, duration_s, seed)
    return draw(pairs, "authors", len(times), seed), times


def summary(pairs: Lengths) -> dict[str, Any]:
    """What may be said of the lengths without passing them on: counts, moments, quantiles after the authors' filter.

    Lengths in tokens; `cv` is the coefficient of variation, `skewness` the third standardised moment.
    """
    kept = lengths.fitting(pairs, max_total=PAPER_MAX_TOTAL - 1)
    columns = {"prompt": kept.prompt, "output": kept.output, "total": kept.prompt + kept.output}
    return {
        "pairs": len(pairs),
        "kept": len(kept),
        "correlation": round(float(np.corrcoef(kept.prompt, kept.output)[0, 1]), 4),
    } | {name: _moments(values) for name, values in columns.items()}


def _moments(values: npt.NDArray[np.int64]) -> dict[str, Any]:
    mean, spread = float(values.mean()), float(values.std())
    return {
        "mean": round(mean, 4),
        "cv": round(spread / mean, 4),
        "skewness": round(float((((values - mean) / spread) ** 3).mean()), 4),
        "quantiles": {f"{part:g}": int(np.quantile(values, part, method="lower")) for part in QUANTILES},
    }


if __name__ == "__main__":
    print(json.dumps(summary(read(sys.argv[1], sys.argv[2])), indent=1))
