"""Every id that a quantity may have, declared once: a pattern with its parts, and its unit.

An id is `<workload>.<arm>.<name>` or, across arms, `<workload>.<name>`; an open loop's arm is `<arm>@<rate>`.
Its name in each language is in the strings under `names.<name>`, its formula under `said.<name>`. Asking for an id
that nothing here declares is an error: it is misspelt. An id that is declared and that a run lacks is "not recorded".
"""

from __future__ import annotations

import re
from functools import cache

from kvlab.errors import KvlabError


class UndeclaredId(KvlabError):
    """An id that no run can have."""


PARTS = {
    "share": ("tokens", "reserved", "internal", "external"),
    "policy": ("orca-max", "orca-pow2", "orca-oracle", "reserved", "paged"),
    "phase": ("load", "compile", "warmup"),
    "statistic": ("median", "p95", "p99"),
    "parts": (
        "engine",
        "batching",
        "paging",
        "engine-and-batching",
        "batching-and-paging",
        "engine-and-batching-and-paging",
    ),
    "length": ("prompt", "output"),
    "most": ("mean", "max"),
    "layer": ("kv.tokens", "kv.held", "kv.free", "working", "unexplained", "free"),
}
ARM = r"[a-z0-9][a-z0-9-]*(?:@[0-9.e+-]+)?"

OF_AN_ARM = {
    "share.{share}": "share",
    "queued.share.{share}": "share",
    "queued.running.mean": "requests",
    "queued.span": "s",
    "queued.throughput": "tokens/s",
    "efficiency": "share",
    "waste": "share",
    "slots.mean": "slots",
    "slots.peak": "slots",
    "held.mean": "slots",
    "held.peak": "slots",
    "tokens.peak": "tokens",
    "running.mean": "requests",
    "running.max": "requests",
    "waiting.max": "requests",
    "waiting.time": "share",
    "padding.rows": "requests",
    "padding.share": "share",
    "preemptions": "count",
    "preempted.requests": "requests",
    "recomputed.tokens": "tokens",
    "recomputed.share": "share",
    "stall.max": "s",
    "steps": "count",
    "step.spread": "ratio",
    "pool.slots": "slots",
    "pool.bytes": "bytes",
    "slot.bytes": "bytes",
    "weights.bytes": "bytes",
    "torch.allocated.peak": "bytes",
    "torch.reserved.peak": "bytes",
    "kv.peak": "bytes",
    "kv.per_request": "bytes",
    "device.idle": "bytes",
    "device.total": "bytes",
    "device.peak": "bytes",
    "device.rise": "bytes",
    "device.busy": "share",
    "energy.per_token": "J",
    "throughput": "tokens/s",
    "cut.throughput": "tokens/s",
    "halves": "ratio",
    "request_rate": "requests/s",
    "span": "s",
    "requests": "requests",
    "output_tokens": "tokens",
    "latency.{statistic}": "s",
    "ttft.{statistic}": "ms",
    "tpot.{statistic}": "ms",
    "phase.{phase}": "s",
    "sampler.interval": "ms",
    "sampler.gap.max": "ms",
    "agreement": "share",
    "prefix_match": "share",
    "speedup": "ratio",
    "served-again.agreement": "share",
    "served-again.together": "ratio",
    "served-again.{policy}.{share}": "share",
    "served-again.{policy}.running": "requests",
    "normalized": "ms/token",
    "normalized.bound": "share",
    "goodput": "requests/s",
    "lateness.p95": "ms",
    "sustained": "requests/s",
    "identity": "tokens/s",
    "gpu.{layer}": "bytes",
}
ACROSS_ARMS = {
    "speedup": "ratio",
    "factor.{parts}": "ratio",
    "factor.cuda-graphs": "ratio",
    "queued.speedup": "ratio",
    "queued.factor.{parts}": "ratio",
    "queued.paging.running.mean": "ratio",
    "queued.paging.share.tokens": "ratio",
    "paging.gain": "ratio",
    "paging.tpot": "ratio",
    "paging.ttft": "ratio",
    "paging.share.tokens": "ratio",
    "paging.running.mean": "ratio",
    "noise": "ratio",
    "efficiency.ratio": "ratio",
    "efficiency.points": "points",
    "workload.{length}.{most}": "tokens",
}
# Of one arm against paging, the arm's name at the end; then ids of simulations and predictions, which their stages
# declare.
AGAINST_AN_ARM = {"paging.gain": "ratio", "sustained": "ratio"}
ELSEWHERE = re.compile(
    rf"(?:simulated|plan)\..+|[a-z0-9][a-z0-9-]*\.(?:{ARM}\.)?(?:predicted|unused|off|spread|calibration)\..+"
)


@cache
def _patterns() -> list[tuple[re.Pattern[str], str, str]]:
    made = []
    # An id across arms may look like an arm's (paging.share.tokens), so these come first.
    for declared, before, after in (
        (ACROSS_ARMS, "", ""),
        (AGAINST_AN_ARM, "", rf"\.{ARM}"),
        (OF_AN_ARM, rf"{ARM}\.", ""),
    ):
        for pattern, unit in declared.items():
            pieces = re.split(r"\{(\w+)\}", pattern)
            middle = "".join(
                "(?:" + "|".join(map(re.escape, PARTS[piece])) + ")" if at % 2 else re.escape(piece)
                for at, piece in enumerate(pieces)
            )
            made.append((re.compile(rf"[a-z0-9][a-z0-9-]*\.{before}{middle}{after}"), pattern, unit))
    return made


@cache
def unit_of(key: str) -> str | None:
    """The unit that the id's declaration gives; None where it is declared elsewhere. UndeclaredId where nowhere."""
    for pattern, _, unit in _patterns():
        if pattern.fullmatch(key):
            return unit
    if ELSEWHERE.fullmatch(key):
        return None
    raise UndeclaredId(f"{key!r}: no quantity has such an id; workflow/kvlab/catalogue.py declares them all")


def known(key: str) -> None:
    """Raises UndeclaredId where no run can have a quantity of this id."""
    unit_of(key)


def names() -> list[str]:
    """Every declared name with its parts filled in: what the strings must have a name for."""
    found: list[str] = []
    for pattern in (*OF_AN_ARM, *ACROSS_ARMS, *AGAINST_AN_ARM):
        filled = [pattern]
        for part, values in PARTS.items():
            if f"{{{part}}}" in pattern:
                filled = [one.replace(f"{{{part}}}", value) for one in filled for value in values]
        found += filled
    return list(dict.fromkeys(found))
