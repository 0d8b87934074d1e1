"""Where the project's own files are."""

import os
from pathlib import Path

WORKFLOW = Path(__file__).resolve().parents[1]  # what PYTHONPATH names, so that other processes find the package
ROOT = WORKFLOW.parent
PACKAGE = WORKFLOW / "kvlab"
NOTEBOOK = WORKFLOW / "notebooks" / "analysis.ipynb"
REPORT = ROOT / "report"
DATA = ROOT / "config" / "data"


def lengths_variable(kind: str) -> str:
    """The environment variable that names a file of lengths which the project may not carry."""
    return f"KVLAB_{kind.upper()}"


def lengths_file(kind: str, path: str | None) -> str | None:
    """Where such a file is: what the configuration says, else the environment; None where neither does."""
    return path or os.environ.get(lengths_variable(kind)) or None
