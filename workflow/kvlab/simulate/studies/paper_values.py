"""The paper's values beside ours: Table 1, the claims with their tolerances, and the verdicts.

The values, tolerances and their reasons stand in `config/data/paper-values.yaml` and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from kvlab.errors import LogError
from kvlab.paths import DATA, lengths_variable
from kvlab.prepare import artifact
from kvlab.quantities import Message, Quantities, Quantity, Source
from kvlab.records import digest, read_lines, read_text, write_lines
from kvlab.simulate.studies import traces
from kvlab.simulate.studies.sweeps import Point

VALUES = DATA / "paper-values.yaml"
GIB = 1 << 30


def read(path: Path = VALUES) -> dict[str, Any]:
    """The paper's values; LogError where the file is not what it should be."""
    try:
        values: dict[str, Any] = yaml.safe_load(read_text(path))
        if missing := {"models", "printed_to", "fig11", "claims", "artifact", "ordering", "ranges"} - set(values):
            raise ValueError(f"{', '.join(sorted(missing))}: missing")
        return values
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise LogError(f"{path}: not the paper's values ({' '.join(str(error).split())})") from None


def paper_batch() -> float:
    """Requests that the paper's paged pool ran together (Fig. 13a)."""
    return float(next(claim["paper"] for claim in read()["claims"] if claim["id"] == "fig13a.paged.running"))


def bytes_per_slot(model: dict[str, Any]) -> int:
    """Keys and values of one token in all layers: 2 · layers · hidden size · bytes a value."""
    return int(2 * model["layers"] * model["hidden"] * model["bytes_per_value"])


