"""The simulation's figures, as SVG in each language: the same bytes for the same run.

`draw` reads the quantities of `simulated/metrics.json` and writes `simulated/figures/<kind>.<language>.svg` with their
manifest, `figures.json`, in the form of the notebook's.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import yaml

from kvlab.accounting import SHARES
from kvlab.folders import whole_folder
from kvlab.paths import REPORT
from kvlab.publish.figures import small_pool
from kvlab.publish.figures.canvas import LANGUAGES, STYLE
from kvlab.publish.figures.palette import INK, colour
from kvlab.publish.figures.palette import POLICIES as LINES
from kvlab.quantities import Metrics
from kvlab.records import write_json, write_text
from kvlab.simulate.studies import paper_values
from kvlab.simulate.studies.cases import POLICIES

import matplotlib.pyplot as plt  # isort: skip  (figures.py has chosen the backend)
from matplotlib.axes import Axes
from matplotlib.figure import Figure

MARKS = {"orca-max": "s", "orca-pow2": "^", "orca-oracle": "D", "paged": "o"}


@dataclass(frozen=True)
class Drawing:
    """What a figure is drawn from: the run's quantities, its section, the words of one language."""

    metrics: Metrics
    section: dict[str, Any]
    words: dict[str, Any]
    palette: str
    figure: Figure

    def value(self, key: str) -> float | None:
        """A quantity's value; None where the run does not have it."""
        found = self.metrics.quantities.get(f"simulated.{key}")
        return found.value if found else None

    def word(self, key: str, **values: Any) -> str:
        """A label."""
        return str(self.words["labels"][key]).format(**values)

    def workload(self, name: str) -> str:
        """A workload's name for readers; its own where it has none."""
        return str(self.words["workloads"].get(name, name))


def draw(section: dict[str, Any], root: Path, palette: str) -> int:
    """Draw all figures of the simulation in `root`; returns how many. LogError where it was not simulated."""
    metrics = Metrics.read(root / "simulated" / "metrics.json")
    manifest = []
    with whole_folder(root / "simulated" / "figures", ".kvlab-figures") as folder:
        for kind, function in KINDS.items():
            if kind == "studies" and not section.get("studies"):
                continue
            texts, files = {}, {}
            for language in LANGUAGES:
                words = yaml.safe_load((REPORT / f"simulation.{language}.yaml").read_text(encoding="utf-8"))
                svg = _svg(function, metrics, section, words, palette)
                file = f"{kind}.{language}.svg"
                write_text(folder / file, svg)
                files[language] = {"file": file, "sha256": hashlib.sha256(svg.encode()).hexdigest()}
                texts[language] = words["kinds"][kind]
            entry = {"id": f"simulated.{kind}", "kind": kind, "workload": None, **files["en"], "files": files}
            manifest.append(entry | {key: {at: texts[at][key] for at in LANGUAGES} for key in ("caption", "alt")})
        write_json(folder / "figures.json", {"figures": manifest, "left_out": []})
    return len(manifest)


def _svg(
    function: Callable[[Drawing], None],
    metrics: Metrics,
    section: dict[str, Any],
    words: dict[str, Any],
    palette: str,
) -> str:
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # glyphs that the agg backend lacks are the reader's font's in an SVG
        figure = plt.figure()
        try:
            function(Drawing(metrics, section, words, palette, figure))
            out = io.StringIO()
            figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        finally:
            plt.close(figure)
    return out.getvalue().replace(INK, "currentColor")


