"""Quantities that compare arms: the headlines, and the speedup divided into factors that multiply to the whole.

Arms are found by their roles; a factor is named by the role of its upper rung. The ladder is computed twice: on the
requests that every arm served, and with the queue full, where a batch arm serves all requests and a sequential one
those that it served (`halves` shows that its throughput hardly depends on how many).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kvlab.analyse.sheet import Sheet
from kvlab.analyse.statistics import SATURATED_FULL, SATURATED_TIME
from kvlab.analyse.steps import time_full
from kvlab.quantities import Message, Quantity
from kvlab.raw import RawRun
from kvlab.records import Output
from kvlab.roles import BASELINE, BATCHING, EAGER, PAGING, RESERVING, RUNGS, Roles

Runs = Mapping[str, Sequence[RawRun]]


def common_part(runs: Runs) -> str:
    """The part of the workload that every arm served: "cut" where sequential arms were cut short, else "all"."""
    cut = any("cut" in run.run.parts for arm in runs.values() for run in arm)
    return "cut" if cut else "all"


def compare_arms(sheet: Sheet, workload: str, runs: Runs, timed: Runs, roles: Roles) -> None:
    """Put the quantities `<workload>.<name>` across arms on the sheet. `runs`: each arm's repeats that count.

    `timed`: with those that were stopped at their time budget, whose times are bounds.
    """
    throughputs = _throughputs(sheet, workload, timed, common_part(timed))
    planned = sheet.planned_arms.get(workload, ())
    common = _Compared(workload, roles, planned, throughputs)
    full = _Compared(workload, roles, planned, {arm: sheet.quantities[f"{workload}.{arm}.throughput"] for arm in timed})
    _speedups(sheet, common)
    _factors(sheet, common, "")
    _factors(sheet, full, "queued.")
    _graphs(sheet, common)
    _memory(sheet, full)
    _paging(sheet, full, runs)
    _noise(sheet, common, runs)
    _outputs(sheet, workload, runs)


@dataclass(frozen=True)
class _Compared:
    """The throughput of each arm of a workload, and which arm has which role."""

    workload: str
    roles: Roles
    planned: Sequence[str]  # arms that the workload asks for
    throughput: Mapping[str, Quantity]

    def arm(self, role: str) -> str | None:
        return self.roles.first(role, self.throughput)

    def of(self, role: str) -> Quantity | None:
        return self.throughput.get(self.arm(role) or "")

    def named(self, role: str) -> str | Message:
        """What a formula calls the arm."""
        return self.arm(role) or named(role, self.roles, self.planned)

    def formula(self, key: str, top: str, bottom: str) -> Message:
        """A message about the arms of two roles."""
        return Message(key, {"top": self.named(top), "bottom": self.named(bottom)})


def named(role: str, roles: Roles, planned: Sequence[str]) -> str | Message:
    """The name of the arm in a role that the workload asks for; the role itself where it asks for none."""
    return roles.first(role, planned) or Message(f"role.{role}")


def _throughputs(sheet: Sheet, workload: str, runs: Runs, part: str) -> dict[str, Quantity]:
    """Throughput of each arm over the requests that all arms served."""
    found = {}
    for arm, repeats in runs.items():
        mine = [view for run in repeats if (view := run.of(part))]
        key = f"{workload}.{arm}"
        if mine and mine[0].part == repeats[0].part:
            found[arm] = sheet.quantities[f"{key}.throughput"]
        elif mine:
            found[arm] = sheet.arm(key, "cut.throughput", mine, lambda r: r.throughput, ("requests.jsonl",))
    return found


def _speedups(sheet: Sheet, common: _Compared) -> None:
    base = common.arm(BASELINE)
    for arm, throughput in common.throughput.items():
        if arm != base:
            formula = Message("throughput-ratio", {"top": arm, "bottom": common.named(BASELINE)})
            sheet.ratio(f"{common.workload}.{arm}.speedup", throughput, common.of(BASELINE), formula)
    formula = common.formula("throughput-ratio", PAGING, BASELINE)
    sheet.ratio(f"{common.workload}.speedup", common.of(PAGING), common.of(BASELINE), formula)


def _factors(sheet: Sheet, rates: _Compared, kind: str) -> None:
    """`<kind>factor.<parts>`, and with the queue full the whole that they multiply to. `kind`: "" or "queued."."""
    key = "queued-throughput-ratio" if kind else "throughput-ratio"
    if rates.of(BASELINE) is None:
        return
    below = BASELINE
    skipped: list[str] = []
    for role in RUNGS[1:]:
        skipped.append(role)
        if rates.of(role) is not None:
            name = f"{rates.workload}.{kind}factor.{'-and-'.join(skipped)}"
            sheet.ratio(name, rates.of(role), rates.of(below), rates.formula(key, role, below))
            below, skipped = role, []
    if kind and rates.of(PAGING) is not None:
        whole = rates.formula(key, PAGING, BASELINE)
        sheet.ratio(f"{rates.workload}.{kind}speedup", rates.of(PAGING), rates.of(BASELINE), whole)


def _graphs(sheet: Sheet, common: _Compared) -> None:
    if common.of(EAGER) is not None:
        formula = common.formula("throughput-ratio-aside", PAGING, EAGER)
        sheet.ratio(f"{common.workload}.factor.cuda-graphs", common.of(PAGING), common.of(EAGER), formula)


def _memory(sheet: Sheet, rates: _Compared) -> None:
    def of(role: str, name: str) -> Quantity | None:
        return sheet.quantities.get(f"{rates.workload}.{arm}.{name}") if (arm := rates.arm(role)) else None

    def against_contiguous(key: str, name: str, formula: str) -> None:
        top, bottom = of(PAGING, name), of(BATCHING, name)
        sheet.ratio(f"{rates.workload}.{key}", top, bottom, rates.formula(formula, PAGING, BATCHING))

    ends = (of(PAGING, "efficiency"), of(BASELINE, "efficiency"))
    ratio, points = (rates.formula(key, PAGING, BASELINE) for key in ("efficiency-ratio", "efficiency-points"))
    sheet.ratio(f"{rates.workload}.efficiency.ratio", *ends, ratio)
    sheet.difference(f"{rates.workload}.efficiency.points", *ends, points)
    if rates.arm(PAGING) is None and rates.arm(BATCHING) is None:
        return
    for name in ("share.tokens", "running.mean"):
        against_contiguous(f"paging.{name}", name, f"paging.{name}")
        against_contiguous(f"queued.paging.{name}", f"queued.{name}", f"paging.{name}")
    for name in ("tpot", "ttft"):
        against_contiguous(f"paging.{name}", f"{name}.median", f"paging.{name}")


def _paging(sheet: Sheet, rates: _Compared, runs: Runs) -> None:
    """What paging itself gives against each policy that reserves, or why this run does not decide it."""
    paged, contiguous = rates.arm(PAGING), rates.arm(BATCHING)
    reserving = [arm for arm in rates.roles.every((BATCHING, RESERVING), rates.throughput) if arm != contiguous]
    for arm in (contiguous, *reserving):
        key = f"{rates.workload}.paging.gain" + ("" if arm == contiguous else f".{arm}")
        formula = Message("throughput-ratio-all", {"top": rates.named(PAGING), "bottom": arm or rates.named(BATCHING)})
        stopped = next((one for one in (paged, arm) if one and one not in runs), None)
        why = Message("arm-stopped", {"arm": stopped}) if stopped else None
        why = why or paging_undecided(sheet, rates.workload, runs, rates.roles, arm)
        if why:
            sources = [run.source("steps.jsonl") for name in (paged, arm) for run in runs.get(name or "", ())]
            sheet.undecided(key, formula, why, sources)
            continue
        sheet.ratio(key, rates.of(PAGING), rates.throughput.get(arm or ""), formula)


def paging_undecided(
    sheet: Sheet, workload: str, runs: Runs, roles: Roles, against: str | None = None
) -> Message | None:
    """Why no claim about paging can be made; None where one can. `against`: the arm that reserves, by default Orca's.

    Paging decides how many requests a full pool holds. Where the pool was not full, or no request waited, the two
    admit the same requests and any difference is something else. Every repeat must show it, and over a share of time:
    a single step shows nothing.
    """
    paged, reserving = roles.first(PAGING, runs), against or roles.first(BATCHING, runs)
    if paged is None:
        return sheet.absent(workload, named(PAGING, roles, sheet.planned_arms.get(workload, ())))
    if reserving is None:
        return sheet.absent(workload, named(BATCHING, roles, sheet.planned_arms.get(workload, ())))
    least = f"{SATURATED_TIME:.0%}"
    if not all(run.time_waiting() >= SATURATED_TIME for run in runs[reserving]):
        return Message("nothing-queued", {"arm": reserving, "time": least})
    if not all(time_full(run) >= SATURATED_TIME for run in runs[paged]):
        return Message("pool-not-full", {"share": f"{SATURATED_FULL:.0%}", "time": least})
    return None


def _noise(sheet: Sheet, common: _Compared, runs: Runs) -> None:
    """Paging over contiguous admission on requests that never queued: both run the same schedule, so it is noise."""
    arms = [arm for role in (PAGING, BATCHING) if (arm := common.arm(role)) in runs]
    views = [run.of(common_part(runs)) for arm in arms if arm for run in runs[arm]]
    if len(arms) == 2 and all(view and view.time_waiting() == 0 for view in views):
        formula = common.formula("noise", PAGING, BATCHING)
        sheet.ratio(f"{common.workload}.noise", common.of(PAGING), common.of(BATCHING), formula)


def _outputs(sheet: Sheet, workload: str, runs: Runs) -> None:
    """`agreement` and `prefix_match` of each arm's output tokens with those of the first arm's first repeat."""
    arms = [arm for arm, repeats in runs.items() if repeats]
    if len(arms) < 2:
        return
    reference = {out.id: out for out in runs[arms[0]][0].outputs}
    for name, of in (("agreement", equal_share), ("prefix_match", _prefix_share)):
        for arm in arms:
            sheet.arm(
                f"{workload}.{arm}",
                name,
                runs[arm],
                lambda run, of=of: of(run.outputs, reference),  # type: ignore[misc]
                ("outputs.jsonl",),
                formula=Message(name, {"arm": arms[0]}),
            )


def _common(outputs: Sequence[Output], reference: Mapping[int, Output]) -> list[tuple[list[int], list[int]]]:
    return [(out.token_ids, reference[out.id].token_ids) for out in outputs if out.id in reference]


def equal_share(outputs: Sequence[Output], reference: Mapping[int, Output]) -> float | None:
    """Part of the requests whose tokens equal the reference's; None where they have none in common."""
    pairs = _common(outputs, reference)
    return sum(a == b for a, b in pairs) / len(pairs) if pairs else None


def _prefix_share(outputs: Sequence[Output], reference: Mapping[int, Output]) -> float | None:
    shares = [agreeing(a, b) / max(len(a), len(b)) for a, b in _common(outputs, reference) if a or b]
    return sum(shares) / len(shares) if shares else None


def agreeing(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two outputs have in common from the start."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
