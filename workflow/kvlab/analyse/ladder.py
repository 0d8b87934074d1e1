"""What stands across arms: the headlines, and the speedup divided into factors that multiply to the whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kvlab.analyse.sheet import Sheet
from kvlab.analyse.statistics import SATURATED_FULL, SATURATED_TIME
from kvlab.quantities import Quantity
from kvlab.raw import RawRun

BASELINE, PAGED, CONTIGUOUS, EAGER = "hf-sequential-static", "vllm-paged", "vllm-contiguous", "vllm-paged-eager"
# The rungs from the baseline to paging; a factor is named by what the upper arm adds to the rung below it.
RUNGS = (BASELINE, "vllm-sequential", CONTIGUOUS, PAGED)
ADDS = {"vllm-sequential": "engine", CONTIGUOUS: "batching", PAGED: "paging"}

Runs = Mapping[str, Sequence[RawRun]]


def common_part(runs: Runs) -> str:
    """The part of the workload that every arm served: "cut" where sequential arms were cut short, else "all"."""
    cut = any("cut" in run.run.parts for arm in runs.values() for run in arm)
    return "cut" if cut else "all"


def compare_arms(sheet: Sheet, workload: str, runs: Runs) -> None:
    """Put the quantities `<workload>.<name>` across arms on the sheet. `runs`: each arm's repeats that count."""
    common = _throughputs(sheet, workload, runs, common_part(runs))
    _speedups(sheet, workload, common)
    _factors(sheet, workload, common)
    _memory(sheet, workload, runs)
    _paging(sheet, workload, runs)


def _throughputs(sheet: Sheet, workload: str, runs: Runs, part: str) -> dict[str, Quantity]:
    """Throughput of each arm over the requests that all arms served."""
    found = {}
    for arm, repeats in runs.items():
        mine = [view for run in repeats if (view := run.of(part))]
        key = f"{workload}.{arm}"
        if mine and mine[0].part == repeats[0].part:
            found[arm] = sheet.quantities[f"{key}.throughput"]
        elif mine:
            found[arm] = sheet.arm(
                f"{key}.cut.throughput",
                "tokens/s",
                mine,
                lambda r: r.throughput,
                "output tokens / seconds from the first arrival to the last token, of the requests all arms served",
                ("requests.jsonl",),
            )
    return found


def _speedups(sheet: Sheet, workload: str, common: Mapping[str, Quantity]) -> None:
    base = common.get(BASELINE)
    for arm, throughput in common.items():
        if arm != BASELINE:
            sheet.ratio(
                f"{workload}.{arm}.speedup",
                throughput,
                base,
                f"throughput of {arm} / throughput of {BASELINE}, same requests",
            )
    sheet.ratio(
        f"{workload}.speedup",
        common.get(PAGED),
        base,
        f"throughput of {PAGED} / throughput of {BASELINE}, same requests",
    )


def _factors(sheet: Sheet, workload: str, common: Mapping[str, Quantity]) -> None:
    rungs = [arm for arm in RUNGS if arm in common]
    skipped: list[str] = []
    for arm in RUNGS[1:]:
        skipped.append(ADDS[arm])
        if arm not in common:
            continue
        position = rungs.index(arm)
        if position == 0:
            break
        below = rungs[position - 1]
        sheet.ratio(
            f"{workload}.factor.{'-and-'.join(skipped)}",
            common[arm],
            common[below],
            f"throughput of {arm} / throughput of {below}, same requests",
        )
        skipped = []
    if EAGER in common:
        sheet.ratio(
            f"{workload}.factor.cuda-graphs",
            common.get(PAGED),
            common[EAGER],
            f"throughput of {PAGED} / throughput of {EAGER}, same requests; beside the ladder, not a rung of it",
        )


def _memory(sheet: Sheet, workload: str, runs: Runs) -> None:
    quantities = sheet.quantities
    paged, base = quantities.get(f"{workload}.{PAGED}.efficiency"), quantities.get(f"{workload}.{BASELINE}.efficiency")
    text = f"memory efficiency of {PAGED} / memory efficiency of {BASELINE}"
    sheet.ratio(f"{workload}.efficiency.ratio", paged, base, text)
    sheet.ratio(f"{workload}.efficiency.gain", paged, base, f"{text} - 1", unit="change")
    for name, what in (
        ("share.tokens", "token states as a share of the pool"),
        ("running.mean", "requests that hold KV cache together"),
    ):
        top, bottom = quantities.get(f"{workload}.{PAGED}.{name}"), quantities.get(f"{workload}.{CONTIGUOUS}.{name}")
        if top or bottom:
            sheet.ratio(
                f"{workload}.paging.{name}",
                top,
                bottom,
                f"{what}: {PAGED} / {CONTIGUOUS}, which is charged the maximum length a request, same pool",
            )


def _paging(sheet: Sheet, workload: str, runs: Runs) -> None:
    """What paging itself gives, or why this run can't tell."""
    key, formula = f"{workload}.paging.gain", f"throughput of {PAGED} / throughput of {CONTIGUOUS}, all requests"
    why = paging_undecided(runs)
    if why:
        sources = [run.source("steps.jsonl") for arm in (PAGED, CONTIGUOUS) for run in runs.get(arm, ())]
        sheet.undecided(key, "ratio", formula, why, sources)
        return
    top, bottom = (sheet.quantities.get(f"{workload}.{arm}.throughput") for arm in (PAGED, CONTIGUOUS))
    sheet.ratio(key, top, bottom, formula)


def paging_undecided(runs: Runs) -> str | None:
    """Why no claim about paging can be made; None where one can.

    Paging decides how many requests a full pool holds. Where the pool never filled, or nobody waited for room, the
    two admit the same requests and any difference is something else.
    """
    for arm in (PAGED, CONTIGUOUS):
        if not runs.get(arm):
            return f"{arm} was not run on this workload"
    if not any(run.time_waiting() >= SATURATED_TIME for run in runs[CONTIGUOUS]):
        return (
            f"under contiguous admission requests waited in less than {SATURATED_TIME:.0%} of the time: nothing queued"
        )
    if not any(run.accounting.peak("allocated") >= SATURATED_FULL * run.accounting.pool for run in runs[PAGED]):
        return f"the paged pool was never filled to {SATURATED_FULL:.0%}: room was not what limited it"
    return None
