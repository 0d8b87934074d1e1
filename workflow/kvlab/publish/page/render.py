"""The page: one self-contained HTML file that loads nothing. The same run gives the same bytes."""

from __future__ import annotations

import base64
import hashlib
import traceback
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from kvlab.catalogue import UndeclaredId
from kvlab.paths import REPORT
from kvlab.publish.figures.palette import PALETTES
from kvlab.publish.page import charts
from kvlab.publish.page.answers import visible
from kvlab.publish.page.asked import published
from kvlab.publish.page.content import Content
from kvlab.publish.page.headlines import (
    COSTS,
    Headlines,
    arm_of,
    by_role,
    counted,
    filling,
    ladder,
    predicted_before,
    queued,
    rated,
    recomputing,
    sustained,
    timed,
)
from kvlab.publish.page.trail import by_arm, embed, trails
from kvlab.publish.words import bilingual
from kvlab.publish.words.facts import Facts
from kvlab.publish.words.strings import LANGUAGES, TAGS, has, words
from kvlab.quantities import Metrics
from kvlab.records import write_text
from kvlab.roles import PAGING

SCRIPTS = ("page.js", "trail.js", "take.js", "what-if.js", "pool-data.js", "pool-side.js", "pool.js")


def build(section: dict[str, Any], root: Path) -> str:
    """The whole page of the run in `root`. `section`: `language`, `title`, `palette`, `declared` (names of all arms).

    The page depends on the files in `root` and in `report/` alone. LogError names a file that is missing or damaged;
    UndeclaredId the template and line that ask for a quantity that is not declared.
    """
    try:
        return _build(section, root)
    except UndeclaredId as error:
        raise UndeclaredId(f"{_place(error)}: {error}") from None


def _build(section: dict[str, Any], root: Path) -> str:
    root = Path(root)
    metrics, facts = Metrics.read(root / "metrics.json"), Facts(root)
    run = Content(root, metrics, facts)
    language = section.get("language") or LANGUAGES[0]
    title = section.get("title")
    own = {x: {"arms": {arm: metrics.roles.label(arm, x) for arm in metrics.roles.arms}} for x in LANGUAGES}
    html = (
        environment()
        .get_template("page.html.j2")
        .render(
            shell(SCRIPTS, language, own),
            titles={x: title or bilingual.plain("title", x) for x in LANGUAGES},
            brand=metrics.run,
            run=run,
            metrics=metrics,
            headlines=Headlines.of(metrics),
            ladder=lambda workload, kind="": charts.ladder_rows(
                ladder(metrics, workload, kind), metrics.quantities, workload, kind
            ),
            bars=lambda workload, name: charts.bar_rows(metrics, workload, name),
            counted=lambda workload: counted(metrics, workload),
            timed=lambda workload: timed(metrics, workload),
            queued=lambda workload, arm: queued(metrics, workload, arm),
            arm_of=lambda workload, role: arm_of(metrics, workload, role),
            by_role=lambda workload, role, name: by_role(metrics, workload, role, name),
            label=lambda arm: bilingual.Both(lambda x: metrics.roles.label(arm, x)),
            recomputing=lambda workload: recomputing(metrics, workload),
            sustained=lambda workload: sustained(metrics, workload),
            full_arms=lambda workload: [a for a in counted(metrics, workload) if queued(metrics, workload, a)["kind"]],
            preemption_costs=COSTS,
            rated=rated(metrics),
            filling=filling(metrics),
            predicted_before=lambda: predicted_before(run.predictions),
            published=published,
            not_proved=list(words(LANGUAGES[0])["proof"]["not_proved"]["of"]),
            all_quantities=lambda: by_arm(metrics),
            get=metrics.quantities.get,
            level=facts.get("config.json", "analysis.confidence", "level"),
            fact_of=facts.get,
            title=title,
            declared=section.get("declared", []),
            palette=PALETTES[section.get("palette") or "okabe-ito"]
            | {arm: metrics.roles.colour(arm) for arm in metrics.roles.arms}
            | {PAGING: metrics.roles.colour(metrics.roles.first(PAGING, metrics.roles.arms) or "")},
            trail=lambda: (
                {"run": metrics.run, "command": f"python -m kvlab verify results/{metrics.run}/report.html"}
                | trails(run.quantities(), facts.shown.values())
            ),
            more_data={"grid-data": run.grid(Headlines.of(metrics).paging), "pool-data": run.pools()},
        )
    )
    return html.strip() + "\n"


def shell(scripts: Sequence[str], language: str, own: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What the head and the foot of a page are filled with. `own`: words of this page alone."""
    early, *rest = ((REPORT / "script" / name).read_text(encoding="utf-8") for name in ("early.js", *scripts))
    code = "\n".join(rest)
    parts = ("script", "trail", "shares", "names", "take", "plan")
    return {
        "language": language,
        "style": Markup((REPORT / "style.css").read_text(encoding="utf-8")),
        "early": Markup(early),
        "script": Markup(code),
        "hashes": " ".join(_hash(text) for text in (early, code)),
        "words": {x: {name: words(x)[name] for name in parts} | own[x] for x in LANGUAGES},
        "palette": PALETTES["okabe-ito"],
        "more_data": {},
    }


def _place(error: BaseException) -> str:
    """The template and line that an error comes from."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.endswith(".j2")]
    return f"report/templates/{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "the page"


def render(section: dict[str, Any], root: Path) -> str:
    """Build the page and write it to `report.html` in `root`."""
    page = build(section, root)
    write_text(Path(root) / "report.html", page)
    return page


@lru_cache(maxsize=1)
def environment() -> Environment:
    """The Jinja environment of all pages: the templates, and the functions that they may call."""
    made = Environment(
        loader=FileSystemLoader(REPORT / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(
        t=bilingual.text,
        n=bilingual.number,
        fact=bilingual.fact,
        interval=bilingual.interval,
        recorded=bilingual.recorded,
        plain=bilingual.plain,
        tick=bilingual.tick,
        amount=bilingual.amount,
        has=has,
        embed=lambda data: Markup(embed(data)),
        tags=TAGS,
        languages=LANGUAGES,
        shares=("tokens", "reserved", "internal", "external"),
    )
    made.filters["visible"] = visible
    return made


def _hash(script: str) -> str:
    """The hash by which the page's Content-Security-Policy allows a script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
