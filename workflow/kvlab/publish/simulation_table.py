"""What `kvlab simulate` and `kvlab what-if` print: the paper's values beside ours, and a run under other allocators."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kvlab import terminal
from kvlab.accounting import SHARES
from kvlab.publish.words.numbers import decimal, value_text
from kvlab.publish.words.strings import look_up
from kvlab.quantities import Quantities, Quantity
from kvlab.raw import RawRun
from kvlab.simulate.studies import paper_values
from kvlab.simulate.studies.cases import POLICIES
from kvlab.simulate.studies.paper_values import Verdict
from kvlab.simulate.studies.traces import ServedTrace

CALIBRATED = (
    "A match of Fig. 2 and 13a is a consistency check of the definitions, not an independent reproduction: lengths are "
    "drawn to\nthe paper's means, and their spread was fitted to one bar. config/data/paper-values.yaml says how the "
    "ranges were set."
)


def show_claims(verdicts: Sequence[Verdict], found: Quantities, served: Sequence[ServedTrace] = ()) -> int:
    """Print a line a claim: what, where, the paper's value, ours, the range, the verdict. Returns how many failed.

    The authors' own requests (`served`) also have the range over other step times and seeds; the requests together
    by step time, and what their scripts do differently from the paper's text, follow.
    """
    table = terminal.table("", "", "paper", "simulated", "expected", "verdict", "other steps", "other seeds", left=2)
    for verdict in verdicts:
        table.add_row(
            verdict.id,
            verdict.where.split(":")[0],
            "" if verdict.paper is None else _number(verdict.paper, verdict.unit),
            "not run" if verdict.ours is None else _number(verdict.ours, verdict.unit),
            _range(verdict),
            verdict.verdict,
            *(_spread(verdict, by, found) for by in ("steps", "seeds")),
        )
    terminal.show(table)
    for verdict in verdicts:
        if verdict.verdict != "held" and verdict.note:
            terminal.show(f"  {verdict.id}: {verdict.verdict}; {verdict.note}")
    terminal.show(CALIBRATED)
    if any(verdict.spread for verdict in verdicts):
        terminal.show("\nRows of trace.…: the authors' own requests, arriving when theirs did; nothing is fitted.")
        for line in _settings(served):
            terminal.show(f"- {line}")
        for verdict in (one for one in verdicts if one.by_step):
            steps = (
                f"{_number(found[key].value or 0.0, verdict.unit)} at {ms} ms" for ms, key in verdict.by_step.items()
            )
            terminal.show(f"- {verdict.id}: {', '.join(steps)}")
        terminal.show(f"\n{look_up('en', 'simulated.differ')}:")
        for text in look_up("en", "simulated.differences").values():
            terminal.show(f"- {text.format(**paper_values.read()['artifact'])}")
    return sum(verdict.verdict == "failed" for verdict in verdicts)


def _settings(served: Sequence[ServedTrace]) -> Iterator[str]:
    """A line a trace: what was simulated, the step time that is compared first."""
    for trace in dict.fromkeys(line.trace for line in served):
        mine = [line for line in served if line.trace == trace]
        first, steps = mine[0], list(dict.fromkeys(f"{line.step_ms:g}" for line in mine))
        begin, end = first.window_s
        others = f" (others: {', '.join(steps[1:])})" if steps[1:] else ""
        seeds = len({line.seed for line in mine})
        yield (
            f"{trace}: {first.rate:g} requests/s, means over iterations from {begin:g} to {end:g} s, a step of "
            f"{steps[0]} ms{others}, seed 0{f' (others: 1 to {seeds - 1})' if seeds > 1 else ''}"
        )


def show_replay(found: Sequence[Quantity], raw: RawRun) -> None:
    """Print a line a policy, the engine's own log last: shares of the pool and requests running together."""
    by_id = {quantity.id.split(".served-again.")[-1]: quantity for quantity in found}
    table = terminal.table("", *SHARES, "running")
    for policy in POLICIES:
        cells = [by_id[f"{policy}.{name}"] for name in (*SHARES, "running")]
        table.add_row(f"simulated {policy}", *(_number(cell.value or 0.0, cell.unit) for cell in cells))
    busy = raw.accounting.holding > 0
    steps = busy / busy.sum()  # every step in which something is held weighs the same, as the simulated ones do
    shares = [_number(raw.accounting.mean_share(name, steps), "share") for name in SHARES]
    table.add_row("measured", *shares, _number(raw.accounting.mean("running", steps), "requests"))
    terminal.show(table)
    same = by_id["agreement"]
    terminal.show(f"simulated paging equals the log in {_number(same.value or 0.0, 'share')} of {same.n} steps")


def _number(value: float, unit: str) -> str:
    if unit in ("requests", "ratio"):
        return decimal(value, "en", 2)
    if unit == "slots":
        return decimal(value, "en", 0)
    return value_text(value, unit, "en")


def _range(verdict: Verdict) -> str:
    low, high = (_number(end, verdict.unit) for end in (verdict.low, verdict.high))
    return f"above {low}" if verdict.high >= 1 and verdict.unit == "share" else f"{low} to {high}"


def _spread(verdict: Verdict, by: str, found: Quantities) -> str:
    if by not in verdict.spread:
        return ""
    return " to ".join(_number(found[key].value or 0.0, verdict.unit) for key in verdict.spread[by])
