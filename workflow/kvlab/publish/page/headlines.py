"""The headlines: which workload each is taken from, and what its interval allows to be claimed."""

from __future__ import annotations

from dataclasses import dataclass

from kvlab.accounting import SHARES
from kvlab.quantities import Message, Metrics, Quantities, Quantity
from kvlab.roles import BASELINE, BATCHING, PAGING, RUNGS, Roles

COSTS = ("preemptions", "preempted.requests", "recomputed.tokens", "recomputed.share", "stall.max")  # of preemption


@dataclass(frozen=True)
class Factor:
    """One rung of the ladder: `parts` names what it adds, `low` and `high` are the product before and after it."""

    parts: list[str]
    arm: str
    quantity: Quantity
    low: float
    high: float


@dataclass(frozen=True)
class Headlines:
    """`whole`: the workload of the original comparison. `paging`: the one that shows what paging adds by itself."""

    whole: str
    paging: str
    verdict: str  # of paging's gain: undecided, one-run, more, less, same
    rest: tuple[str, Quantity] | None = None  # the largest of the other factors of the whole, by name

    @classmethod
    def of(cls, metrics: Metrics) -> Headlines:
        """The first workload that has both ends of the comparison; the first whose pool filled."""
        names = list(metrics.facts["workloads"])
        found = metrics.quantities

        def first(*keys: str) -> str | None:
            decided = (w for w in names if all((q := found.get(f"{w}.{k}")) and q.value is not None for k in keys))
            return next(decided, None)

        paged = (w for w in names if (q := by_role(metrics, w, PAGING, "efficiency")) and q.value is not None)
        whole = first("speedup", "efficiency.ratio") or next(paged, names[0])
        paging = first("paging.gain") or next((w for w in names if f"{w}.paging.gain" in found), whole)
        others = [(name, q) for name in ("batching", "engine") if (q := _factor(metrics, paging, name)) is not None]
        rest = max(others, key=lambda one: one[1].value or 0.0) if len(others) > 1 else None
        return cls(whole, paging, verdict(found.get(f"{paging}.paging.gain")), rest)


def _factor(metrics: Metrics, workload: str, name: str) -> Quantity | None:
    """A factor of the ladder with the queue full where the run has that, else of the requests that all arms served."""
    for kind in ("queued.factor", "factor"):
        found = metrics.quantities.get(f"{workload}.{kind}.{name}")
        if found is not None and found.value is not None:
            return found
    return None


def verdict(ratio: Quantity | None) -> str:
    """What may be claimed of a ratio: a difference only where the interval excludes 1."""
    if ratio is None or ratio.value is None:
        return "undecided"
    if ratio.interval is None:
        return "one-run"
    if ratio.interval[0] > 1:
        return "more"
    return "less" if ratio.interval[1] < 1 else "same"


def ladder(metrics: Metrics, workload: str, kind: str = "") -> list[Factor]:
    """The factors from the baseline to paging, bottom first; `kind` "queued.": with the queue full."""
    factors: list[Factor] = []
    skipped: list[str] = []
    product = 1.0
    for role in RUNGS[1:]:
        skipped.append(role)
        quantity = metrics.quantities.get(f"{workload}.{kind}factor.{'-and-'.join(skipped)}")
        if quantity is None or quantity.value is None:
            continue
        arm = arm_of(metrics, workload, role) or ""
        factors.append(Factor(skipped, arm, quantity, product, product * quantity.value))
        product *= quantity.value
        skipped = []
    return factors


def counted(metrics: Metrics, workload: str) -> list[str]:
    """The workload's arms that have a run that counts, in the order of the configuration."""
    return [arm for arm in timed(metrics, workload) if metrics.counts(workload, arm)]


def timed(metrics: Metrics, workload: str) -> list[str]:
    """The same, with arms of which every run was stopped at its time budget: their times are bounds."""
    planned = metrics.facts["workloads"][workload]["arms"]
    return [arm for arm in planned if f"{workload}.{arm}.throughput" in metrics.quantities]


def arm_of(metrics: Metrics, workload: str, role: str) -> str | None:
    """The workload's arm in a role: one that ran to its end, else one that was stopped and gives bounds."""
    first = metrics.roles.first
    return first(role, counted(metrics, workload)) or first(role, timed(metrics, workload))


def by_role(metrics: Metrics, workload: str, role: str, name: str) -> Quantity | None:
    """`<workload>.<arm>.<name>` of the workload's arm in a role; None where it has no such arm."""
    arm = arm_of(metrics, workload, role)
    return metrics.quantities.get(f"{workload}.{arm}.{name}") if arm else None


