"""The claims, judged on a run: `claims.json`, and the table that `kvlab claims` prints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from kvlab import terminal
from kvlab.catalogue import UndeclaredId, known
from kvlab.errors import KvlabError
from kvlab.paths import REPORT
from kvlab.publish.words.numbers import interval_text, text_of, value_text
from kvlab.publish.words.strings import LANGUAGES, said
from kvlab.quantities import Message, Metrics, Quantity, Said
from kvlab.records import write_json

CLAIMS = REPORT / "claims.yaml"
HELD, FAILED, NOT_HERE, UNDECIDED = "held", "failed", "not here", "not decided"
BOUNDS = ("beforehand", "seen")  # when a claim's bound was set: see report/claims.yaml
FEWEST = 3  # repeats that a comparison of a measured speed or memory needs


def judge(root: Path, file: Path = CLAIMS) -> list[dict[str, Any]]:
    """Each claim's verdict on the run in `root`: held, failed, or not decided with the reason."""
    metrics = Metrics.read(root / "metrics.json")
    if (predicted := root / "predicted" / "metrics.json").exists():
        for quantity in Metrics.read(predicted).quantities:
            metrics.quantities.add(quantity)
    verdicts = []
    for claim in _read(file):
        for workload, facts in metrics.facts["workloads"].items():
            if "guard" in claim:
                verdict = _by_guard(claim, workload, metrics)
            else:
                verdict = _by_number(claim, claim["quantity"].replace("*", workload), workload, facts, metrics)
            if verdict:
                verdicts.append(_entry(claim, workload) | verdict)
        for workload, facts in metrics.facts.get("open", {}).items():
            key = _busiest(claim["cell"].replace("*", workload, 1), facts["cells"]) if "cell" in claim else None
            if key and (verdict := _by_number(claim, key, workload, facts, metrics)):
                verdicts.append(_entry(claim, workload) | verdict)
    return verdicts


def _busiest(key: str, cells: list[str]) -> str | None:
    """`key`, with "@*" replaced by the highest rate of the arm's cells; None where the arm has no cell."""
    if "@*" not in key:
        return key
    arm = key.split(".")[1].removesuffix("@*")
    rates = [rate for name, _, rate in (cell.partition("@") for cell in cells) if name == arm]
    return key.replace("@*", f"@{max(rates, key=float)}") if rates else None


def write(root: Path) -> list[dict[str, Any]]:
    """Judge and write `claims.json`."""
    verdicts = judge(root)
    write_json(root / "claims.json", document(verdicts))
    return verdicts


def document(verdicts: list[dict[str, Any]]) -> dict[str, Any]:
    """What `claims.json` holds."""
    entries = [
        {name: asdict(value) if isinstance(value, Message) else value for name, value in verdict.items()}
        for verdict in verdicts
    ]
    return {"schema": 2, "claims": entries}


def show(verdicts: list[dict[str, Any]]) -> int:
    """Print the table; returns how many claims failed."""
    table = terminal.table("verdict", "claim", "workload", "seen", left=4)
    for v in verdicts:
        seen = said("en", v["seen"])
        if v.get("expected_text"):
            seen += f" (expected {said('en', v['expected_text'])})"
        table.add_row(v["verdict"], v["id"], v["workload"], seen)
    terminal.show(table)
    return sum(v["verdict"] == FAILED for v in verdicts)


def _read(file: Path) -> list[dict[str, Any]]:
    try:
        claims: list[dict[str, Any]] = yaml.safe_load(file.read_text(encoding="utf-8"))["claims"]
    except (OSError, KeyError, TypeError, yaml.YAMLError) as error:
        raise KvlabError(f"{file}: not a list of claims ({error})") from None
    for claim in claims:
        if claim.get("relation") not in RELATIONS:
            raise KvlabError(f"{file}: claim {claim.get('id')}: relation must be one of {', '.join(sorted(RELATIONS))}")
        if unknown := set(claim.get("needs", [])) - {"pressure", "gpu", "gpu-bound"}:
            raise KvlabError(f"{file}: claim {claim['id']}: needs {sorted(unknown)}; one of pressure, gpu, gpu-bound")
        if claim.get("bound") not in (None, *BOUNDS):
            raise KvlabError(f"{file}: claim {claim['id']}: bound {claim['bound']!r}; one of {', '.join(BOUNDS)}")
        for name in {"quantity", "cell"} & claim.keys():
            try:
                known(claim[name].replace("@*", "@1").replace("*", "w", 1))
            except UndeclaredId as error:
                raise UndeclaredId(f"{file}: claim {claim['id']}: {error}") from None
    return claims


def _entry(claim: dict[str, Any], workload: str) -> dict[str, Any]:
    entry = {key: claim[key] for key in ("id", "statement", "relation", "origin")} | {"workload": workload}
    return entry | ({"bound": claim["bound"]} if "bound" in claim else {})


