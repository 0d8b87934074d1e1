"""Prompt and output lengths of requests: the Azure trace's joint table, and ShareGPT-like lengths.

Pairs are kept together: in the trace prompt and output are weakly negatively correlated, with many peaks (templates, a
cap on the context), so pairs are resampled and no curve is fitted. A longer draw with the same seed begins with the
shorter one. `python -m kvlab.prepare.lengths TRACE.csv TABLE.csv` makes the joint table from the original trace.
"""

from __future__ import annotations

import csv
import hashlib
import http.client
import io
import math
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kvlab.errors import ConfigError, LogError
from kvlab.paths import DATA
from kvlab.records import read_text, write_text

TABLE = DATA / "azure-conv-lengths.csv"
TRACE_SHA256 = "2f1e5b666d4e3055fdbba98598ce2ec307767b9064e03e2fa46676dbcc7d0bf8"
TABLE_HEADER = ["prompt_tokens", "output_tokens", "requests"]
TRACE_HEADER = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"]
PAPER_MAX_TOTAL = 2048  # OPT's context, tokens: longest prompt + output in the paper's section 6.1
_CHUNK = 4096  # drawn at a time whatever is asked for, so that a longer draw begins with the shorter one
_MOST_CHUNKS = 1000


@dataclass(frozen=True)
class Lengths:
    """One entry a request: `prompt` and `output`, int64 arrays of one length, tokens, all at least 1."""

    prompt: npt.NDArray[np.int64]
    output: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.prompt)

    def pairs(self) -> list[tuple[int, int]]:
        """[(prompt tokens, output tokens), …] as Python integers."""
        return list(zip(self.prompt.tolist(), self.output.tolist(), strict=True))


@dataclass(frozen=True)
class LengthTable:
    """A joint table of lengths: `requests[i]` requests of the trace had `prompt[i]` and `output[i]` tokens."""

    prompt: npt.NDArray[np.int64]
    output: npt.NDArray[np.int64]
    requests: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        if not len(self.prompt) or min(self.prompt.min(), self.output.min(), self.requests.min()) < 1:
            raise LogError("a table of lengths needs rows, and lengths and counts of at least 1")


def read_table(path: Path = TABLE) -> LengthTable:
    """The joint table that the project carries (`config/data/SOURCES.md`); LogError where it is not one."""
    rows = list(csv.reader(io.StringIO(read_text(path))))
    if not rows or rows[0] != TABLE_HEADER:
        raise LogError(f"{path}: not a table of lengths; its first line must be {','.join(TABLE_HEADER)}")
    return _table(rows[1:], str(path))


def read_bytes(where: str) -> bytes:
    """What is at a path or an http(s) address; LogError where nothing can be read."""
    try:
        if where.startswith(("http://", "https://")):
            with urllib.request.urlopen(where, timeout=60) as reply:
                data: bytes = reply.read()
                return data
        return Path(where).read_bytes()
    except (
        OSError,
        ValueError,
        http.client.HTTPException,
    ) as error:  # the last two: an address that is none, half a reply
        raise LogError(f"{where}: can't be read ({error}); check the path or address") from None


def read_trace(where: str, sha256: str = TRACE_SHA256) -> LengthTable:
    """The joint table of the original trace, from a path or an http(s) address; its digest is checked first."""
    data = read_bytes(where)
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise LogError(f"{where}: sha256 {found}, but the 2023 conversation trace has {sha256}; fetch that file")
    rows = list(csv.reader(io.StringIO(data.decode("utf-8"))))
    if not rows or rows[0] != TRACE_HEADER:
        raise LogError(f"{where}: not the trace; its first line must be {','.join(TRACE_HEADER)}")
    counted: dict[tuple[str, ...], int] = {}
    for row in rows[1:]:
        pair = tuple(row[1:])
        counted[pair] = counted.get(pair, 0) + 1
    return _table([[*pair, str(count)] for pair, count in counted.items()], where)


def _table(rows: list[list[str]], where: str) -> LengthTable:
    try:
        values = np.array(sorted([int(a), int(b), int(c)] for a, b, c in rows), dtype=np.int64).reshape(-1, 3)
        return LengthTable(values[:, 0].copy(), values[:, 1].copy(), values[:, 2].copy())
    except ValueError as error:
        raise LogError(f"{where}: a row is not three whole numbers ({error})") from None
    except LogError as error:
        raise LogError(f"{where}: {error}") from None


def write_table(table: LengthTable, path: Path) -> None:
    """The same table gives the same bytes: rows in order of prompt, then output."""
    rows = zip(table.prompt.tolist(), table.output.tolist(), table.requests.tolist(), strict=True)
    write_text(path, "\n".join([",".join(TABLE_HEADER), *(f"{a},{b},{c}" for a, b, c in sorted(rows))]) + "\n")


