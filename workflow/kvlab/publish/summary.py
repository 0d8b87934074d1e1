"""The last thing that a run prints: its headlines and where its page is."""

from __future__ import annotations

from pathlib import Path

from kvlab.publish.words.numbers import text_of
from kvlab.publish.words.strings import said
from kvlab.quantities import Metrics
from kvlab.terminal import say

HEADLINES = (
    ("efficiency.points", "memory efficiency"),
    ("speedup", "speedup on the requests that all arms served"),
    ("queued.speedup", "speedup with the queue full"),
    ("paging.gain", "paging alone"),
)
COLUMNS = (
    ("throughput", "throughput"),
    ("efficiency", "efficiency"),
    ("running.mean", "together"),
    ("kv.peak", "KV peak"),
)


def show(root: Path) -> None:
    """Print a table an arm a line, the headlines, and the page's path."""
    metrics = Metrics.read(root / "metrics.json")
    found = metrics.quantities
    for workload, facts in metrics.facts["workloads"].items():
        rows = [[f"{workload}", *(title for _, title in COLUMNS)]]
        for arm in facts["arms"]:
            shown = [found.get(f"{workload}.{arm}.{name}") for name, _ in COLUMNS]
            rows.append([f"  {arm}", *(text_of(q, "en") if q else "not run" for q in shown)])
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        say("")
        for row in rows:
            say(
                "  ".join(
                    [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
                )
            )
        for name, title in HEADLINES:
            if quantity := found.get(f"{workload}.{name}"):
                why = f" ({said('en', quantity.why_none)})" if quantity.why_none else ""
                say(f"  {title}: {text_of(quantity, 'en')}{why}")
    page = root / "report.html"
    say(f"\nreport: {page.resolve()}" if page.exists() else "")
