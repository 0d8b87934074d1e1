"""`kvlab plan` for readers: the same tables as text, and as one HTML page in both languages with the report's style."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import yaml
from markupsafe import Markup, escape

from kvlab.paths import REPORT
from kvlab.publish.words.numbers import decimal, value_text
from kvlab.publish.words.strings import LANGUAGES, TAGS, look_up
from kvlab.simulate.planning.answers import Plan, Spread


@dataclass(frozen=True)
class Table:
    """A titled table of one language, and what is said below it."""

    title: str
    head: list[str]
    rows: list[list[str]]
    notes: list[str]


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


def tables(plan: Plan, language: str) -> list[Table]:
    """All answers."""
    words = _words(language)

    def shown(value: float, unit: str) -> str:
        return value_text(value, unit, language)

    def spread(one: Spread | None, unit: str) -> str:
        if one is None:
            return "–"
        ends = [shown(v, unit) if unit in ("share", "ratio") else decimal(v, language) for v in (one.low, one.high)]
        return shown(one.mean, unit) if ends[0] == ends[1] else f"{shown(one.mean, unit)} ({ends[0]} – {ends[1]})"

    memory = words["memory"]
    made = [
        Table(
            memory["title"],
            memory["head"],
            [
                [memory["kv"], shown(plan.kv_bytes, "bytes")],
                [memory["slots"], shown(plan.slots, "slots")],
                [memory["longest"], shown(plan.max_model_len, "tokens")],
            ],
            [memory["note"]],
        )
    ]
    part, rows = words["together"], []
    timed = plan.calibration is not None
    for one in plan.together:
        if one.refused is not None:
            row = [part[one.policy], words["refused"].format(why=one.refused), *["–"] * (5 if timed else 3)]
        else:
            row = [
                part[one.policy],
                spread(one.mean, "requests"),
                f"{shown(one.p5, 'count')} – {shown(one.p95, 'count')}",
                spread(one.tokens, "share"),
                spread(one.gain, "ratio"),
            ]
            row += [spread(one.throughput, "tokens/s"), spread(one.sustained, "requests/s")] if timed else []
        rows.append(row)
    notes = [part["fits" if plan.fits else "gains"]]
    notes += [part["bound"].format(bound=shown(plan.bound_s, "s"))] if timed else []
    made.append(Table(part["title"], part["head"] + (part["timed"] if timed else []), rows, notes))
    part = words["preemption"]
    starts = part["never"] if plan.preempts_from is None else shown(plan.preempts_from, "requests")
    made.append(
        Table(
            part["title"],
            part["head"],
            [
                [part["from"], starts],
                [part["often"], spread(plan.preempted, "count")],
                [part["again"], spread(plan.recomputed, "share")],
                [part["seqs"], shown(plan.max_num_seqs, "count")],
            ],
            [],
        )
    )
    part = words["waste"]
    rows = [[str(size), spread(one, "share")] for size, one in plan.waste.items()]
    made.append(Table(part["title"], part["columns"], rows, []))
    part = words["loaded"]
    if plan.loaded:
        rows = [
            [
                shown(one.rate, "count"),
                spread(one.running, "requests"),
                spread(one.ttft, "s"),
                spread(Spread(*(1000 * v for v in (one.tpot.mean, one.tpot.low, one.tpot.high))), "ms"),
                spread(one.latency, "s"),
                spread(one.latency_p95, "s"),
                spread(one.preempted, "count"),
            ]
            for one in plan.loaded
        ]
        outside = max([one.outside for one in plan.loaded] + [plan.outside or 0.0])
        notes = [part["note"].format(run=plan.calibration)]
        notes += [part["outside"].format(share=shown(outside, "share"))] if outside > 0.05 else []
        made.append(Table(part["title"], part["head"], rows, notes))
    else:
        made[-1].notes.append(words["uncalibrated"])
    return made


def text(plan: Plan, language: str = "en") -> str:
    """For a terminal."""
    lines = [f"{_words(language)['title']}: {plan.model}", lead(plan, language)]
    for table in tables(plan, language):
        rows = [table.head, *table.rows]
        widths = [max(len(row[column]) for row in rows) for column in range(len(table.head))]
        lines += ["", table.title]
        lines += ["  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines += [f"  {note}" for note in table.notes]
    return "\n".join(line.replace("\u00a0", " ") for line in lines) + "\n"


SWITCH = """\
for (const button of document.querySelectorAll("[data-set-lang]")) button.addEventListener("click", () => {
  const root = document.documentElement, language = button.dataset.setLang;
  root.dataset.lang = language;
  root.lang = button.lang;
  for (const other of document.querySelectorAll("[data-set-lang]"))
    other.setAttribute("aria-pressed", String(other === button));
});
"""


def page(plan: Plan, language: str = "en") -> str:
    """One self-contained HTML file: the report's style, its language switch, the tables in both languages."""
    style = Markup((REPORT / "style.css").read_text(encoding="utf-8"))
    digest = base64.b64encode(hashlib.sha256(SWITCH.encode()).digest()).decode()
    buttons = Markup("").join(
        Markup('<button type="button" data-set-lang="{}" lang="{}" aria-pressed="{}">{}</button>').format(
            x, TAGS[x], "true" if x == language else "false", look_up(x, "language")
        )
        for x in LANGUAGES
    )
    bodies = Markup("").join(
        Markup('<div class="{}" lang="{}"><h1>{}: {}</h1><p>{}</p>{}</div>').format(
            x, TAGS[x], _words(x)["title"], plan.model, lead(plan, x), Markup("").join(map(_table, tables(plan, x)))
        )
        for x in LANGUAGES
    )
    return (
        Markup(
            '<!doctype html>\n<html lang="{lang}" data-lang="{language}">\n<head>\n<meta charset="utf-8">\n'
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
            "script-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'\">\n"
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="color-scheme" content="light dark">\n<title>kvlab plan: {title}</title>\n'
            '<link rel="icon" href="data:,">\n<style>\n{style}</style>\n</head>\n<body>\n<header class="top">'
            '<p class="brand"><strong>kvlab</strong> <span>plan</span></p><div class="controls">'
            '<div class="switch" role="group">{buttons}</div></div></header>\n<main>\n{bodies}\n</main>\n'
            "<script>{script}</script>\n</body>\n</html>\n"
        )
        .format(
            lang=TAGS[language],
            language=language,
            digest=digest,
            title=plan.model,
            style=style,
            buttons=buttons,
            bodies=bodies,
            script=Markup(SWITCH),
        )
        .__str__()
    )


def _table(table: Table) -> Markup:
    head = Markup("").join(Markup('<th scope="col">{}</th>').format(one) for one in table.head)
    rows = Markup("\n").join(
        Markup('<tr><th scope="row">{}</th>{}</tr>').format(
            row[0], Markup("").join(Markup("<td>{}</td>").format(cell) for cell in row[1:])
        )
        for row in table.rows
    )
    notes = Markup("").join(Markup("<p>{}</p>").format(escape(note)) for note in table.notes)
    return Markup(
        '<section><h2>{}</h2><div class="scroll"><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>{}'
        "</section>"
    ).format(table.title, head, rows, notes)
