"""Where the project's own files are: in the checkout, or beside the code where a wheel is installed (setup.py)."""

import os
from collections.abc import Iterable
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
WORKFLOW = PACKAGE.parent  # what PYTHONPATH names, so that other processes find the package
INSTALLED = PACKAGE / "files"
ROOT = INSTALLED if INSTALLED.is_dir() else WORKFLOW.parent
NOTEBOOK = ROOT / "workflow" / "notebooks" / "analysis.ipynb"
REPORT = ROOT / "report"
DATA = ROOT / "config" / "data"
PREDICTIONS = DATA.parent / "predictions"
DOWNLOAD = "download"  # in place of a path: fetch the file from where it was published


def seen(path: Path) -> str:
    """The path as rules name it: from the working directory where it is below it, so that a project that moves does not
    run again.
    """
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def lengths_variable(kind: str) -> str:
    """The environment variable that names a file of lengths which the project may not carry."""
    return f"KVLAB_{kind.upper()}"


def lengths_file(kind: str, path: str | None) -> str | None:
    """Where such a file is: what the configuration says, else the environment; None where neither does."""
    return path or os.environ.get(lengths_variable(kind)) or None


def local_files(places: Iterable[str | None]) -> list[str]:
    """Those that are files of this machine, neither addresses nor to be fetched."""
    return sorted({place for place in places if place and not place.startswith(("http://", "https://", DOWNLOAD))})
