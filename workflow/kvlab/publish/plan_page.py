"""`kvlab plan` for readers: the same tables as text, and as one HTML page in both languages of the report's parts."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import yaml

from kvlab.paths import REPORT
from kvlab.publish.words.bilingual import Both, filled
from kvlab.publish.words.numbers import decimal, value_text
from kvlab.publish.words.strings import LANGUAGES
from kvlab.quantities import Message, Quantity
from kvlab.simulate.planning.answers import Plan, Spread, Together

Cell = str | Quantity


@dataclass(frozen=True)
class Table:
    """A titled table of one language, and what is said below it. `bars`: its first numbers are drawn, too."""

    key: str
    title: str
    head: list[str]
    rows: list[list[Cell]]
    notes: list[str]
    bars: bool = False


@lru_cache(maxsize=len(LANGUAGES))
def _words(language: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((REPORT / f"plan.{language}.yaml").read_text(encoding="utf-8"))
    return loaded


def lead(plan: Plan, language: str) -> str:
    """What the numbers are, in a sentence."""
    return str(_words(language)["simulated"]).format(
        seeds=plan.seeds,
        requests=plan.requests,
        prompt=value_text(plan.prompt_mean, "tokens", language).split()[0],
        output=value_text(plan.output_mean, "tokens", language).split()[0],
    )


def _number(plan: Plan, name: str, value: float | Spread | None, unit: str, how: str) -> Cell:
    """A quantity with its range over seeds; a dash where the plan has none. `how`: the key of its formula."""
    if value is None:
        return "–"
    one = value if isinstance(value, Spread) else Spread(value, value, value)
    between = (one.low, one.high) if one.low < one.high else None
    seeds = plan.seeds if isinstance(value, Spread) else 1
    return Quantity(f"plan.{name}", one.mean, unit, Message(f"plan-{how}"), seeds, [], between, interval_kind="range")


def tables(plan: Plan, language: str) -> list[Table]:
    """All answers."""
    words = _words(language)

    def cell(name: str, value: float | Spread | None, unit: str, how: str) -> Cell:
        return _number(plan, name, value, unit, how)

    part = words["memory"]
    rows = [
        [part["kv"], cell("memory.kv", plan.kv_bytes, "bytes", "kv")],
        [part["slots"], cell("memory.slots", plan.slots, "slots", "slots")],
        [part["longest"], cell("memory.longest", plan.max_model_len, "tokens", "longest")],
    ]
    memory = Table("memory", part["title"], part["head"], rows, [part["note"]])
    part, timed = words["together"], plan.calibration is not None
    rows = [_policy(plan, one, part[one.policy], words["refused"]) for one in plan.together]
    notes = [part["fits" if plan.fits else "gains"]]
    notes += [part["bound"].format(bound=value_text(plan.bound_s, "s", language))] if timed else []
    head = part["head"] + (part["timed"] if timed else [])
    together = Table("together", part["title"], head, rows, notes, bars=True)
    part, paged = words["preemption"], "preemption."
    starts = cell(f"{paged}from", plan.preempts_from, "requests", "from")
    rows = [
        [part["from"], part["never"] if plan.preempts_from is None else starts],
        [part["often"], cell(f"{paged}often", plan.preempted, "count", "often")],
        [part["again"], cell(f"{paged}again", plan.recomputed, "share", "again")],
        [part["seqs"], cell(f"{paged}seqs", plan.max_num_seqs, "count", "seqs")],
    ]
    preemption = Table("preemption", part["title"], part["head"], rows, [])
    part = words["waste"]
    rows = [[str(size), cell(f"waste.{size}", one, "share", "waste")] for size, one in plan.waste.items()]
    notes = [] if plan.loaded else [words["uncalibrated"]]
    waste = Table("waste", part["title"], part["columns"], rows, notes, bars=True)
    return [together, preemption, waste, memory, *([_loaded(plan, language)] if plan.loaded else [])]


def _policy(plan: Plan, one: Together, name: str, refused: str) -> list[Cell]:
    if one.refused is not None:
        return [name, refused.format(why=one.refused), *["–"] * (5 if plan.calibration else 3)]
    median = Spread(one.p50, one.p5, one.p95)
    row = [
        name,
        _number(plan, f"{one.policy}.mean", one.mean, "requests", "mean"),
        _number(plan, f"{one.policy}.median", median, "requests", "median"),
        _number(plan, f"{one.policy}.tokens", one.tokens, "share", "tokens"),
        _number(plan, f"{one.policy}.gain", one.gain, "ratio", "gain"),
    ]
    if plan.calibration is not None:
        row.append(_number(plan, f"{one.policy}.throughput", one.throughput, "tokens/s", "throughput"))
        row.append(_number(plan, f"{one.policy}.sustained", one.sustained, "requests/s", "sustained"))
    return row


def _loaded(plan: Plan, language: str) -> Table:
    part = _words(language)["loaded"]
    rows = []
    for at, one in enumerate(plan.loaded):
        tpot = Spread(*(1000 * value for value in (one.tpot.mean, one.tpot.low, one.tpot.high)))
        values: dict[str, tuple[float | Spread, str]] = {
            "rate": (one.rate, "requests/s"),
            "running": (one.running, "requests"),
            "ttft": (one.ttft, "s"),
            "tpot": (tpot, "ms"),
            "latency": (one.latency, "s"),
            "p95": (one.latency_p95, "s"),
            "preempted": (one.preempted, "count"),
        }
        rows.append([_number(plan, f"rate-{at}.{name}", *value, how=name) for name, value in values.items()])
    outside = max([one.outside for one in plan.loaded] + [plan.outside or 0.0])
    notes = [part["note"].format(run=plan.calibration)]
    notes += [part["outside"].format(share=value_text(outside, "share", language))] if outside > 0.05 else []
    return Table("loaded", part["title"], part["head"], rows, notes)


def _shown(cell: Cell, language: str) -> str:
    """A cell as text: the value, and its range where that differs."""
    if isinstance(cell, str):
        return cell
    value = value_text(cell.value or 0.0, cell.unit, language)
    between = _range(cell, language)
    return f"{value} ({between})" if between else value


def _range(cell: Any, language: str) -> str:
    if cell.interval is None:
        return ""
    low, high = (
        value_text(end, cell.unit, language) if cell.unit in ("share", "ratio") else decimal(end, language)
        for end in cell.interval
    )
    return "" if low == high else f"{low} – {high}"


def text(plan: Plan, language: str = "en") -> str:
    """For a terminal."""
    lines = [f"{_words(language)['title']}: {plan.model}", lead(plan, language)]
    for table in tables(plan, language):
        rows = [table.head, *([_shown(cell, language) for cell in row] for row in table.rows)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(table.head))]
        lines += ["", table.title]
        lines += ["  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines += [f"  {note}" for note in table.notes]
    return "\n".join(line.replace("\u00a0", " ") for line in lines) + "\n"


def page(plan: Plan, inputs: Mapping[str, str], language: str = "en") -> str:
    """One self-contained HTML file. `inputs`: the command's options, which every number's trail shows."""
    from kvlab.publish.page.render import environment, shell
    from kvlab.publish.page.trail import trails

    every = {x: tables(plan, x) for x in LANGUAGES}
    found = {q.id: q for table in every[language] for row in table.rows for q in row if isinstance(q, Quantity)}
    command = shlex.join(["kvlab", "plan", *(word for pair in inputs.items() for word in pair)])
    names = {x: {"names": _names(every[x]), "arms": {}} for x in LANGUAGES}
    return (
        environment()
        .get_template("planned.html.j2")
        .render(
            **shell(("page.js", "trail.js"), language, names),
            titles={x: f"{_words(x)['title']}: {plan.model}" for x in LANGUAGES},
            brand=plan.model,
            w=_said,
            verdict=_verdict(plan, found),
            lead=Both(lambda x: lead(plan, x)),
            inputs=inputs,
            command=command,
            tables=[_sides(*pair) for pair in zip(*every.values(), strict=True)],
            trail=lambda: trails(found.values(), []) | {"command": command, "inputs": list(inputs.items())},
        )
        .strip()
        + "\n"
    )


def _said(*keys: str, **values: Any) -> Both:
    """The words at `keys`, one within the other, their holes filled."""

    def words(language: str) -> str:
        found: Any = _words(language)
        for key in keys:
            found = found[key]
        return str(found)

    return filled(words, **values)


def _verdict(plan: Plan, found: dict[str, Quantity]) -> list[Both]:
    """What fits, what paging gains, when it preempts, how fast that is: a sentence each."""
    gain = found.get("plan.orca-max.gain")
    kind = "fits" if plan.fits else "gains" if gain else "only"
    said = [_said("verdict", kind, slots=found["plan.memory.slots"], paged=found["plan.paged.mean"], gain=gain)]
    for name, key in (("starts", "plan.preemption.from"), ("speed", "plan.paged.throughput")):
        said += [_said("verdict", name, **{name: found[key]})] if key in found else []
    return said


def _names(shown: list[Table]) -> dict[str, str]:
    """A quantity's name: its row, and what the column says."""
    named = {}
    for table in shown:
        for row in table.rows:
            for head, cell in zip(table.head, row, strict=True):
                if isinstance(cell, Quantity):
                    first = table.title if cell is row[0] or not isinstance(row[0], str) else row[0]
                    named[cell.id.removeprefix("plan.")] = f"{first}: {head}"
    return named


