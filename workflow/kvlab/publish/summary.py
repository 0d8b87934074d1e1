"""What a run prints at its end: its headlines and the path of its page."""

from __future__ import annotations

from pathlib import Path

from kvlab import terminal
from kvlab.publish.words.numbers import text_of
from kvlab.publish.words.strings import said
from kvlab.quantities import Metrics

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
        table = terminal.table(workload, *(title for _, title in COLUMNS))
        for arm in facts["arms"]:
            shown = [found.get(f"{workload}.{arm}.{name}") for name, _ in COLUMNS]
            table.add_row(f"  {arm}", *(text_of(q, "en") if q else "not run" for q in shown))
        terminal.show()
        terminal.show(table)
        for name, title in HEADLINES:
            quantity = found.get(f"{workload}.{name}")
            if quantity and getattr(quantity.why_none, "key", "") != "arm-not-asked":
                why = f" ({said('en', quantity.why_none)})" if quantity.why_none else ""
                terminal.show(f"  {title}: {text_of(quantity, 'en')}{why}")
    page = root / "report.html"
    if page.exists():
        terminal.show(f"\nreport: {page.resolve()}")