def shares(drawing: Drawing) -> None:
    """A bar an allocator and trace or workload, the paper's beside it where it has all four shares (Fig. 2)."""
    claims = paper_values.read()["claims"]
    printed = {claim["quantity"]: claim["paper"] for claim in claims}
    printed |= {f"simulated.{claim['id']}": claim["paper"] for claim in claims if "trace" in claim}
    keys = {name: f"{name}.paged.tokens" for name in drawing.section["traces"]}
    traced = [name for name, key in keys.items() if f"simulated.{key}" in printed and drawing.value(key) is not None]
    rows: list[tuple[str, list[float], bool]] = []
    groups: list[tuple[float, str]] = []
    places: list[float] = []
    at = 0.0
    for workload in [*traced, *drawing.section["workloads"]]:
        groups.append((at - 0.75, drawing.workload(workload)))
        for policy in POLICIES:
            name = drawing.words["policies"][policy]
            ours = [drawing.value(f"{workload}.{policy}.{share}") or 0.0 for share in SHARES]
            rows.append((name, ours, False))
            places.append(at)
            at += 0.8
            theirs = [printed.get(f"simulated.{workload}.{policy}.{share}") for share in SHARES]
            if theirs[0] is not None:
                rows.append((drawing.words["policies"]["paper"].format(policy=name), [v or 0.0 for v in theirs], True))
                places.append(at)
                at += 0.8
            at += 0.25
        at += 0.9
    drawing.figure.set_size_inches(7.6, 0.9 + 0.25 * at)
    axes = drawing.figure.add_subplot()
    left = np.zeros(len(rows))
    for number, share in enumerate(SHARES):
        width = np.array([100 * values[number] for _, values, _ in rows])
        fill = colour(drawing.palette, share)
        bars = axes.barh(places, width, left=left, color=fill, height=0.72, label=drawing.word(share), linewidth=0)
        for bar, (_, _, of_paper) in zip(bars, rows, strict=True):
            bar.set_alpha(0.6 if of_paper else 1)
        shade = "#ffffff" if share == "tokens" else "#000000"
        labels = [f"{w:.1f}" if w >= 6 else "" for w in width]
        axes.bar_label(bars, labels, label_type="center", fontsize=7.5, color=shade)
        left += width
    for place, name in groups:
        axes.text(0, place, name, fontsize=9, fontweight="bold", va="center")
    axes.set_yticks(places, [name for name, _, _ in rows], fontsize=8)
    axes.set_xlim(0, 100)
    axes.set_ylim(at - 1.2, -1.2)
    axes.set_xlabel(drawing.word("share_of_pool"))
    axes.spines["left"].set_visible(False)
    axes.tick_params(left=False)
    drawing.figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=9)


def studies(drawing: Drawing) -> None:
    """Six panels, a study each."""
    drawing.figure.set_size_inches(7.6, 8.2)
    panels = drawing.figure.subplots(3, 2).flatten()
    settings = drawing.section["studies"]
    for axes, (name, panel) in zip(panels, _PANELS.items(), strict=True):
        title = drawing.words["studies"][name].format(most=settings["pool"]["max_running"])
        axes.set_title(title, loc="left", fontsize=10)
        axes.grid(axis="y")
        panel(drawing, axes, settings[name.replace("-", "_")])
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=7.5, **({"loc": (0.55, 0.5)} if name == "output-cv" else {}))


def _line(drawing: Drawing, axes: Axes, keys: list[str], x: list[float], times: float, **style: Any) -> None:
    y = [(drawing.value(key) or 0.0) * times for key in keys]
    axes.plot(x, y, linewidth=1.4, markersize=4, **style)


def _block_size(drawing: Drawing, axes: Axes, study: dict[str, Any]) -> None:
    for workload, mark, stroke in zip(study["workloads"], "osD^", ("-", "--", ":", "-."), strict=False):
        keys = [f"block-size.{workload}.paged.{size}.tokens" for size in study["sizes"]]
        style = {"marker": mark, "linestyle": stroke, "color": LINES["paged"]}
        _line(drawing, axes, keys, study["sizes"], 100, label=drawing.workload(workload), **style)
    axes.set_xscale("log", base=2)
    axes.set_xticks(study["sizes"][::2], [str(size) for size in study["sizes"][::2]], fontsize=8)
    axes.set_xlabel(drawing.word("block_size"))
    axes.set_ylabel(drawing.word("token_share"))


