"""What stands across arms: the headlines, and the speedup divided into factors that multiply to the whole.

An arm is asked for by its role. The ladder is climbed twice: on the requests that every arm served, and with the queue
full, where a batch arm serves all requests and a sequential one stands by what it served (`halves` shows that its
throughput hardly depends on how many).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kvlab.analyse.sheet import Sheet
from kvlab.analyse.statistics import SATURATED_FULL, SATURATED_TIME
from kvlab.analyse.steps import time_full
from kvlab.quantities import Message, Quantity
from kvlab.raw import RawRun

BASELINE, PAGED, CONTIGUOUS, EAGER = "hf-sequential-static", "vllm-paged", "vllm-contiguous", "vllm-paged-eager"
# The rungs from the baseline to paging; a factor is named by what the upper arm adds to the rung below it.
RUNGS = (BASELINE, "vllm-sequential", CONTIGUOUS, PAGED)
ADDS = {"vllm-sequential": "engine", CONTIGUOUS: "batching", PAGED: "paging"}
RESERVING = ("vllm-pow2", "vllm-oracle", "vllm-reserved")

Runs = Mapping[str, Sequence[RawRun]]


def common_part(runs: Runs) -> str:
    """The part of the workload that every arm served: "cut" where sequential arms were cut short, else "all"."""
    cut = any("cut" in run.run.parts for arm in runs.values() for run in arm)
    return "cut" if cut else "all"


def compare_arms(sheet: Sheet, workload: str, runs: Runs, timed: Runs) -> None:
    """Put the quantities `<workload>.<name>` across arms on the sheet. `runs`: each arm's repeats that count.

    `timed`: with those that were stopped at their time budget, whose times are bounds.
    """
    common = _throughputs(sheet, workload, timed, common_part(timed))
    full = {arm: sheet.quantities[f"{workload}.{arm}.throughput"] for arm in timed}
    _speedups(sheet, workload, common)
    _factors(sheet, workload, common, "")
    _factors(sheet, workload, full, "queued.")
    _graphs(sheet, workload, common)
    _memory(sheet, workload, runs)
    _paging(sheet, workload, runs, timed)
    _noise(sheet, workload, runs, common)


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


def _of(what: str, top: str, bottom: str) -> Message:
    return Message(what, {"top": top, "bottom": bottom})


def _speedups(sheet: Sheet, workload: str, common: Mapping[str, Quantity]) -> None:
    base = common.get(BASELINE)
    for arm, throughput in common.items():
        if arm != BASELINE:
            sheet.ratio(f"{workload}.{arm}.speedup", throughput, base, _of("throughput-ratio", arm, BASELINE))
    sheet.ratio(f"{workload}.speedup", common.get(PAGED), base, _of("throughput-ratio", PAGED, BASELINE))


def _factors(sheet: Sheet, workload: str, throughput: Mapping[str, Quantity], kind: str) -> None:
    """`<kind>factor.<parts>`, and with the queue full the whole that they multiply to. `kind`: "" or "queued."."""
    formula = "queued-throughput-ratio" if kind else "throughput-ratio"
    rungs = [arm for arm in RUNGS if arm in throughput]
    skipped: list[str] = []
    for arm in RUNGS[1:]:
        skipped.append(ADDS[arm])
        if arm not in throughput:
            continue
        position = rungs.index(arm)
        if position == 0:
            break
        below = rungs[position - 1]
        key = f"{workload}.{kind}factor.{'-and-'.join(skipped)}"
        sheet.ratio(key, throughput[arm], throughput[below], _of(formula, arm, below))
        skipped = []
    if kind and BASELINE in throughput and PAGED in throughput:
        sheet.ratio(f"{workload}.{kind}speedup", throughput[PAGED], throughput[BASELINE], _of(formula, PAGED, BASELINE))


def _graphs(sheet: Sheet, workload: str, common: Mapping[str, Quantity]) -> None:
    if EAGER in common:
        formula = _of("throughput-ratio-aside", PAGED, EAGER)
        sheet.ratio(f"{workload}.factor.cuda-graphs", common.get(PAGED), common[EAGER], formula)


def _memory(sheet: Sheet, workload: str, runs: Runs) -> None:
    def both(name: str) -> tuple[Quantity | None, Quantity | None]:
        found = sheet.quantities
        return found.get(f"{workload}.{PAGED}.{name}"), found.get(f"{workload}.{CONTIGUOUS}.{name}")

    paged = sheet.quantities.get(f"{workload}.{PAGED}.efficiency")
    base = sheet.quantities.get(f"{workload}.{BASELINE}.efficiency")
    sheet.ratio(f"{workload}.efficiency.ratio", paged, base, _of("efficiency-ratio", PAGED, BASELINE))
    sheet.difference(f"{workload}.efficiency.points", paged, base, _of("efficiency-points", PAGED, BASELINE))
    if PAGED not in runs and CONTIGUOUS not in runs:
        return
    for name in ("share.tokens", "running.mean"):
        sheet.ratio(f"{workload}.paging.{name}", *both(name), _of(f"paging.{name}", PAGED, CONTIGUOUS))
        sheet.ratio(
            f"{workload}.queued.paging.{name}", *both(f"queued.{name}"), _of(f"paging.{name}", PAGED, CONTIGUOUS)
        )
    for name in ("tpot", "ttft"):
        sheet.ratio(f"{workload}.paging.{name}", *both(f"{name}.median"), _of(f"paging.{name}", PAGED, CONTIGUOUS))


def _paging(sheet: Sheet, workload: str, runs: Runs, timed: Runs) -> None:
    """What paging itself gives against each policy that reserves, or why this run can't tell."""
    for arm in (CONTIGUOUS, *(arm for arm in RESERVING if arm in timed)):
        key = f"{workload}.paging.gain" + ("" if arm == CONTIGUOUS else f".{arm}")
        formula = _of("throughput-ratio-all", PAGED, arm)
        stopped = next((one for one in (PAGED, arm) if one in timed and one not in runs), None)
        why = Message("arm-stopped", {"arm": stopped}) if stopped else paging_undecided(sheet, workload, runs, arm)
        if why:
            sources = [run.source("steps.jsonl") for name in (PAGED, arm) for run in runs.get(name, ())]
            sheet.undecided(key, formula, why, sources)
            continue
        top, bottom = (sheet.quantities.get(f"{workload}.{name}.throughput") for name in (PAGED, arm))
        sheet.ratio(key, top, bottom, formula)


