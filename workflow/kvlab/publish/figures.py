"""The figures of a run: drawn from its metrics and raw logs as SVG, in each language, the same bytes for the same run.

`Figures` is what the notebook holds: `figures.draw("kv-shares", "seed")` draws, files and shows one. Each kind is a
function `(Canvas) -> None` in `figures_pool.py` or `figures_time.py`; a kind that a workload has no data for is left
out with a reason.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib as mpl
import yaml

from kvlab.analyse.raw import RawRun
from kvlab.publish.palette import INK, colour
from kvlab.quantities import Metrics, Quantity
from kvlab.records import write_json, write_text

mpl.use("agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

LANGUAGES = ("en", "zh")
STRINGS = Path(__file__).resolve().parents[3] / "report"
STYLE = {
    "svg.fonttype": "none",  # text stays text: searchable, small, in the reader's font
    "svg.hashsalt": "kvlab",  # the same figure has the same ids
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "axes.unicode_minus": False,
}


class Nothing(Exception):
    """The run has nothing that this figure could show; the text says what is missing."""


@dataclass
class Canvas:
    """What a drawing needs: the numbers, the logs of one workload, the words of one language."""

    workload: str
    metrics: Metrics
    root: Path
    words: dict[str, Any]
    palette: str
    figure: Figure = field(default_factory=plt.figure)

    @property
    def arms(self) -> list[str]:
        """The workload's arms that have a run that counts, in the order of the configuration."""
        planned = self.metrics.facts["workloads"][self.workload]["arms"]
        return [arm for arm in planned if f"{self.workload}.{arm}.throughput" in self.metrics.quantities]

    @cached_property
    def first_runs(self) -> dict[str, RawRun]:
        """Of each such arm, the first repeat that counts: what figures over time are drawn from."""
        found: dict[str, RawRun] = {}
        for entry in self.metrics.runs:
            arm = entry["arm"]
            counts = entry["workload"] == self.workload and entry["validity"] in ("steady", "saturated", "noisy")
            if counts and arm not in found:
                found[arm] = RawRun.read(self.root, self.workload, arm, entry["repeat"])
        return found

    def quantity(self, name: str) -> Quantity | None:
        """`<workload>.<name>` where it has a value."""
        found = self.metrics.quantities.get(f"{self.workload}.{name}")
        return found if found is not None and found.value is not None else None

    def word(self, key: str, **values: Any) -> str:
        """A label in the figure's language."""
        return str(self.words["labels"][key]).format(**values)

    def colour(self, name: str) -> str:
        """Of a share or an arm."""
        return colour(self.palette, name)


def _kinds() -> dict[str, Callable[[Canvas], None]]:
    from kvlab.publish import figures_pool, figures_time

    return {**figures_pool.KINDS, **figures_time.KINDS}


class Figures:
    """Draws into `folder` and keeps the manifest, `figures.json`."""

    def __init__(self, root: Path, folder: Path, palette: str, language: str) -> None:
        self.root, self.folder, self.palette, self.language = Path(root), Path(folder), palette, language
        self.metrics = Metrics.read(self.root / "metrics.json")
        self.words = {
            name: yaml.safe_load((STRINGS / f"figures.{name}.yaml").read_text(encoding="utf-8")) for name in LANGUAGES
        }
        self.manifest: list[dict[str, Any]] = []
        self.left_out: list[dict[str, str]] = []

    @property
    def workloads(self) -> list[str]:
        """The run's workloads."""
        return list(self.metrics.facts["workloads"])

    def draw(self, kind: str, workload: str) -> Any:
        """Draw one figure in every language, file it, and return it for display in the notebook's language."""
        name = f"{kind}.{workload}"
        drawn = {}
        for language in LANGUAGES:
            try:
                drawn[language] = self._svg(kind, workload, language)
            except Nothing as why:
                self.left_out.append({"id": name, "why": str(why)})
                print(f"{name}: left out, {why}")
                return None
        files = {}
        for language, text in drawn.items():
            file = f"{name}.{language}.svg"
            write_text(self.folder / file, text)
            files[language] = {"file": file, "sha256": hashlib.sha256(text.encode()).hexdigest()}
        texts = {language: self.words[language]["kinds"][kind] for language in LANGUAGES}
        self.manifest.append(
            {
                "id": name,
                "kind": kind,
                "workload": workload,
                **files["en"],
                "files": files,
                "caption": {language: texts[language]["caption"] for language in LANGUAGES},
                "alt": {language: texts[language]["alt"].format(workload=workload) for language in LANGUAGES},
            }
        )
        from IPython.display import SVG

        return SVG(drawn[self.language])

    def _svg(self, kind: str, workload: str, language: str) -> str:
        with mpl.rc_context(STYLE), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # glyphs that the agg backend lacks are the reader's font's in an SVG
            canvas = Canvas(workload, self.metrics, self.root, self.words[language], self.palette)
            try:
                _kinds()[kind](canvas)
                out = io.StringIO()
                canvas.figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
            finally:
                plt.close(canvas.figure)
        shorter = re.sub(r"(\d+\.\d\d)\d{2,}", r"\1", out.getvalue())  # hundredths of a point are fine enough
        return shorter.replace(INK, "currentColor")

    def finish(self) -> int:
        """Write the manifest; returns how many figures it holds."""
        write_json(self.folder / "figures.json", {"figures": self.manifest, "left_out": self.left_out})
        return len(self.manifest)
