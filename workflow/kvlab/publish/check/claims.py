"""The claims, held against a run: `claims.json`, and the table that `kvlab claims` prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from kvlab.errors import KvlabError
from kvlab.paths import REPORT
from kvlab.publish.words.numbers import text_of, value_text
from kvlab.quantities import Metrics, Quantity
from kvlab.records import write_json
from kvlab.terminal import say

CLAIMS = REPORT / "claims.yaml"
HELD, FAILED, UNDECIDED = "held", "failed", "not decided"


def judge(root: Path, file: Path = CLAIMS) -> list[dict[str, Any]]:
    """Each claim's verdict on the run in `root`: held, failed, or not decided with the reason."""
    metrics = Metrics.read(root / "metrics.json")
    if (predicted := root / "predicted" / "metrics.json").exists():
        for quantity in Metrics.read(predicted).quantities:
            metrics.quantities.add(quantity)
    verdicts = []
    for claim in _read(file):
        for workload in metrics.facts["workloads"]:
            verdict = _by_guard(claim, workload, metrics) if "guard" in claim else _by_number(claim, workload, metrics)
            if verdict:
                verdicts.append(_entry(claim, workload) | verdict)
    return verdicts


def write(root: Path) -> list[dict[str, Any]]:
    """Judge and write `claims.json`."""
    verdicts = judge(root)
    write_json(root / "claims.json", {"schema": 1, "claims": verdicts})
    return verdicts


def show(verdicts: list[dict[str, Any]]) -> int:
    """Print the table; returns how many claims failed."""
    widths = [max(len(v[k]) for v in verdicts) if verdicts else 0 for k in ("id", "workload")]
    for v in verdicts:
        seen = f"{v['seen']} (expected {v['expected_text']})" if v.get("expected_text") else v["seen"]
        say(f"{v['verdict']:<12} {v['id']:<{widths[0]}} {v['workload']:<{widths[1]}} {seen}")
    return sum(v["verdict"] == FAILED for v in verdicts)


def _read(file: Path) -> list[dict[str, Any]]:
    try:
        claims: list[dict[str, Any]] = yaml.safe_load(file.read_text(encoding="utf-8"))["claims"]
    except (OSError, KeyError, TypeError, yaml.YAMLError) as error:
        raise KvlabError(f"{file}: not a list of claims ({error})") from None
    for claim in claims:
        if claim.get("relation") not in RELATIONS:
            raise KvlabError(f"{file}: claim {claim.get('id')}: relation must be one of {', '.join(sorted(RELATIONS))}")
    return claims


def _entry(claim: dict[str, Any], workload: str) -> dict[str, Any]:
    return {key: claim[key] for key in ("id", "statement", "relation", "origin")} | {"workload": workload}


def _by_guard(claim: dict[str, Any], workload: str, metrics: Metrics) -> dict[str, Any] | None:
    for guard in metrics.guards:
        if guard["workload"] == workload and guard["id"] == claim["guard"]:
            verdict = {"pass": HELD, "fail": FAILED}.get(guard["outcome"], UNDECIDED)
            return {"verdict": verdict, "quantity": None, "seen": guard["detail"]}
    return None


def _by_number(claim: dict[str, Any], workload: str, metrics: Metrics) -> dict[str, Any] | None:
    quantity = metrics.quantities.get(claim["quantity"].replace("*", workload))
    if quantity is None:
        return None
    expected = claim["expected"]
    found: dict[str, Any] = {
        "quantity": quantity.id,
        "expected": expected,
        "tolerance": claim.get("tolerance"),
        "expected_text": _expected_text(claim, quantity),
    }
    if quantity.value is None:
        return found | {"verdict": UNDECIDED, "seen": quantity.why_none}
    why = _undecidable(claim, workload, metrics, quantity)
    if why:
        return found | {"verdict": UNDECIDED, "seen": why}
    held = RELATIONS[claim["relation"]](quantity, expected, claim.get("tolerance"))
    interval = ""
    if quantity.interval:
        low, high = (value_text(end, quantity.unit, "en") for end in quantity.interval)
        interval = f", {low} to {high}"
    return found | {
        "verdict": HELD if held else FAILED,
        "seen": f"{text_of(quantity, 'en')}{interval}, n = {quantity.n}",
    }


def _undecidable(claim: dict[str, Any], workload: str, metrics: Metrics, quantity: Quantity) -> str | None:
    if claim.get("needs") == "pressure":
        guard = next(g for g in metrics.guards if g["workload"] == workload and g["id"] == "pool-pressure")
        if guard["outcome"] != "pass":
            return str(guard["detail"])
    if claim["relation"].startswith("interval") and quantity.interval is None:
        return f"{quantity.n} repeat(s) give no interval; at least three are needed"
    return None


def _expected_text(claim: dict[str, Any], quantity: Quantity) -> str:
    sign = {"above": ">", "interval-above": "all >", "below": "<", "interval-below": "all <", "within": "="}
    text = f"{sign[claim['relation']]} {value_text(claim['expected'], quantity.unit, 'en')}"
    if claim.get("tolerance") is not None:
        text += f" ± {value_text(claim['tolerance'], quantity.unit, 'en')}"
    return text


def _value(quantity: Quantity) -> float:
    assert quantity.value is not None
    return quantity.value


def _ends(quantity: Quantity) -> tuple[float, float]:
    assert quantity.interval is not None
    return quantity.interval


RELATIONS: dict[str, Any] = {
    "above": lambda q, expected, _: _value(q) > expected,
    "below": lambda q, expected, _: _value(q) < expected,
    "interval-above": lambda q, expected, _: _ends(q)[0] > expected,
    "interval-below": lambda q, expected, _: _ends(q)[1] < expected,
    "within": lambda q, expected, tolerance: abs(_value(q) - expected) <= tolerance,
    "guard": None,
}
