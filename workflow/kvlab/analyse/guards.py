"""The guards of a fair comparison: what must hold before a difference between arms means anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kvlab.analyse.ladder import agreeing, equal_share, paging_undecided
from kvlab.analyse.sheet import Sheet
from kvlab.analyse.statistics import BUSY, SPREAD
from kvlab.analyse.steps import busy, step_spread
from kvlab.errors import LogError
from kvlab.messages import Message, Said, several
from kvlab.raw import RawRun
from kvlab.records import Output, Sample
from kvlab.roles import Roles

THERMAL_OR_POWER = 0x8 | 0x20 | 0x40 | 0x80  # NVML: HW slowdown, SW thermal, HW thermal, HW power brake
LEAST = 0.99  # of the budget: what a pool of whole blocks may lack
ENGINE = (
    "max_num_seqs",
    "max_num_batched_tokens",
    "block_size",
    "cuda_graphs",
    "cuda_graph_sizes",
    "async_scheduling",
    "chunked_prefill",
    "compilation",
    "attention",
    "load_format",
    "scheduler",
)
Guard = dict[str, Any]


def run_faults(run: RawRun) -> list[Said]:
    """What makes a completed run's numbers wrong; empty where nothing does."""
    if not run.steps:
        return [Message("no-steps")]
    faults: list[Said] = []
    try:
        run.accounting  # noqa: B018 - computing it checks every identity at every step
    except LogError as error:
        faults.append(error.why)
    # A cell of an open loop ends at its time limit, with requests unfinished; so does a run stopped at its budget.
    whole = run.run.rate is None and run.run.stopped is None
    if whole and (unfinished := [one.id for one in run.served if one.finish_s is None]):
        faults.append(Message("unfinished", {"ids": str(unfinished)}))
    if cached := sum(one.cached_tokens for one in run.served):
        faults.append(Message("prefix-cache", {"n": cached}))
    made = {out.id: len(out.token_ids) for out in run.outputs}
    if wrong := [one.id for one in run.served if made.get(one.id) != one.output_tokens]:
        faults.append(Message("counts-disagree", {"ids": str(wrong)}))
    return faults


def run_disturbances(run: RawRun) -> list[Said]:
    """What makes a run's numbers doubtful: other processes on the GPU, throttling."""
    inside = run_samples(run)
    found: list[Said] = []
    if any(sample.other_processes for sample in inside):
        found.append(Message("other-processes"))
    if any((sample.throttle or 0) & THERMAL_OR_POWER for sample in inside):
        found.append(Message("throttled"))
    return found


def run_samples(run: RawRun) -> list[Sample]:
    """The samples of the device in the measured window."""
    start, end = run.window
    return [sample for sample in run.samples if start <= sample.t_s <= end]


def host_bound(run: RawRun) -> bool | None:
    """Whether the host, not the GPU, limits the run's speed. None where no GPU was sampled.

    It does where the GPU was busy for less than 90 % of the window, or where decode steps with as many rows took very
    different times.
    """
    share, spread = busy(run), step_spread(run)
    if share is None or run.run.device == "cpu":
        return None
    return share < BUSY or (spread is not None and spread > SPREAD)


def check_workload(
    sheet: Sheet, workload: str, runs: Mapping[str, Sequence[RawRun]], roles: Roles, slots: int | None
) -> list[Guard]:
    """Each guard's outcome: pass, fail or not decided, with what was seen. `slots`: the budget asked for."""
    flat = [run for arm in runs.values() for run in arm]
    guards = [
        _same_requests(flat),
        _same_counts(flat),
        _prefix_cache(flat),
        _budget(flat, slots),
        _same_engine(flat),
        _never_preempts(flat),
        *_upstream(flat),
        _outputs(runs),
        _undisturbed(flat),
        _gpu_bound(flat),
        _pressure(sheet, workload, runs, roles),
    ]
    return [{"workload": workload} | guard for guard in guards]