def _sides(*sides: Table) -> dict[str, Any]:
    """A table with the words of each language; its numbers are the same in all of them."""

    def both(texts: Iterable[str]) -> Both:
        return Both(dict(zip(LANGUAGES, texts, strict=True)).__getitem__)

    def each(of: Callable[[Table], list[str]]) -> list[Both]:
        return [both(texts) for texts in zip(*map(of, sides), strict=True)]

    def cell(cells: tuple[Cell, ...]) -> dict[str, Any]:
        if isinstance(cells[0], Quantity):
            return {"quantity": cells[0], "says": Both(partial(_range, cells[0]))}
        return {"quantity": None, "says": both(str(one) for one in cells)}

    rows = [[cell(cells) for cells in zip(*same, strict=True)] for same in zip(*(t.rows for t in sides), strict=True)]
    drawn = [row for row in rows if sides[0].bars and row[1]["quantity"]]
    most = max((row[1]["quantity"].value for row in drawn), default=0) or 1
    return {
        "key": sides[0].key,
        "title": both(table.title for table in sides),
        "head": each(lambda table: table.head),
        "rows": rows,
        "notes": each(lambda table: table.notes),
        "bars": [(row[0]["says"], row[1]["quantity"], 100 * row[1]["quantity"].value / most) for row in drawn],
    }
