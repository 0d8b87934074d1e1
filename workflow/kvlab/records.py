"""The raw logs: what one line of each holds, and reading and writing them.

A raw folder is one pass: `raw/<workload>/<arm>/<repeat>/`, or `raw/<workload>/<arm>@<rate>/<repeat>/` where requests
arrive over time, at `rate` a second. Several passes may be measured by one process, which is a block (`Run.process`);
the repeat's number is the block's. All passes of a process count their seconds from its origin. A folder is written
under a temporary name and renamed when it is whole, so a killed run leaves nothing that looks finished. All `*_s`
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
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from kvlab.errors import LogError
from kvlab.events import Preemption as Preemption
from kvlab.events import Sample as Sample

SCHEMA = 1
RAW_FILES = ("run.json", "phases.jsonl", "steps.jsonl", "requests.jsonl", "device.jsonl", "outputs.jsonl")
PREEMPTIONS = "preemptions.jsonl"  # a seventh, which runs of older versions lack


@dataclass(frozen=True)
class Request:
    """One request of a workload, as every engine gets it: `workloads/<workload>.jsonl`."""

    id: int
    prompt_token_ids: list[int]
    max_new_tokens: int
    text: str | None = None  # None where the workload has only lengths
    arrival_s: float = 0.0  # planned arrival at a rate of one request a second: a cell divides it by its own rate


@dataclass(frozen=True)
class Step:
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
class Served:
    """What one request went through: `requests.jsonl`. Times are None where it never came so far.

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
class Phase:
    """A stretch of a run: load, compile, warmup, measure (one for each part). `phases.jsonl`."""

    phase: str
    start_s: float
    end_s: float
    part: str = "all"


@dataclass(frozen=True)
class Output:
    """What one request got: `outputs.jsonl`."""

    id: int
    token_ids: list[int]
    text: str
    part: str = "all"


@dataclass
class Run:
    """What was run and what it truly got: `run.json`. Sizes are read back from the engine, not copied from the plan."""

    workload: str
    arm: str
    repeat: int
    status: str  # completed, not_run or failed
    reason: str | None = None
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
    policy: str | None = None  # who is admitted: paged, orca-max, orca-pow2, orca-oracle, reserved; None: not told
    rate: float | None = None  # requests a second that arrive; None: all are there from the start
    arrivals: dict[str, Any] = field(default_factory=dict)  # of an open loop, as configured
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
    """Whether a log is there, as it is or packed."""
    return any(path.with_name(path.name + end).exists() for end in ("", *PACKINGS))


def _actual(path: Path) -> Path:
    for end in ("", *PACKINGS):
        if (found := path.with_name(path.name + end)).exists():
            return found
    raise LogError(f"{path}: no such file; the stage that writes it has not run here, or it was deleted")


def read_text(path: Path) -> str:
    """The uncompressed text of a log, whether it lies there as it is or packed."""
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
    """All lines of a log as `kind`; a line that does not fit is named by file and number."""
    names = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    lines = []
    for number, text in enumerate(read_text(path).splitlines(), start=1):
        try:
            lines.append(kind(**json.loads(text)))
        except (TypeError, ValueError) as error:
            raise LogError(
                f"{path}:{number}: not a line of {kind.__name__} ({error}); fields: {sorted(names)}"
            ) from None
    return lines


def read_run(folder: Path) -> Run:
    """`run.json` of one raw folder."""
    path = Path(folder) / "run.json"
    try:
        run = Run(**json.loads(read_text(path)))
    except (TypeError, ValueError) as error:
        raise LogError(f"{path}: not a run record ({error})") from None
    if run.schema > SCHEMA:
        raise LogError(
            f"{path}: written by a newer version (schema {run.schema}, this one reads up to {SCHEMA}); update"
        )
    return run


def dumps(value: Any) -> str:
    """One line of JSON: compact, keys in the order of the record, no NaN (which is not JSON)."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def write_text(path: Path, text: str) -> None:
    """Write a whole file or nothing: to a temporary name beside it, then rename."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """A JSON document that people read: indented, order kept."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def write_lines(path: Path, records: Iterable[Any]) -> None:
    """JSON Lines, one dataclass record a line; fields that have their default are left out."""
    write_text(path, "".join(dumps(_told(record)) + "\n" for record in records))


def _told(record: Any) -> dict[str, Any]:
    values = ((f, getattr(record, f.name)) for f in fields(record))
    return {f.name: value for f, value in values if f.default is MISSING or value != f.default}


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder that appears whole or not at all: yields a temporary one, renames it at the end.

    Snakemake makes the (empty) folder of a job's outputs before the job; anything else in the way is an older result
    that is being made again.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        yield building
        building.chmod(0o777 & ~_umask())
        if folder.exists():
            shutil.rmtree(folder)
        building.replace(folder)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