def check_open(workload: str, runs: Sequence[RawRun], slots: int | None) -> list[Guard]:
    """The same of requests that arrive over time, as far as they can be held to it: cells serve what arrives at their
    rate, to where their time ends, and at a low rate a GPU has nothing to do."""
    guards = [
        _same_requests(runs),
        _prefix_cache(runs),
        _budget(runs, slots),
        _same_engine(runs),
        _never_preempts(runs),
        _undisturbed(runs),
    ]
    return [{"workload": workload} | guard for guard in guards]


def _guard(name: str, outcome: bool | None, detail: Said) -> Guard:
    return {"id": name, "outcome": {True: "pass", False: "fail", None: "not decided"}[outcome], "detail": detail}


def _same_requests(runs: Sequence[RawRun]) -> Guard:
    digests = {run.run.workload_sha256 for run in runs}
    models = {run.run.model_fingerprint for run in runs}
    dtypes = {run.run.dtype for run in runs}
    same = len(digests) == len(models) == len(dtypes) == 1 if runs else None
    seen = {"sets": len(digests), "models": len(models), "dtypes": len(dtypes), "runs": len(runs)}
    return _guard("same-work", same, Message("same-work", seen))


def _same_counts(runs: Sequence[RawRun]) -> Guard:
    counts: dict[int, set[int]] = {}
    for run in runs:
        for one in run.served:
            counts.setdefault(one.id, set()).add(one.output_tokens)
    unequal = sorted(key for key, values in counts.items() if len(values) > 1)
    detail = Message("counts-differ", {"ids": str(unequal)}) if unequal else Message("counts-equal", {"n": len(counts)})
    return _guard("same-token-counts", not unequal if counts else None, detail)


def _prefix_cache(runs: Sequence[RawRun]) -> Guard:
    cached = sum(one.cached_tokens for run in runs for one in run.all_served)
    return _guard("no-prefix-cache", cached == 0 if runs else None, Message("prefix-cache", {"n": cached}))


def _budget(runs: Sequence[RawRun], slots: int | None) -> Guard:
    """No pool is larger than the budget, and a batch arm's not smaller: a sequential arm needs one cache only."""
    over = sorted({run.name for run in runs if slots and run.run.pool_slots > slots})
    under = sorted({run.name for run in runs if slots and _takes_all(run) and run.run.pool_slots < LEAST * slots})
    pools = sorted({f"{run.run.arm} {run.run.pool_slots}" for run in runs})
    detail = Message("budget", {"slots": slots or 0, "pools": ", ".join(pools)})
    if over or under:
        key = "budget-over" if over else "budget-under"
        detail = Message(key, {"names": ", ".join(over or under), "slots": slots or 0})
    return _guard("equal-budget", not over and not under if runs else None, detail)


def _same_engine(runs: Sequence[RawRun]) -> Guard:
    """All of vLLM's batches share one engine configuration: who may be admitted is all that differs."""
    seen: dict[str, set[str]] = {name: set() for name in ENGINE}
    batches = [run for run in runs if _takes_all(run) and not run.run.settings["arm"].get("options", {}).get("eager")]
    for run in batches:
        in_use = {"max_num_seqs": run.run.max_num_seqs, "block_size": run.run.block_size} | run.run.engine
        for name in ENGINE:
            seen[name].add(str(in_use.get(name)))
    if len({run.run.arm for run in batches}) < 2:
        return _guard("same-engine", None, Message("one-arm"))
    differ = [f"{name} {', '.join(sorted(values))}" for name, values in seen.items() if len(values) > 1]
    if differ:
        return _guard("same-engine", False, Message("engines-differ", {"what": "; ".join(differ)}))
    return _guard("same-engine", True, Message("engines-equal", {"n": len(batches)}))


def _never_preempts(runs: Sequence[RawRun]) -> Guard:
    """A policy that reserves what a request may need never has to preempt one."""
    reserving = [run for run in runs if run.run.policy not in (None, "paged") or run.run.reserve_slots]
    broke = sorted({run.name for run in reserving if run.accounting.preempted.any()})
    if not reserving:
        return _guard("reserving-never-preempts", None, Message("none-reserves"))
    detail = Message("preempted-anyway", {"names": ", ".join(broke)}) if broke else Message("never-preempted")
    return _guard("reserving-never-preempts", not broke, detail)