def paging_undecided(sheet: Sheet, workload: str, runs: Runs, against: str = CONTIGUOUS) -> Message | None:
    """Why no claim about paging can be made; None where one can.

    Paging decides how many requests a full pool holds. Where the pool was not full, or nobody waited for room, the two
    admit the same requests and any difference is something else. Every repeat must show it, and over a share of time:
    one step tells nothing.
    """
    for arm in (PAGED, against):
        if not runs.get(arm):
            return sheet.absent(workload, arm)
    least = f"{SATURATED_TIME:.0%}"
    if not all(run.time_waiting() >= SATURATED_TIME for run in runs[against]):
        return Message("nothing-queued", {"arm": against, "time": least})
    if not all(time_full(run) >= SATURATED_TIME for run in runs[PAGED]):
        return Message("pool-not-full", {"share": f"{SATURATED_FULL:.0%}", "time": least})
    return None


def _noise(sheet: Sheet, workload: str, runs: Runs, common: Mapping[str, Quantity]) -> None:
    """Paging over contiguous admission on requests that never queued: both run the same schedule, so it is noise."""
    views = [run.of(common_part(runs)) for arm in (PAGED, CONTIGUOUS) for run in runs.get(arm, ())]
    if PAGED in common and CONTIGUOUS in common and all(view and view.time_waiting() == 0 for view in views):
        formula = _of("noise", PAGED, CONTIGUOUS)
        sheet.ratio(f"{workload}.noise", common[PAGED], common[CONTIGUOUS], formula)