def queued(metrics: Metrics, workload: str, arm: str | None) -> dict[str, Quantity | None]:
    """Shares and running requests of an arm while requests queue; over the whole run where the run has only that."""
    if arm is None:
        return dict.fromkeys((*SHARES, "running", "kind"))
    at = f"{workload}.{arm}."
    full = metrics.quantities.get(f"{at}queued.running.mean")
    kind = "queued." if full is not None and full.value is not None else ""
    shares = {share: metrics.quantities.get(f"{at}{kind}share.{share}") for share in SHARES}
    return shares | {"running": metrics.quantities.get(f"{at}{kind}running.mean"), "kind": full if kind else None}


def product(metrics: Metrics, workload: str, arm: str) -> Quantity | None:
    """Requests together ÷ time per token: what the throughput would be if nothing but decoding took time."""
    at = f"{workload}.{arm}."
    running, tpot = (metrics.quantities.get(at + name) for name in ("running.mean", "tpot.median"))
    if running is None or tpot is None or running.value is None or not tpot.value:
        return None
    sources = list({(s.file, s.rows): s for s in (*running.sources, *tpot.sources)}.values())
    value = running.value / (tpot.value / 1000)
    return Quantity(f"{at}identity", value, "tokens/s", Message("identity"), min(running.n, tpot.n), sources)


def recomputing(metrics: Metrics, workload: str) -> list[str]:
    """Arms, and arms at a rate, that preempted a request and whose cost is known."""
    ends = f".{COSTS[0]}"
    ids = [q.id for q in metrics.quantities if q.id.startswith(f"{workload}.") and q.id.endswith(ends) and q.value]
    arms = [key.removeprefix(f"{workload}.").removesuffix(ends) for key in ids]
    return [arm for arm in arms if f"{workload}.{arm}.recomputed.share" in metrics.quantities]


def sustained(metrics: Metrics, workload: str) -> list[str]:
    """Arms whose sustained request rate was looked for."""
    ids = [q.id.split(".") for q in metrics.quantities if q.id.endswith(".sustained")]
    return [key[1] for key in ids if key[0] == workload and len(key) == 3]


def rated(metrics: Metrics) -> dict[str, list[str]]:
    """Workloads whose requests arrive over time, with their cells (`<arm>@<rate>`) that have a run that counts.

    Arm by arm, in the order in which they were measured first, and by rate.
    """
    found = {}
    for workload, facts in metrics.facts.get("open", {}).items():
        apart = [cell.partition("@") for cell in facts["cells"] if metrics.counts(workload, cell)]
        arms = [arm for arm, _, _ in apart]
        found[workload] = ["".join(cell) for cell in sorted(apart, key=lambda c: (arms.index(c[0]), float(c[2])))]
    return found


def filling(metrics: Metrics) -> tuple[str, str, str] | None:
    """A workload with requests that arrive over time, its contiguous cell and its paged one whose requests queue most.

    None where no such workload has both.
    """
    for workload, cells in rated(metrics).items():
        spans = {cell: metrics.quantities.get(f"{workload}.{cell}.queued.span") for cell in cells}
        queueing = {
            c: q.value or 0.0 for c, q in spans.items() if q is not None and queued(metrics, workload, c)["kind"]
        }
        full = sorted(queueing, key=queueing.__getitem__, reverse=True)
        both = [metrics.roles.first(role, full) for role in (BATCHING, PAGING)]
        if both[0] and both[1]:
            return workload, both[0], both[1]
    return None


def predicted_before(predictions: Quantities) -> list[tuple[str, list[str]]]:
    """Each workload with its cells that were predicted before the run, and measured; one without any is left out."""
    end = ".off.before.throughput"
    known = [q.id.removesuffix(end).partition(".") for q in predictions if q.id.endswith(end)]
    names = dict.fromkeys(workload for workload, _, _ in known)
    return [(name, [cell for workload, _, cell in known if workload == name]) for name in names]


def pair(arms: list[str], roles: Roles, decided: bool) -> tuple[str, str] | None:
    """The two arms that are shown side by side at first: the traditional way and paging, or those that come closest."""
    if not arms:
        return None
    right = roles.first(PAGING, arms) or arms[-1]
    order = [BATCHING, BASELINE] if decided else [BASELINE, BATCHING]
    wanted = [arm for role in order if (arm := roles.first(role, arms))]
    left = next((arm for arm in [*wanted, *arms] if arm != right), right)
    return left, right
