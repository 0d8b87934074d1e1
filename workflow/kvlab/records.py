"""The raw logs: what one line of each holds, and reading and writing them.

A raw folder is one pass: `raw/<workload>/<arm>/<repeat>/`, or `raw/<workload>/<arm>@<rate>/<repeat>/` where requests
arrive over time, at `rate` a second. Several passes may be measured by one process, which is a block (`Run.process`);
the repeat's number is the block's. All passes of a process count their seconds from its origin. A folder is written
under a temporary name and renamed when it is whole, so a killed run leaves no folder that looks finished. All `*_s`
fields are seconds on the machine's monotonic clock since `Run.origin_ns`; the clock is shared by all processes of one
machine (CLOCK_MONOTONIC), so the logs of the engine's core, of the driver and of the sampler stand on one axis.

A run may measure more than one part of its workload, one after the other in one process: "all" is every request,
"cut" the first ones that a sequential arm can finish in its time (`sequential_requests`). A sequential arm serves
"cut" alone where there is a cut, a batch arm serves both, so that a ratio has the same requests on both sides.
(part, id) names a request within a raw folder.

Digests are those of the uncompressed text: `x.jsonl`, `x.jsonl.xz` and `x.jsonl.gz` are the same log.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import os
import tempfile
import zlib
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from kvlab.errors import LogError, first_fault
from kvlab.events import Preemption as Preemption
from kvlab.events import Record
from kvlab.events import Sample as Sample

SCHEMA = 1
RAW_FILES = ("run.json", "phases.jsonl", "steps.jsonl", "requests.jsonl", "device.jsonl", "outputs.jsonl")
PREEMPTIONS = "preemptions.jsonl"  # a seventh, which runs of older versions lack


@dataclass(frozen=True)
class Request(Record):
    """One request of a workload, as every engine gets it: `workloads/<workload>.jsonl`."""

    id: int
    prompt_token_ids: list[int]
    max_new_tokens: int
    text: str | None = None  # None where the workload has only lengths
    arrival_s: float = 0.0  # planned arrival at a rate of one request a second: a cell divides it by its own rate


@dataclass(frozen=True)
class Step(Record):
    """The KV cache at one engine step, once the step's tokens are stored: `steps.jsonl`.

    `t_s` is when the step began, its slots just allocated; the state holds until the next step's `t_s`. A line with
    nothing held marks when the cache was left empty, so every state has an end. `held` has one entry a request that
    holds cache: [request id, token states stored, slots allocated]. `blocks` is the engine's own count of blocks in
    use, not derived from `held`: `blocks * Run.block_size` equals the slots.
    """

    step: int
    t_s: float
    running: int
    waiting: int
    preempted: int  # requests preempted in this step
    blocks: int
    held: list[list[int]]
    part: str = "all"


@dataclass(frozen=True)
class Served(Record):
    """When one request was sent, admitted and answered: `requests.jsonl`. Times are None for what it did not reach.

    `arrival_s` is when it was to arrive, which latency counts from: of an open loop, as planned. Sent, seen by the
    engine's core and admitted there come after it. `asked_slots` and `chunk_slots`: what a reserving policy asked for
    it and what it took from the pool, from admission to end.
    """

    id: int
    prompt_tokens: int
    output_tokens: int
    arrival_s: float
    token_s: list[float]  # when each output token reached the caller
    finish_s: float | None
    finish_reason: str | None
    cached_tokens: int = 0  # prompt tokens answered by a prefix cache
    part: str = "all"
    sent_s: float | None = None  # handed to the engine; None where all were there from the start
    seen_s: float | None = None
    admitted_s: float | None = None  # the first time
    asked_slots: int | None = None
    chunk_slots: int | None = None
    preemptions: int = 0
    asked_tokens: int | None = None  # output tokens that it would have got; None where it got all of them


@dataclass(frozen=True)
class Phase(Record):
    """A stretch of a run: load, compile, warmup, measure (one for each part). `phases.jsonl`."""

    phase: str
    start_s: float
    end_s: float
    part: str = "all"


@dataclass(frozen=True)
class Output(Record):
    """What one request got: `outputs.jsonl`."""

    id: int
    token_ids: list[int]
    text: str
    part: str = "all"


@dataclass
class Run(Record):
    """What was run: `run.json`. Sizes and settings are those that the engine used, not those of the plan."""

    workload: str
    arm: str
    repeat: int
    status: str  # completed, stopped (at its time budget, while it was measured), not_run or failed
    reason: str | None = None
    why: dict[str, Any] | None = None  # the reason as a `kvlab.messages.Message`; older runs lack it
    schema: int = SCHEMA
    origin_ns: int = 0
    started_utc: str = ""
    parts: list[str] = field(default_factory=list)  # what was measured: all, cut
    engine: dict[str, Any] = field(default_factory=dict)  # name, version, attention backend, compiled, scheduling …
    device: str = "cpu"
    dtype: str = ""
    kv_slots_asked: int = 0
    pool_slots: int = 0  # KV slots that the arm's pool has; of a cache that grows without a pool, the most it held
    block_size: int = 1  # slots an allocation grows by: the paged block, a contiguous cache's length, 1 if it grows
    max_model_len: int = 0
    max_num_seqs: int | None = None
    reserve_slots: int | None = None  # slots accounted to each running request whatever it holds: contiguous admission
    kv_bytes_per_slot: int = 0
    weights_bytes: int | None = None
    kv_pool_bytes: int | None = None
    torch_allocated_peak_bytes: int | None = None
    torch_reserved_peak_bytes: int | None = None
    idle_device_bytes: int | None = None  # device memory before anything was loaded
    device_total_bytes: int | None = None
    sampler: dict[str, Any] = field(default_factory=dict)  # source (nvml, process-tree), interval_ms asked
    workload_sha256: str = ""
    model_fingerprint: str = ""
    caches_warm: dict[str, bool] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    policy: str | None = None  # paged, orca-max, orca-pow2, orca-oracle, reserved; None: the engine's own admission
    rate: float | None = None  # requests a second that arrive; None: all are there from the start
    arrivals: dict[str, Any] = field(default_factory=dict)  # of an open loop, as configured
    stopped: str | None = None  # the part in which its time was over: what is unfinished there is a lower bound
    process: dict[str, Any] = field(default_factory=dict)  # id, name, block, pass (from 0), order: its passes' cells

    @property
    def cell(self) -> str:
        """The name of its folder: the arm, and its rate where it has one."""
        return cell(self.arm, self.rate)


def cell(arm: str, rate: float | None = None) -> str:
    """`arm`, or `arm@rate`."""
    return arm if rate is None else f"{arm}@{rate:g}"


Line = TypeVar("Line")

PACKINGS = {".xz": lzma.decompress, ".gz": gzip.decompress}


def there(path: Path) -> bool:
    """Whether a log exists, packed or not."""
    return any(path.with_name(path.name + end).exists() for end in ("", *PACKINGS))


def _actual(path: Path) -> Path:
    for end in ("", *PACKINGS):
        if (found := path.with_name(path.name + end)).exists():
            return found
    raise LogError(f"{path}: no such file; the stage that writes it has not run here, or it was deleted")


def read_text(path: Path) -> str:
    """The uncompressed text of a log, packed or not."""
    actual = _actual(Path(path))
    try:
        data = actual.read_bytes()
        return PACKINGS.get(actual.suffix, bytes)(data).decode("utf-8")
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise LogError(f"{actual}: cannot be read ({error}); it was changed or cut short") from error


def digest(path: Path) -> str:
    """sha256 of a log's uncompressed text, in hexadecimal."""
    actual = _actual(Path(path))
    if actual.suffix in PACKINGS:
        return hashlib.sha256(read_text(path).encode("utf-8")).hexdigest()
    with actual.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def key_of(data: Any) -> str:
    """Twelve hexadecimal digits that stand for plain data: the start of the sha256 of its JSON, keys sorted."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]


def read_lines(path: Path, kind: type[Line]) -> list[Line]:
    """All lines of a log as `kind`; LogError names the file and number of a line that does not fit.

    Only a line feed ends a line: JSON strings may hold U+2028, U+0085 and the other separators as they are.
    """
    *lines, rest = read_text(path).split("\n")
    lines += [rest] if rest else []
    return [_checked(kind, text, f"{path}:{number}: not a line of") for number, text in enumerate(lines, start=1)]


def read_run(folder: Path) -> Run:
    """`run.json` of one raw folder."""
    path = Path(folder) / "run.json"
    document = read_json(path)
    schema = document.get("schema", SCHEMA) if isinstance(document, dict) else SCHEMA
    if isinstance(schema, int) and schema > SCHEMA:
        raise LogError(f"{path}: written by a newer version (schema {schema}, this one reads up to {SCHEMA}); update")
    return _checked(Run, read_text(path), f"{path}: not a")


def read_json(path: Path) -> Any:
    """A JSON document. LogError where it is none."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise LogError(f"{path}: not a JSON document ({error}); make it again") from None


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _checked(kind: type[Line], text: str, where: str) -> Line:
    try:
        return _adapter(kind).validate_json(text, strict=True)  # type: ignore[arg-type, no-any-return]
    except ValidationError as error:
        raise LogError(
            f"{where} {kind.__name__} ({first_fault(error)}); fields: {', '.join(f.name for f in fields(kind))}"  # type: ignore[arg-type]
        ) from None


def dumps(value: Any) -> str:
    """One line of JSON: compact, keys in the order of the record, no NaN (which is not JSON)."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def write_text(path: Path, text: str) -> None:
    """Write a whole file or nothing: to a temporary name beside it, then rename."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    name = ""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(name).chmod(0o666 & ~umask())
        Path(name).replace(path)
    except BaseException as error:
        if name:
            Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):  # its file is the temporary one, or none
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def write_json(path: Path, value: Any) -> None:
    """A JSON document that people read: indented, order kept."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def write_lines(path: Path, records: Iterable[Any]) -> None:
    """JSON Lines, one dataclass record a line; fields that have their default are left out."""
    write_text(path, "".join(dumps(_not_default(record)) + "\n" for record in records))


def _not_default(record: Any) -> dict[str, Any]:
    return {f.name: v for f in fields(record) if (v := getattr(record, f.name)) != f.default or f.default is MISSING}


def umask() -> int:
    """The bits that this process takes from the mode of a new file."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