def _upstream(runs: Sequence[RawRun]) -> list[Guard]:
    """transformers' continuous batching is a baseline as its authors benchmark it: FlashAttention, blocks of 256 tokens
    (generation/configuration_utils.py, ContinuousBatchingConfig, 5.x). Configured otherwise it would be a weak
    baseline."""
    mine = [r.run for r in runs if r.run.settings.get("arm", {}).get("options", {}).get("cache") == "paged"]
    if not mine:
        return []
    seen = sorted({(str(run.engine.get("attention")), run.block_size) for run in mine})
    sound = all("flash" in str(run.engine.get("attention")).lower() and run.block_size == 256 for run in mine)
    key = "as-upstream" if sound else "not-as-upstream"
    what = several([Message("attention-and-blocks", {"attention": kernel, "block": block}) for kernel, block in seen])
    return [_guard("as-upstream", sound, Message(key, {"what": what}))]


def _takes_all(run: RawRun) -> bool:
    """Whether the arm is to have the whole budget: vLLM's batches. Padded rows of the maximum length leave a rest."""
    return run.run.engine.get("name") == "vllm" and run.run.settings.get("arm", {}).get("feed") == "batch"


def _undisturbed(runs: Sequence[RawRun]) -> Guard:
    seen = [Message("of-run", {"run": run.name, "what": what}) for run in runs for what in run_disturbances(run)]
    if seen:
        return _guard("undisturbed", False, several(seen))
    watched = [any(s.other_processes is not None or s.throttle is not None for s in run_samples(run)) for run in runs]
    if not watched or not all(watched):
        return _guard(
            "undisturbed", None, Message("not-watched", {"n": len(watched) - sum(watched), "runs": len(runs)})
        )
    return _guard("undisturbed", True, Message("undisturbed"))


def _gpu_bound(runs: Sequence[RawRun]) -> Guard:
    judged = {run.name: host_bound(run) for run in runs}
    bound = sorted(name for name, found in judged.items() if found)
    if bound:
        return _guard("gpu-bound", False, Message("host-bound", {"names": ", ".join(bound)}))
    if not judged or None in judged.values():
        return _guard("gpu-bound", None, Message("no-gpu-samples"))
    return _guard("gpu-bound", True, Message("gpu-bound", {"busy": f"{BUSY:.0%}"}))


def _pressure(sheet: Sheet, workload: str, runs: Mapping[str, Sequence[RawRun]], roles: Roles) -> Guard:
    why = paging_undecided(sheet, workload, runs, roles)
    return _guard("pool-pressure", None if why else True, why or Message("pressure"))


def _outputs(runs: Mapping[str, Sequence[RawRun]]) -> Guard:
    """Exact equality is a gate in float32; in shorter types near ties flip, so agreement is reported."""
    arms = [arm for arm, repeats in runs.items() if repeats]
    if len(arms) < 2:
        return _guard("same-outputs", None, Message("one-arm"))
    first = runs[arms[0]][0]
    reference = {out.id: out for out in first.outputs}
    if all(equal_share(run.outputs, reference) == 1.0 for arm in arms for run in runs[arm]):
        return _guard("same-outputs", True, Message("outputs-equal"))
    seen = {"dtype": first.run.dtype, "where": _first_difference(runs, reference)}
    if first.run.dtype == "float32":
        return _guard("same-outputs", False, Message("outputs-differ", seen))
    return _guard("same-outputs", None, Message("outputs-flip", seen))


def _first_difference(runs: Mapping[str, Sequence[RawRun]], reference: Mapping[int, Output]) -> Said:
    for repeats in runs.values():
        for run in repeats:
            for out in run.outputs:
                expected = reference.get(out.id)
                if expected and out.token_ids != expected.token_ids:
                    where = agreeing(out.token_ids, expected.token_ids)
                    return Message("parts-at", {"run": run.name, "id": out.id, "at": where})
    return Message("nothing-common")
