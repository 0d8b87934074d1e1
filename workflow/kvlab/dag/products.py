"""A run's products on disk: which are out of date in ways that Snakemake does not check, and the page among them."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path

PAGE, OUTDATED = "report.html", "report.outdated.html"
STALE = ".stale"


def process_file(run: Path, workload: str, process: str | int, block: str | int) -> Path:
    """The product of a measuring process: the list of its passes' raw logs, with their digests."""
    return run / "processes" / workload / str(process) / f"{block}.json"


def mark_stale(run: Path, model: Path) -> list[str]:
    """Rename products that must be made again, so that Snakemake finds them missing; returns the reasons.

    `model` is the product that represents the model's folder. Snakemake compares the times of the files that a rule
    names. It does not look at the weights, which may be links to another folder, nor at what a product lists: single
    figures, the raw logs of a process. A product whose missing parts are there again gets its
    name back.
    """
    reasons = []
    lists = [run / "figures" / "figures.json", run / "simulated" / "figures" / "figures.json"]
    lists += sorted({file.with_name(file.name.removesuffix(STALE)) for file in run.glob("processes/*/*/*.json*")})
    for product in [model, *lists]:
        marked = product.with_name(f"{product.name}{STALE}")
        now = next((file for file in (product, marked) if file.exists()), None)
        if now is None:
            continue
        reason = _model_changed(now) if product is model else _missing(run, now)
        if reason:
            reasons.append(reason)
        with suppress(PermissionError):  # the run can only be read: the message alone must do
            now.replace(marked if reason else product)
    return reasons


def set_aside(run: Path) -> None:
    """Rename the page as outdated before a job runs that it depends on; a new page replaces it."""
    page = run / PAGE
    if page.exists():
        page.replace(run / OUTDATED)
    (run / "verify.json").unlink(missing_ok=True)  # it is about that page


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


def _missing(run: Path, manifest: Path) -> str | None:
    listed = json.loads(manifest.read_text(encoding="utf-8"))
    files = [run / name for name in listed.get("files", {})]
    for figure in listed.get("figures", []):
        files += [manifest.parent / entry["file"] for entry in (figure.get("files") or {"": figure}).values()]
    return next((f"{file} is gone" for file in files if not file.exists()), None)