def _policies(drawing: Drawing, axes: Axes, key: str, x: list[float], measure: str, times: float = 1) -> None:
    for policy in POLICIES:
        keys = [key.format(policy=policy, x=f"{one:g}" if isinstance(one, float) else one) + measure for one in x]
        style = {"marker": MARKS[policy], "color": LINES[policy], "label": drawing.words["policies"][policy]}
        _line(drawing, axes, keys, x, times, **style)


def _pool(drawing: Drawing, axes: Axes, study: dict[str, Any]) -> None:
    _policies(drawing, axes, f"pool.{study['workload']}.{{policy}}.{{x}}.", study["slots"], "running")
    axes.set_xscale("log", base=2)
    axes.set_xticks(study["slots"], [f"{slots / 1024:g}K" for slots in study["slots"]], fontsize=8)
    axes.minorticks_off()
    axes.set_xlabel(drawing.word("pool"))
    axes.set_ylabel(drawing.word("running"))


def _output_cv(drawing: Drawing, axes: Axes, study: dict[str, Any]) -> None:
    _policies(drawing, axes, f"output-cv.{study['workload']}.{{policy}}.{{x}}.", study["values"], "tokens", 100)
    axes.set_xlabel(drawing.word("output_cv"))
    axes.set_ylabel(drawing.word("token_share"))


def _load(drawing: Drawing, axes: Axes, study: dict[str, Any]) -> None:
    keys = [f"load.{study['workload']}.paged.{load:g}.running" for load in study["values"]]
    style = {"marker": MARKS["paged"], "color": LINES["paged"], "label": drawing.words["policies"]["paged"]}
    _line(drawing, axes, keys, study["values"], 1, **style)
    batch = next(claim["paper"] for claim in paper_values.read()["claims"] if claim["id"] == "fig13a.paged.running")
    axes.axhline(batch, color="#777777", linewidth=1, linestyle=(0, (4, 2)), label=drawing.word("paper_batch"))
    axes.set_xlabel(drawing.word("load"))
    axes.set_ylabel(drawing.word("running"))


def _sharing(drawing: Drawing, axes: Axes, study: dict[str, Any]) -> None:
    printed = {claim["quantity"]: claim["paper"] for claim in paper_values.read()["claims"]}
    for workload, mark, shade in zip(study["workloads"], "os^D", LINES.values(), strict=False):
        keys = [f"sharing.{workload}.paged.n{n}.saved" for n in study["samples"]]
        name = drawing.workload(workload)
        _line(drawing, axes, keys, study["samples"], 100, marker=mark, color=shade, label=name)
        theirs = [(n, printed.get(f"simulated.{key}")) for n, key in zip(study["samples"], keys, strict=True)]
        known = [(n, 100 * value) for n, value in theirs if value is not None]
        if known:
            label = f"{name}, {drawing.word('in_paper')}"
            axes.plot(*zip(*known, strict=True), mark, mfc="none", color=shade, markersize=8, label=label)
    axes.set_xticks(study["samples"])
    axes.set_xlabel(drawing.word("samples"))
    axes.set_ylabel(drawing.word("saved"))


def _prefix(drawing: Drawing, axes: Axes, study: dict[str, Any]) -> None:
    for how, policy, mark in (("apart", "orca-max", "s"), ("shared", "paged", "o")):
        keys = [f"prefix.{study['workload']}.paged.{tokens}-{how}.running" for tokens in study["tokens"]]
        style = {"marker": mark, "color": LINES[policy], "label": drawing.word(how)}
        _line(drawing, axes, keys, study["tokens"], 1, **style)
    axes.set_xticks(study["tokens"])
    axes.set_xlabel(drawing.word("prefix"))
    axes.set_ylabel(drawing.word("running"))


def _pool_picture(drawing: Drawing) -> None:
    small_pool.draw(drawing.figure, drawing.section["picture"], drawing.words)


_PANELS = {
    "block-size": _block_size,
    "pool": _pool,
    "output-cv": _output_cv,
    "load": _load,
    "sharing": _sharing,
    "prefix": _prefix,
}
KINDS: dict[str, Callable[[Drawing], None]] = {"shares": shares, "studies": studies, "pool": _pool_picture}