def _by_guard(claim: dict[str, Any], workload: str, metrics: Metrics) -> dict[str, Any] | None:
    guard = _guard(metrics, workload, claim["guard"])
    if guard is None:
        return None
    verdict = {"pass": HELD, "fail": FAILED}.get(guard["outcome"], UNDECIDED)
    return {"verdict": verdict, "quantity": None, "seen": guard["detail"]}


def _by_number(
    claim: dict[str, Any], key: str, workload: str, facts: dict[str, Any], metrics: Metrics
) -> dict[str, Any] | None:
    quantity = metrics.quantities.get(key)
    if quantity is None or any(facts.get(name) != value for name, value in claim.get("only", {}).items()):
        return None
    expected, tolerance = claim["expected"], claim.get("tolerance")
    found: dict[str, Any] = {
        "quantity": quantity.id,
        "expected": expected,
        "tolerance": tolerance,
        "expected_text": _expected_text(claim, quantity),
    }
    why = _undecidable(claim, workload, metrics, quantity)
    if why:
        return found | {"verdict": UNDECIDED, "seen": why}
    held = RELATIONS[claim["relation"]](quantity, expected, tolerance)
    if quantity.bound and (quantity.bound, claim["relation"], held) not in DECIDED_BY_A_BOUND:
        bound = Message("claim.bound", {"value": _texts(lambda x: text_of(quantity, x))})
        return found | {"verdict": UNDECIDED, "seen": bound}
    values: dict[str, Any] = {"value": _texts(lambda x: text_of(quantity, x)), "n": quantity.n}
    if quantity.interval:
        values["interval"] = _texts(lambda x: interval_text(quantity, x))
    # What the original experiment announced depends on its requests: here it is reproduced, or it is not.
    failed = NOT_HERE if claim.get("depends") == "workload" else FAILED
    seen = Message("claim.seen-between" if quantity.interval else "claim.seen", values)
    return found | {"verdict": HELD if held else failed, "seen": seen}


def _guard(metrics: Metrics, workload: str, name: str) -> dict[str, Any] | None:
    return next((g for g in metrics.guards if g["workload"] == workload and g["id"] == name), None)


def _undecidable(claim: dict[str, Any], workload: str, metrics: Metrics, quantity: Quantity) -> Said | None:
    """Why the run can't decide the claim; None where it can."""
    if quantity.value is None:
        return quantity.why_none or Message("not-recorded")
    for need in claim.get("needs", []):
        guard = _guard(metrics, workload, "pool-pressure") if need == "pressure" else None
        if need == "gpu-bound":
            mine = [e for e in metrics.runs if e["workload"] == workload and f".{e['arm']}." in quantity.id]
            if any(entry["host_bound"] is not False for entry in mine):
                return Message("needs-gpu-bound")
        if need == "gpu" and not any(e["device"] == "cuda" for e in metrics.facts["engines"].values()):
            return Message("needs-gpu")
        if guard is not None and guard["outcome"] != "pass":
            detail: Said = guard["detail"]
            return detail
    if not claim.get("exact") and quantity.n < FEWEST:
        return Message("few-repeats", {"n": quantity.n})
    return None


def _texts(of: Callable[[str], Any]) -> dict[str, Any]:
    return {language: of(language) for language in LANGUAGES}


def _expected_text(claim: dict[str, Any], quantity: Quantity) -> Message:
    values = {"x": _texts(lambda x: value_text(claim["expected"], quantity.unit, x))}
    if claim["relation"] == "repeats-within":
        values["x"] = _texts(lambda x: value_text(claim["expected"], "share", x))
    if claim.get("tolerance") is not None:
        values["y"] = _texts(lambda x: value_text(claim["tolerance"], quantity.unit, x))
    return Message(f"expected.{claim['relation']}", values)


def _value(quantity: Quantity) -> float:
    assert quantity.value is not None
    return quantity.value


def _ends(quantity: Quantity) -> tuple[float, float]:
    if quantity.bound:
        return _value(quantity), _value(quantity)
    assert quantity.interval is not None
    return quantity.interval


# What the least or the most that a quantity can be decides: whether the relation then holds.
DECIDED_BY_A_BOUND = {
    *(("least", "above", True), ("most", "above", False), ("most", "below", True), ("least", "below", False)),
    *(("least", "interval-above", True), ("most", "interval-above", False)),
    *(("most", "interval-below", True), ("least", "interval-below", False)),
}
RELATIONS: dict[str, Any] = {
    "above": lambda q, expected, _: _value(q) > expected,
    "below": lambda q, expected, _: _value(q) < expected,
    "interval-above": lambda q, expected, _: _ends(q)[0] > expected,
    "interval-below": lambda q, expected, _: _ends(q)[1] < expected,
    "within": lambda q, expected, tolerance: abs(_value(q) - expected) <= tolerance,
    "repeats-within": lambda q, expected, _: max(q.samples) / min(q.samples) - 1 <= expected,
    "guard": None,
}
