"""The figures of a run: drawn from its metrics and raw logs as SVG, in each language, the same bytes for the same run.

`Figures` is what the notebook holds: `figures.draw("kv-shares", "seed")` draws, files and shows one. Each kind is a
function `(Canvas) -> None` in one of the modules that `KINDS` names; a kind that a workload has no data for is left
out with a reason.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from pathlib import Path
from typing import Any

import matplotlib as mpl
import yaml

from kvlab.paths import REPORT
from kvlab.publish.figures import paper, pool, time, timeline, why
from kvlab.publish.figures.canvas import LANGUAGES, STYLE, Canvas, Nothing
from kvlab.publish.figures.palette import INK
from kvlab.quantities import Metrics
from kvlab.raw import RawRun
from kvlab.records import write_json, write_text

mpl.use("agg")
import matplotlib.pyplot as plt

KINDS = pool.KINDS | timeline.KINDS | time.KINDS | why.KINDS | paper.KINDS


def _clips_numbered(svg: str) -> str:
    """Clip paths named in order: matplotlib names them by their bounds, whose last bit differs between processes."""
    names = dict.fromkeys(re.findall(r"#(p[0-9a-f]{10})\b", svg))
    number = {name: f"p{place:010x}" for place, name in enumerate(names, start=1)}
    return re.sub(r"\bp[0-9a-f]{10}\b", lambda found: number.get(found[0], found[0]), svg)


class Figures:
    """Draws into `folder` and keeps the manifest, `figures.json`."""

    def __init__(self, root: Path, folder: Path, palette: str, language: str) -> None:
        self.root, self.folder, self.palette, self.language = Path(root), Path(folder), palette, language
        self.metrics = Metrics.read(self.root / "metrics.json")
        self.words = {
            name: yaml.safe_load((REPORT / f"figures.{name}.yaml").read_text(encoding="utf-8")) for name in LANGUAGES
        }
        self.read: dict[str, dict[str, RawRun]] = {}  # logs, read once for all figures
        self.manifest: list[dict[str, Any]] = []
        self.left_out: list[dict[str, str]] = []

    @property
    def workloads(self) -> list[str]:
        """The run's workloads."""
        return list(self.metrics.facts["workloads"])

    @property
    def rated(self) -> list[str]:
        """Workloads whose requests arrive over time."""
        return list(self.metrics.facts.get("open", {}))

    def draw(self, kind: str, workload: str) -> Any:
        """Draw one figure in every language, file it, and return it for display in the notebook's language."""
        name = f"{kind}.{workload}"
        drawn, notes = {}, {}
        for language in LANGUAGES:
            try:
                drawn[language], notes[language] = self._svg(kind, workload, language)
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
                "caption": {x: " ".join(filter(None, (texts[x]["caption"], notes[x]))) for x in LANGUAGES},
                "alt": {language: texts[language]["alt"].format(workload=workload) for language in LANGUAGES},
            }
        )
        from IPython.display import SVG

        return SVG(drawn[self.language])

    def _svg(self, kind: str, workload: str, language: str) -> tuple[str, str]:
        with mpl.rc_context(STYLE), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # glyphs that the agg backend lacks are the reader's font's in an SVG
            canvas = Canvas(workload, self.metrics, self.root, self.words[language], self.palette, read=self.read)
            try:
                KINDS[kind](canvas)
                out = io.StringIO()
                canvas.figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
            finally:
                plt.close(canvas.figure)
        shorter = re.sub(r"(\d+\.\d\d)\d{2,}", r"\1", out.getvalue())  # hundredths of a point are fine enough
        shorter = _clips_numbered(shorter)
        return shorter.replace(INK, "currentColor"), canvas.note

    def finish(self) -> int:
        """Write the manifest; returns how many figures it holds."""
        write_json(
            self.folder / "figures.json",
            {"matplotlib": mpl.__version__, "figures": self.manifest, "left_out": self.left_out},
        )
        return len(self.manifest)
