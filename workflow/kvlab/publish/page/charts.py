"""Charts that the page draws as HTML, so that each number in them opens its trail; positions are in per cent."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from kvlab.publish.page.headlines import Factor
from kvlab.quantities import COUNTS, Message, Metrics, Quantities, Quantity, Said, Source

TICKS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)


@dataclass(frozen=True)
class Row:
    """A bar. `start`, `end`, `whisker` and `dots` are in per cent of the chart's width."""

    parts: list[str]
    arm: str
    quantity: Quantity | None
    start: float = 0.0
    end: float = 0.0
    whisker: tuple[float, float] | None = None
    dots: tuple[float, ...] = ()
    whole: bool = False
    why: Said | None = None


@dataclass(frozen=True)
class Chart:
    """Its rows, and where its grid lines are: (value, per cent)."""

    rows: list[Row]
    ticks: list[tuple[float, float]]


def ladder_rows(factors: list[Factor], quantities: Quantities, workload: str, kind: str = "") -> Chart | None:
    """The speedup as a waterfall on a logarithmic scale; None where the workload has none."""
    whole = quantities.get(f"{workload}.{kind}speedup")
    if not factors or whole is None or whole.value is None:
        return None
    reach = [1.0, whole.value, *(whole.interval or ())]
    for factor in factors:
        reach += [factor.low, factor.high, *(factor.low * end for end in factor.quantity.interval or ())]
    low, high = math.log(min(reach) / 1.04), math.log(max(reach) * 1.04)

    def at(value: float) -> float:
        return round(100 * (math.log(value) - low) / (high - low), 2)

    rows = []
    for f in factors:
        ends = f.quantity.interval
        whisker = (at(f.low * ends[0]), at(f.low * ends[1])) if ends else None
        start, end = sorted((at(f.low), at(f.high)))
        rows.append(Row(f.parts, f.arm, f.quantity, start, end, whisker))
    start, end = sorted((at(1), at(whole.value)))
    whisker = (at(whole.interval[0]), at(whole.interval[1])) if whole.interval else None
    rows.append(Row([], "", whole, start, end, whisker, whole=True))
    ticks = [(tick, at(tick)) for tick in TICKS if low <= math.log(tick) <= high]
    return Chart(rows, ticks)


def bar_rows(metrics: Metrics, workload: str, name: str) -> Chart:
    """A bar for each planned arm of a workload, from zero; an arm without a value keeps its row and says why."""
    arms = metrics.facts["workloads"][workload]["arms"]
    found = {arm: metrics.quantities.get(f"{workload}.{arm}.{name}") for arm in arms}
    decided = [q for q in found.values() if q and q.value is not None]
    values = [value for q in decided for value in (q.value or 0.0, *q.samples, *(q.interval or ()))]
    top = max(values, default=0.0) or 1.0

    def at(value: float) -> float:
        return round(100 * value / top, 2)

    rows = []
    for arm, q in found.items():
        if q is None or q.value is None:
            rows.append(Row([], arm, None, why=why_not_run(metrics, workload, arm)))
            continue
        whisker = (at(q.interval[0]), at(q.interval[1])) if q.interval else None
        rows.append(Row([], arm, q, 0, at(q.value), whisker, tuple(map(at, q.samples)) if q.n > 1 else ()))
    return Chart(rows, [])


@dataclass(frozen=True)
class Pool:
    """What a pool of so many slots would give; `width`: of its bar, in per cent. `own`: the pool that was measured."""

    slots: int
    own: bool
    contiguous: Quantity
    paged: Quantity
    gain: Quantity
    width: float


def gain_rows(workload: str, part: dict[str, Any]) -> list[Pool]:
    """The simulated gain of paging over pool sizes, a full queue, the run's own block and maximum length.

    `part`: the workload's entry of `predicted/grid.json`.
    """
    own = part["own"]
    sources = [Source(**source) for source in part["sources"]]

    def at(policy: str, pool: int) -> dict[str, Any] | None:
        wanted = {"policy": policy, "pool": pool, "block": own["block"], "max_len": own["max_len"], "rate": None}
        return next((p for p in part["points"] if all(p[key] == value for key, value in wanted.items())), None)

    def made(pool: int, name: str, value: float, unit: str) -> Quantity:
        formula = Message("predicted.grid", {"run": part["run"], "pool": pool})
        return Quantity(f"{workload}.predicted.pool-{pool}.{name}", value, unit, formula, 1, sources)

    rows = []
    for pool in part["axes"]["pool"]:
        theirs, ours = at("orca-max", pool), at("paged", pool)
        if theirs is None or ours is None or ours["gain"] is None:
            continue
        found = [
            made(pool, "together-contiguous", theirs["together"], "requests"),
            made(pool, "together-paged", ours["together"], "requests"),
            made(pool, "gain", ours["gain"], "ratio"),
        ]
        rows.append(Pool(pool, pool == own["pool"], found[0], found[1], found[2], 0.0))
    most = max((row.gain.value or 1.0 for row in rows), default=1.0)
    return [replace(row, width=round(100 * (row.gain.value or 0.0) / most, 2)) for row in rows]


def why_not_run(metrics: Metrics, workload: str, arm: str) -> Said | None:
    """The recorded reason of the first repeat that does not count."""
    entries: list[dict[str, Any]] = [e for e in metrics.runs if e["workload"] == workload and e["arm"] == arm]
    return next((e["reason"] for e in entries if e["validity"] not in COUNTS), None)
