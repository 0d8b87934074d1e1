"""A run's products on disk: which are stale though Snakemake can't see it, and what is done with a stale page."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path

PAGE, OUTDATED = "report.html", "report.outdated.html"


def mark_stale(run: Path, model: Path) -> list[str]:
    """Rename products that must be made anew, so that Snakemake misses them; returns the reasons.

    `model` is the product that stands for the model's folder. Snakemake compares the times of the files that a rule
    names. It does not look at the weights, which may be links to another folder, nor at the single figures. A product
    that is as it was made once more, because what was missing came back, gets its name back.
    """
    reasons = []
    figures = [run / "figures" / "figures.json", run / "simulated" / "figures" / "figures.json"]
    for product, fault in [(model, _model_changed), *((manifest, _figure_missing) for manifest in figures)]:
        marked = product.with_name(f"{product.name}.stale")
        now = next((file for file in (product, marked) if file.exists()), None)
        if now is None:
            continue
        reason = fault(now)
        if reason:
            reasons.append(reason)
        with suppress(PermissionError):  # of a run that may only be read: what is said about it must do
            now.replace(marked if reason else product)
    return reasons


def set_aside(run: Path) -> None:
    """Mark the page as outdated, before a job runs that it depends on: by its name, until a new page is made."""
    page = run / PAGE
    if page.exists():
        page.replace(run / OUTDATED)
    (run / "verify.json").unlink(missing_ok=True)  # it speaks of that page


def drop_outdated(run: Path) -> None:
    """Remove the outdated page once there is a new one."""
    if (run / PAGE).exists():
        (run / OUTDATED).unlink(missing_ok=True)


def _model_changed(link: Path) -> str | None:
    """Size and times decide; a file that looks changed is read, and its digest decides."""
    folder, taken = link.parent, link.stat()
    for name, known in json.loads(link.read_text(encoding="utf-8"))["files"].items():
        try:
            path = (folder / name).resolve(strict=True)
        except OSError:
            return f"{folder / name} is gone"
        now = path.stat()
        if now.st_size == known["bytes"] and max(now.st_mtime, now.st_ctime) <= max(taken.st_mtime, taken.st_ctime):
            continue
        with path.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != known["sha256"]:
                return f"{path} changed since its digest was taken"
    return None


def _figure_missing(manifest: Path) -> str | None:
    for figure in json.loads(manifest.read_text(encoding="utf-8"))["figures"]:
        for entry in (figure.get("files") or {"": figure}).values():
            if not (manifest.parent / entry["file"]).exists():
                return f"{manifest.parent / entry['file']} is gone"
    return None