def resample(
    table: LengthTable,
    requests: int,
    seed: int,
    *,
    max_total: int | None = None,
    max_prompt: int | None = None,
    max_output: int | None = None,
    scale: float = 1.0,
) -> Lengths:
    """`requests` pairs drawn from `table` with replacement, each as likely as it is in the trace.

    Lengths are scaled first (at least 1 token each); then pairs beyond a maximum (of prompt + output, of the prompt,
    of the output) are dropped, so all maxima are in the tokens that are served. ConfigError where nothing is left.
    """
    _check(requests, scale)
    prompt, output = _scaled(table.prompt, scale), _scaled(table.output, scale)
    keep = _fits(prompt, output, max_total, max_prompt, max_output)
    if not keep.any():
        raise ConfigError(_nothing(max_total, max_prompt, max_output))
    upto = np.cumsum(table.requests[keep])
    row = np.searchsorted(upto, np.random.default_rng(seed).random(requests) * upto[-1], side="right")
    return Lengths(prompt[keep][row], output[keep][row])


def fitting(
    pairs: Lengths,
    *,
    max_total: int | None = None,
    max_prompt: int | None = None,
    max_output: int | None = None,
    scale: float = 1.0,
) -> Lengths:
    """The pairs that are left, in their order, after scaling and maxima as in `resample`."""
    _check(len(pairs), scale)
    prompt, output = _scaled(pairs.prompt, scale), _scaled(pairs.output, scale)
    keep = _fits(prompt, output, max_total, max_prompt, max_output)
    if not keep.any():
        raise ConfigError(_nothing(max_total, max_prompt, max_output))
    return Lengths(prompt[keep], output[keep])


def paper(
    requests: int,
    seed: int,
    *,
    prompt_mean: float = 161.31,
    prompt_cv: float = 1.6,
    output_mean: float = 337.99,
    output_cv: float = 0.877,
    output_family: str = "gamma",
    max_total: int | None = PAPER_MAX_TOTAL,
    max_prompt: int | None = None,
    max_output: int | None = None,
    scale: float = 1.0,
) -> Lengths:
    """ShareGPT-like lengths: prompts lognormal, outputs gamma, independent, with the means of the paper's Fig. 11.

    The families and the prompt's coefficient of variation are assumptions; the output's was fitted to one bar of
    Fig. 2 (the reservation of Orca (Max)). `output_family` "lognormal" shows what the choice changes.
    Scaling and maxima as in `resample`.
    """
    _check(requests, scale)
    if output_family not in ("gamma", "lognormal"):
        raise ConfigError(f"output_family {output_family!r}: gamma or lognormal")
    for name, value in {
        "prompt_mean": prompt_mean,
        "prompt_cv": prompt_cv,
        "output_mean": output_mean,
        "output_cv": output_cv,
    }.items():
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{name} {value}: must be a finite number above 0")
    rng = np.random.default_rng(seed)
    prompts, outputs, kept = [], [], 0
    for _ in range(_MOST_CHUNKS + requests // 10):
        prompt = _scaled(_lognormal(rng, prompt_mean, prompt_cv), scale)
        if output_family == "gamma":
            drawn = rng.gamma(1 / output_cv**2, output_mean * output_cv**2, _CHUNK)
        else:
            drawn = _lognormal(rng, output_mean, output_cv)
        output = _scaled(drawn, scale)
        keep = _fits(prompt, output, max_total, max_prompt, max_output)
        prompts.append(prompt[keep])
        outputs.append(output[keep])
        kept += int(keep.sum())
        if kept >= requests:
            return Lengths(np.concatenate(prompts)[:requests], np.concatenate(outputs)[:requests])
    raise ConfigError(_nothing(max_total, max_prompt, max_output))


def _lognormal(rng: np.random.Generator, mean: float, cv: float) -> npt.NDArray[np.float64]:
    sigma = math.sqrt(math.log1p(cv**2))
    return rng.lognormal(math.log(mean) - sigma**2 / 2, sigma, _CHUNK)


def _scaled(lengths: npt.NDArray[np.float64] | npt.NDArray[np.int64], scale: float) -> npt.NDArray[np.int64]:
    scaled: npt.NDArray[np.int64] = np.maximum(1, np.rint(lengths * scale)).astype(np.int64)
    return scaled


def _fits(
    prompt: npt.NDArray[np.int64],
    output: npt.NDArray[np.int64],
    max_total: int | None,
    max_prompt: int | None,
    max_output: int | None,
) -> npt.NDArray[np.bool_]:
    keep = np.ones(len(prompt), dtype=bool)
    for values, most in ((prompt + output, max_total), (prompt, max_prompt), (output, max_output)):
        if most is not None:
            keep &= values <= most
    return keep


def _check(requests: int, scale: float) -> None:
    if requests < 1:
        raise ConfigError(f"{requests} requests: at least 1 is needed")
    if not (math.isfinite(scale) and 0 < scale <= 1):
        raise ConfigError(f"scale {scale}: must be above 0 and at most 1")


def _nothing(max_total: int | None, max_prompt: int | None, max_output: int | None) -> str:
    return (
        f"(almost) no lengths are left with prompt + output ≤ {max_total}, prompt ≤ {max_prompt}, output ≤ "
        f"{max_output}; raise max_model_len or the maxima, or lower scale"
    )


if __name__ == "__main__":
    write_table(read_trace(sys.argv[1]), Path(sys.argv[2]))
