"""One run against another: do the conclusions agree, then the few quantities that matter, then all of them.

Two values within a margin count as the same, whatever their intervals: repeats can be so alike that the intervals do
not overlap although the values differ by a fraction of a per cent. Beyond the margin, values whose intervals overlap
count as the same too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvlab import terminal
from kvlab.errors import KvlabError
from kvlab.publish.check import claims
from kvlab.publish.words.numbers import text_of
from kvlab.publish.words.strings import said
from kvlab.quantities import Message, Metrics, Quantity
from kvlab.records import Run, read_json, read_run, there

MARGIN = 0.02  # two values within this part of the larger count as the same
AGREE, DIFFER, NOT_COMPARABLE = "agree", "differ", "can't be compared"
# What depends on how fast or how large a machine is; the rest depends on the requests and the engine alone.
MACHINE = (
    *("throughput", "request_rate", "span", "latency", "ttft", "tpot", "phase", "device", "torch", "sampler", "energy"),
    *("speedup", "factor", "gain", "stall", "step.spread", "halves", "waiting.time", "predicted", "calibration"),
)
# The few that matter of each arm.
GROUPS = {
    "memory": ("efficiency", "queued.share.tokens", "queued.running.mean", "kv.per_request"),
    "speed": ("throughput", "queued.throughput", "latency.median", "latency.p95", "ttft.median", "tpot.median"),
    "costs of paging": ("preemptions", "recomputed.share", "stall.max"),
}


@dataclass(frozen=True)
class Line:
    """One claim, factor or quantity of either run; `ours` and `theirs` as they are shown."""

    id: str
    kind: str  # claim, factor, a group of GROUPS, or other
    verdict: str  # agree, differ, can't be compared
    ours: str
    theirs: str
    why: str


def compare(ours: Path, theirs: Path, margin: float = MARGIN) -> list[Line]:
    """Every claim and every quantity of either run. KvlabError where a folder holds no metrics."""
    for folder in (ours, theirs):
        if not there(folder / "metrics.json"):
            raise KvlabError(f"{folder}/metrics.json: no such file; give a run's folder, e.g. results/smoke")
    a, b = (Metrics.read(folder / "metrics.json") for folder in (ours, theirs))
    differences = {w: _differences(ours, theirs, a, b, w) for w in a.facts["workloads"] if w in b.facts["workloads"]}
    lines = list(_claims(ours, theirs, differences))
    arms = {arm for metrics in (a, b) for facts in metrics.facts["workloads"].values() for arm in facts["arms"]}
    for key in sorted({q.id for q in a.quantities} | {q.id for q in b.quantities}):
        x, y = a.quantities.get(key), b.quantities.get(key)
        shown = [text_of(q, "en") if q else "–" for q in (x, y)]
        lines.append(Line(key, _kind(key, x or y, arms), *_judge(key, x, y, differences, margin, shown)))
    return lines


def _claims(ours: Path, theirs: Path, differences: dict[str, dict[str, str]]) -> Iterator[Line]:
    """Both runs judged by the same claims. Verdicts are compared between different machines too."""
    mine, other = ({(v["id"], v["workload"]): v["verdict"] for v in claims.judge(root)} for root in (ours, theirs))
    for key in dict.fromkeys([*mine, *other]):
        x, y = mine.get(key), other.get(key)
        name = f"{key[1]}.{key[0]}"
        work = differences.get(key[1], {}).get("work")
        if x is None or y is None:
            verdict, why = NOT_COMPARABLE, f"only {'the reference' if x is None else 'this run'} has it"
        elif claims.UNDECIDED in (x, y):
            verdict, why = NOT_COMPARABLE, "not decided by " + ("both" if x == y else "one of the two")
        elif work:
            verdict, why = NOT_COMPARABLE, work
        else:
            verdict, why = (AGREE if x == y else DIFFER), ""
        yield Line(name, "claim", verdict, x or "–", y or "–", why)


def _kind(key: str, quantity: Quantity | None, arms: set[str]) -> str:
    _, arm, *rest = [*key.split("."), ""]
    if arm not in arms and quantity is not None and quantity.unit == "ratio":
        return "factor"
    name = ".".join(rest).rstrip(".")
    return next((group for group, names in GROUPS.items() if arm in arms and name in names), "other")


def _judge(
    key: str,
    x: Quantity | None,
    y: Quantity | None,
    differences: dict[str, dict[str, str]],
    margin: float,
    shown: list[str],
) -> tuple[str, str, str, str]:
    """(verdict, ours, theirs, why)."""
    workload, _, name = key.partition(".")
    found = differences.get(workload, {})
    if x is None or y is None:
        return NOT_COMPARABLE, *_two(shown), f"only {'the reference' if x is None else 'this run'} has it"
    if x.value is None or y.value is None:
        why = said("en", x.why_none or y.why_none or Message("not-recorded"))
        return NOT_COMPARABLE, *_two(shown), why
    if x.bound or y.bound:
        return NOT_COMPARABLE, *_two(shown), "a bound: a run was stopped at its time budget"
    if "work" in found:
        return NOT_COMPARABLE, *_two(shown), found["work"]
    if "machine" in found and any(part in name for part in MACHINE):
        return NOT_COMPARABLE, *_two(shown), found["machine"]
    largest = max(abs(x.value), abs(y.value))
    off = abs(x.value - y.value) / largest if largest else 0.0
    apart = f"{off:.1%} apart"
    if off <= margin:
        return AGREE, *_two(shown), apart
    if shown[0] == shown[1]:  # both below what is shown, say; no reader could see in what they differ
        return AGREE, *_two(shown), "the same as shown"
    if x.interval and y.interval:
        overlap = x.interval[1] >= y.interval[0] and y.interval[1] >= x.interval[0]
        return (AGREE if overlap else DIFFER), *_two(shown), f"{apart}, intervals {'overlap' if overlap else 'apart'}"
    return DIFFER, *_two(shown), f"{apart}, without intervals"


def _two(shown: list[str]) -> tuple[str, str]:
    return shown[0], shown[1]


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


def show(lines: list[Line], everything: bool = False) -> int:
    """Print the answer, what it rests on, and the quantities that matter; returns how many conclusions differ."""
    conclusions = [line for line in lines if line.kind in ("claim", "factor")]
    counts = Counter(line.verdict for line in conclusions)
    answer = "differ" if counts[DIFFER] else "agree" if counts[AGREE] else "can't be compared"
    totals = ", ".join(f"{counts[verdict]} {verdict}" for verdict in (AGREE, DIFFER, NOT_COMPARABLE))
    terminal.show(f"The conclusions {answer}: of {len(conclusions)} claims and factors {totals}.")
    _table("claims and factors", conclusions, everything)
    for group in GROUPS:
        _table(group, [line for line in lines if line.kind == group], everything)
    if everything:
        _table("other quantities", [line for line in lines if line.kind == "other"], everything)
    return counts[DIFFER]


def _table(title: str, lines: list[Line], everything: bool) -> None:
    """What agrees and differs, a line each; what can't be compared is counted by its reason."""
    comparable = [line for line in lines if everything or line.verdict != NOT_COMPARABLE]
    counts = Counter(line.why for line in lines if line.verdict == NOT_COMPARABLE)
    if not lines:
        return
    table = terminal.table("", title, "this run", "reference", "", left=2)
    for line in sorted(comparable, key=lambda line: (line.verdict != DIFFER, line.kind)):
        table.add_row(line.verdict, line.id, line.ours, line.theirs, line.why)
    terminal.show()
    terminal.show(table)
    for why, count in counts.most_common() if not everything else []:
        terminal.show(f"{count} {NOT_COMPARABLE}: {why}")
