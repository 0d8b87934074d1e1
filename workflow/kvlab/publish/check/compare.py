"""One run against another, quantity by quantity: the same, different, or not comparable and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvlab import terminal
from kvlab.errors import KvlabError
from kvlab.publish.words.numbers import text_of
from kvlab.publish.words.strings import said
from kvlab.quantities import Message, Metrics, Quantity
from kvlab.records import Run, read_json, read_run

CLOSE = 0.05  # without intervals two values count as the same within this part of the larger
# What depends on how fast or how large a machine is; the rest depends on the requests and the engine alone.
MACHINE = (
    "throughput",
    "request_rate",
    "span",
    "latency",
    "ttft",
    "tpot",
    "phase",
    "device",
    "torch",
    "sampler",
    "speedup",
    "factor",
)


@dataclass(frozen=True)
class Line:
    """One quantity's comparison."""

    id: str
    verdict: str  # same, different, not comparable
    ours: Quantity | None
    theirs: Quantity | None
    why: str


def compare(ours: Path, theirs: Path) -> list[Line]:
    """Every quantity of either run. KvlabError where a folder holds no metrics."""
    for folder in (ours, theirs):
        if not (folder / "metrics.json").exists():
            raise KvlabError(f"{folder}/metrics.json: no such file; give a run's folder, e.g. results/smoke")
    a, b = (Metrics.read(folder / "metrics.json") for folder in (ours, theirs))
    differences = {w: _differences(ours, theirs, a, b, w) for w in a.facts["workloads"] if w in b.facts["workloads"]}
    ids = sorted({q.id for q in a.quantities} | {q.id for q in b.quantities})
    return [_line(key, a.quantities.get(key), b.quantities.get(key), differences) for key in ids]


def _line(key: str, x: Quantity | None, y: Quantity | None, differences: dict[str, dict[str, str]]) -> Line:
    workload, _, name = key.partition(".")
    if x is None or y is None:
        return Line(key, "not comparable", x, y, f"only {'the reference' if x is None else 'this run'} has it")
    if x.value is None or y.value is None:
        return Line(key, "not comparable", x, y, said("en", x.why_none or y.why_none or Message("not-recorded")))
    found = differences.get(workload, {})
    if "work" in found:
        return Line(key, "not comparable", x, y, found["work"])
    if "machine" in found and any(part in name for part in MACHINE):
        return Line(key, "not comparable", x, y, found["machine"])
    if x.interval and y.interval:
        apart = x.interval[1] < y.interval[0] or y.interval[1] < x.interval[0]
        return Line(
            key, "different" if apart else "same", x, y, "the intervals " + ("are apart" if apart else "overlap")
        )
    largest = max(abs(x.value), abs(y.value))
    off = abs(x.value - y.value) / largest if largest else 0.0
    return Line(key, "same" if off <= CLOSE else "different", x, y, f"{off:.1%} apart, without intervals")


def _differences(ours: Path, theirs: Path, a: Metrics, b: Metrics, workload: str) -> dict[str, str]:
    """What keeps a workload's numbers from being compared: other work, or another machine."""
    x, y = _some_run(ours, a, workload), _some_run(theirs, b, workload)
    if x is None or y is None:
        return {"work": "one of the two has no completed run of this workload"}
    found: dict[str, str] = {}
    work = {
        "model": (x.model_fingerprint[:12], y.model_fingerprint[:12]),
        "dtype": (x.dtype, y.dtype),
        "requests": (x.workload_sha256[:12], y.workload_sha256[:12]),
        "KV slots": (x.kv_slots_asked, y.kv_slots_asked),
        "maximum length": (x.max_model_len, y.max_model_len),
    }
    other = [f"{name} {p} against {q}" for name, (p, q) in work.items() if p != q]
    if other:
        found["work"] = "other " + ", ".join(other)
    here, there = _machine(ours), _machine(theirs)
    if here != there:
        found["machine"] = f"another machine: {here} against {there}"
    return found


def _some_run(root: Path, metrics: Metrics, workload: str) -> Run | None:
    for entry in metrics.runs:
        if entry["workload"] == workload and entry["status"] == "completed":
            return read_run(root / "raw" / workload / entry["arm"] / str(entry["repeat"]))
    return None


def _machine(root: Path) -> str:

    environment: dict[str, Any] = read_json(root / "environment.json")
    gpus = [gpu["name"] for gpu in environment["gpus"]]
    machine = environment["machine"]
    return ", ".join(gpus) or f"{machine['cpu']} with {machine['cores_usable']} cores"


def show(lines: list[Line], everything: bool = False) -> None:
    """Print what differs and why the rest can't be compared; with `everything` every quantity. Then counts."""
    grouped: Counter[str] = Counter()
    for line in lines:
        if not everything and line.verdict == "same":
            continue
        if not everything and line.verdict == "not comparable":
            grouped[line.why] += 1
            continue
        shown = [text_of(q, "en") if q else "–" for q in (line.ours, line.theirs)]
        terminal.show(f"{line.verdict:<15} {line.id}: {shown[0]} against {shown[1]} ({line.why})")
    for why, count in grouped.most_common():
        terminal.show(f"{'not comparable':<15} {count} quantities: {why}")
    counts = Counter(line.verdict for line in lines)
    terminal.show(", ".join(f"{counts[verdict]} {verdict}" for verdict in ("same", "different", "not comparable")))
