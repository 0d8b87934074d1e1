"""The guards of a fair comparison: what must hold before a difference between arms means anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kvlab.analyse.ladder import paging_undecided
from kvlab.analyse.sheet import Sheet
from kvlab.errors import LogError
from kvlab.raw import RawRun
from kvlab.records import Output

THERMAL_OR_POWER = 0x8 | 0x20 | 0x40 | 0x80  # NVML: HW slowdown, SW thermal, HW thermal, HW power brake
Guard = dict[str, Any]


def run_faults(run: RawRun) -> list[str]:
    """What makes a completed run's numbers wrong; empty where nothing does."""
    if not run.steps:
        return ["no step was recorded"]
    faults = []
    try:
        run.accounting  # noqa: B018 - computing it checks every identity at every step
    except LogError as error:
        faults.append(str(error))
    if unfinished := [one.id for one in run.served if one.finish_s is None]:
        faults.append(f"requests {unfinished} never finished")
    if cached := sum(one.cached_tokens for one in run.served):
        faults.append(f"the prefix cache answered {cached} prompt tokens")
    made = {out.id: len(out.token_ids) for out in run.outputs}
    if wrong := [one.id for one in run.served if made.get(one.id) != one.output_tokens]:
        faults.append(f"requests {wrong}: outputs.jsonl and requests.jsonl disagree on the number of tokens")
    return faults


def run_disturbances(run: RawRun) -> list[str]:
    """What makes a run's numbers doubtful: other processes on the GPU, throttling."""
    start, end = run.window
    inside = [sample for sample in run.samples if start <= sample.t_s <= end]
    found = []
    if any(sample.other_processes for sample in inside):
        found.append("other processes used the GPU")
    if any((sample.throttle or 0) & THERMAL_OR_POWER for sample in inside):
        found.append("the GPU slowed down for heat or power")
    return found


def check_workload(sheet: Sheet, workload: str, runs: Mapping[str, Sequence[RawRun]], slots: int | None) -> list[Guard]:
    """Each guard's outcome: pass, fail or not decided, with what was seen. `slots`: the budget asked for."""
    flat = [run for arm in runs.values() for run in arm]
    guards = [
        _same_requests(flat),
        _same_counts(flat),
        _prefix_cache(flat),
        _budget(flat, slots),
        _outputs(sheet, workload, runs),
        _undisturbed(flat),
        _pressure(runs),
    ]
    return [{"workload": workload} | guard for guard in guards]


def _guard(name: str, outcome: bool | None, detail: str) -> Guard:
    return {"id": name, "outcome": {True: "pass", False: "fail", None: "not decided"}[outcome], "detail": detail}


def _same_requests(runs: Sequence[RawRun]) -> Guard:
    digests = {run.run.workload_sha256 for run in runs}
    models = {run.run.model_fingerprint for run in runs}
    dtypes = {run.run.dtype for run in runs}
    same = len(digests) == len(models) == len(dtypes) == 1 if runs else None
    return _guard(
        "same-work",
        same,
        f"{len(digests)} set(s) of token ids, {len(models)} model(s), {len(dtypes)} dtype(s) in {len(runs)} runs",
    )


def _same_counts(runs: Sequence[RawRun]) -> Guard:
    counts: dict[int, set[int]] = {}
    for run in runs:
        for one in run.served:
            counts.setdefault(one.id, set()).add(one.output_tokens)
    unequal = sorted(key for key, values in counts.items() if len(values) > 1)
    detail = f"requests {unequal} differ between arms" if unequal else f"{len(counts)} requests, equal in all arms"
    return _guard("same-token-counts", not unequal if counts else None, detail)


def _prefix_cache(runs: Sequence[RawRun]) -> Guard:
    cached = sum(one.cached_tokens for run in runs for one in run.all_served)
    return _guard("no-prefix-cache", cached == 0 if runs else None, f"{cached} prompt tokens came from a prefix cache")


def _budget(runs: Sequence[RawRun], slots: int | None) -> Guard:
    """A pool may be smaller than the budget (a sequential arm needs one cache), never larger."""
    over = [run.name for run in runs if slots and run.run.pool_slots > slots]
    pools = {f"{run.run.arm} {run.run.pool_slots}" for run in runs}
    detail = (
        f"{', '.join(over)} got more than {slots} slots" if over else f"asked {slots}; got {', '.join(sorted(pools))}"
    )
    return _guard("equal-budget", not over if runs else None, detail)


def _undisturbed(runs: Sequence[RawRun]) -> Guard:
    seen = {f"{run.name}: {what}" for run in runs for what in run_disturbances(run)}
    return _guard(
        "undisturbed", not seen if runs else None, "; ".join(sorted(seen)) or "no other process, no throttling seen"
    )


def _pressure(runs: Mapping[str, Sequence[RawRun]]) -> Guard:
    why = paging_undecided(runs)
    return _guard("pool-pressure", None if why else True, why or "the pool filled and requests waited")


def _outputs(sheet: Sheet, workload: str, runs: Mapping[str, Sequence[RawRun]]) -> Guard:
    """Exact equality is a gate in float32; in shorter types near ties flip, so agreement is reported."""
    arms = [arm for arm, repeats in runs.items() if repeats]
    if len(arms) < 2:
        return _guard("same-outputs", None, "fewer than two arms to compare")
    reference = {out.id: out for out in runs[arms[0]][0].outputs}
    for arm in arms:
        for name, of, formula in (
            ("agreement", _equal_share, "requests whose output tokens all equal those of"),
            ("prefix_match", _prefix_share, "mean part of the output tokens before the first that differs from"),
        ):
            sheet.arm(
                f"{workload}.{arm}.{name}",
                "share",
                runs[arm],
                lambda run, of=of: of(run.outputs, reference),  # type: ignore[misc]
                f"{formula} {arms[0]}, first repeat",
                ("outputs.jsonl",),
            )
    exact = all(_equal_share(run.outputs, reference) == 1.0 for arm in arms for run in runs[arm])
    dtype = runs[arms[0]][0].run.dtype
    if dtype == "float32":
        detail = "all output tokens equal" if exact else f"not equal: {_first_difference(runs, reference)}"
        return _guard("same-outputs", exact, detail)
    detail = "all output tokens equal" if exact else f"in {dtype} near ties flip: {_first_difference(runs, reference)}"
    return _guard("same-outputs", True if exact else None, detail)


def _common(outputs: Sequence[Output], reference: Mapping[int, Output]) -> list[tuple[list[int], list[int]]]:
    return [(out.token_ids, reference[out.id].token_ids) for out in outputs if out.id in reference]


def _equal_share(outputs: Sequence[Output], reference: Mapping[int, Output]) -> float | None:
    pairs = _common(outputs, reference)
    return sum(a == b for a, b in pairs) / len(pairs) if pairs else None


def _prefix_share(outputs: Sequence[Output], reference: Mapping[int, Output]) -> float | None:
    shares = [_agree(a, b) / max(len(a), len(b)) for a, b in _common(outputs, reference) if a or b]
    return sum(shares) / len(shares) if shares else None


def _agree(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _first_difference(runs: Mapping[str, Sequence[RawRun]], reference: Mapping[int, Output]) -> str:
    for repeats in runs.values():
        for run in repeats:
            for out in run.outputs:
                expected = reference.get(out.id)
                if expected and out.token_ids != expected.token_ids:
                    where = _agree(out.token_ids, expected.token_ids)
                    return f"{run.name} request {out.id} parts at output token {where}"
    return "nothing"