def slots(model: dict[str, Any]) -> int:
    """Whole slots in a model's KV pool."""
    return int(model["kv_gib"] * GIB // bytes_per_slot(model))


@dataclass(frozen=True)
class Sized:
    """A row of Table 1, recomputed: a line of `table1.jsonl`."""

    model: str
    layers: int
    hidden: int
    bytes_per_value: int
    kv_gib: float
    bytes_per_slot: int
    slots: int


def write_table1(path: Path) -> None:
    """Recompute Table 1's slots from its memory and the models' shapes."""
    models = read()["models"].items()
    keys = ("layers", "hidden", "bytes_per_value", "kv_gib")
    write_lines(
        path,
        [
            Sized(model=name, bytes_per_slot=bytes_per_slot(one), slots=slots(one), **{key: one[key] for key in keys})
            for name, one in models
        ],
    )


def table1_quantities(path: Path, root: Path) -> Quantities:
    """`simulated.table1.<model>.slots` and `.bytes-per-slot`, from the lines of `path`."""
    found, sha256, file = Quantities(), digest(path), path.relative_to(root).as_posix()
    for number, row in enumerate(read_lines(path, Sized), start=1):
        model = {"layers": row.layers, "hidden": row.hidden, "bytes_per_value": row.bytes_per_value}
        source, key = [Source(file, sha256, str(number))], f"simulated.table1.{row.model}"
        size = bytes_per_slot(model)
        count = slots(model | {"kv_gib": row.kv_gib})
        each = Message("simulated.slot-bytes")
        found.add(Quantity(f"{key}.bytes-per-slot", size, "bytes", each, 1, source))
        found.add(Quantity(f"{key}.slots", count, "slots", Message("simulated.slots", {"each": each}), 1, source))
    return found


@dataclass(frozen=True)
class Verdict:
    """A claim: the paper's value, ours, how far they may differ, and whether they do.

    `verdict`: held, failed, not decided (not simulated), or informative (the paper's value is of another
    situation, as the note says). `paper` None where it has no such value; ours must then be between `low` and `high`.
    `spread`: the quantities of the least and the most over step times and over seeds, by "steps" and "seeds".
    `by_step`: of requests that run together, the quantity at each step time, by the time in ms.
    """

    id: str
    where: str
    quantity: str
    paper: float | None
    ours: float | None
    low: float
    high: float
    unit: str
    verdict: str
    note: str = ""
    spread: dict[str, tuple[str, str]] = field(default_factory=dict)
    by_step: dict[str, str] = field(default_factory=dict)


def judge(quantities: Quantities, section: dict[str, Any], served: Sequence[traces.ServedTrace] = ()) -> list[Verdict]:
    """All claims, in the order of the file: Table 1, the authors' requests, drawn ones, ordering, ranges.

    `served`: the lines of `traces.jsonl`, for how much other step times and seeds change.
    """
    values = read()
    rows = list(_table1(values, quantities))
    rows += [
        _of_trace(quantities, claim, section["traces"], served, values["fig11"])
        for claim in values["claims"]
        if "trace" in claim
    ]
    for claim in values["claims"]:
        low, high = claim["paper"] - claim["tolerance"], claim["paper"] + claim["tolerance"]
        rows.append(_verdict(quantities, claim, claim["paper"], low, high))
    for workload in section["workloads"]:
        rows += _ordering(quantities, workload, values["ordering"])
    rows += [_verdict(quantities, claim, None, claim["low"], claim["high"]) for claim in values["ranges"]]
    return rows


def _of_trace(
    quantities: Quantities,
    claim: dict[str, Any],
    asked: dict[str, Any],
    served: Sequence[traces.ServedTrace],
    fig11: dict[str, Any],
) -> Verdict:
    """A claim on the authors' own requests: trace `fig2` for the claim `fig2.orca-max.tokens`."""
    trace, policy, measure = claim["id"].split(".")
    own = {"id": f"trace.{claim['id']}", "quantity": f"simulated.{claim['id']}", "where": claim["where"]}
    own |= {"note": claim.get("trace_note", ""), "informative": claim.get("trace_informative", False)}
    low, high = claim["paper"] - claim["trace"], claim["paper"] + claim["trace"]
    verdict = _verdict(quantities, own, claim["paper"], low, high)
    lengths = asked[trace]["lengths"] if trace in asked else {}
    if lengths and verdict.ours is None:
        name = lengths_variable(lengths["kind"])
        verdict = replace(verdict, note=f"the lengths are not here; {name} names the file, config/README.md says more")
    if lengths.get("sha256"):
        verdict = replace(verdict, verdict="not decided", note="the lengths are of another file than the artifact's")
    elif verdict.ours is not None and not artifact.FILES[lengths["kind"]].digests:
        mine = next(line for line in served if line.trace == trace)
        near, means = _as_in_fig11(mine, fig11[lengths["kind"]], fig11["within"])
        said = "; ".join(filter(None, (verdict.note, means)))
        verdict = replace(verdict, verdict=verdict.verdict if near else "not decided", note=said)
    steps = traces.by_step(served, trace, policy, measure) if measure == "running" else {}
    return replace(verdict, spread=traces.spread(served, trace, policy, measure), by_step=steps)


def _as_in_fig11(line: traces.ServedTrace, printed: dict[str, float], within: float) -> tuple[bool, str]:
    """Whether a file of which no digest is known has the means of Fig. 11, and both sides' numbers."""
    ours = {name: getattr(line, name) for name in printed}
    near = all(abs(ours[name] / mean - 1) <= within for name, mean in printed.items())
    both = (
        " and ".join(f"{mean:.2f}" for mean in ours.values()),
        " and ".join(f"{mean:.2f}" for mean in printed.values()),
    )
    says = "the file is known by its means only" if near else "not the artifact's lengths"
    return near, f"{says}: prompts and outputs of {both[0]} tokens, {both[1]} in Fig. 11"


def _verdict(quantities: Quantities, claim: dict[str, Any], paper: float | None, low: float, high: float) -> Verdict:
    quantity = quantities.get(claim["quantity"])
    ours = quantity.value if quantity else None
    note = claim.get("note", "") if quantity else "this run did not simulate it"
    if ours is None:
        found = "not decided"
    elif claim.get("informative"):
        found = "informative"
    else:
        found = "held" if low <= ours <= high else "failed"
    unit = quantity.unit if quantity else claim.get("unit", "requests" if ".running" in claim["quantity"] else "share")
    return Verdict(claim["id"], claim["where"], claim["quantity"], paper, ours, low, high, unit, found, note)


def _table1(values: dict[str, Any], quantities: Quantities) -> Iterator[Verdict]:
    """Both the memory and the slots are printed rounded; slots that no memory rounded so could hold are refused."""
    for name, model in values["models"].items():
        half = values["printed_to"]["kv_gib"] / 2
        low = slots(model | {"kv_gib": model["kv_gib"] - half}) - values["printed_to"]["slots"] / 2
        high = slots(model | {"kv_gib": model["kv_gib"] + half}) + values["printed_to"]["slots"] / 2
        key = f"simulated.table1.{name}.slots"
        note = f"exact for {model['kv_gib']} GiB; the range is what rounding to whole GiB and printed slots allows"
        ours = quantities[key].value
        ok = ours is not None and low <= model["slots"] <= high
        found = "held" if ok else "failed"
        yield Verdict(f"table1.{name}.slots", "Table 1", key, model["slots"], ours, low, high, "slots", found, note)


def _ordering(quantities: Quantities, workload: str, order: list[str]) -> Iterator[Verdict]:
    """The smallest step from one policy's token share to the next one's, over all seeds, must be above 0."""
    keys = [f"simulated.{workload}.{policy}.tokens" for policy in order]
    for before, after in pairwise(keys):
        one, two = quantities[before], quantities[after]
        step = min(b - a for a, b in zip(one.samples, two.samples, strict=True))
        names = [key.split(".")[2] for key in (before, after)]
        found = "held" if step > 0 else "failed"
        note = "smallest difference of token share over the seeds"
        key = f"ordering.{workload}.{names[0]}-below-{names[1]}"
        yield Verdict(key, "Fig. 2, order", after, None, step, 0.0, 1.0, "share", found, note)


def load_quantities(quantities: Quantities, points: Iterable[Point]) -> Iterator[Quantity]:
    """At which offered load the simulated paged pool runs as many requests together as the paper's did."""
    measured = [point for point in points if point.study == "load" and point.label != "full"]
    target = paper_batch()
    loads = sorted({(point.x, f"simulated.load.{point.workload}.{point.policy}.{point.label}") for point in measured})
    if len(loads) < 2:
        return
    x = [load for load, _ in loads]
    every = [quantities[f"{key}.running"] for _, key in loads]
    running = [quantity.value or 0.0 for quantity in every]
    inside = bool(np.all(np.diff(running) > 0)) and running[0] <= target <= running[-1]
    yield Quantity(
        id="simulated.load.of-paper-batch",
        value=float(np.interp(target, running, x)) if inside else None,
        unit="share",
        formula=Message("simulated.load", {"batch": target}),
        n=len(x),
        sources=[source for quantity in every for source in quantity.sources],
        why_none=None if inside else Message("simulated.load-outside"),
    )
