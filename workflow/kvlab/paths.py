"""Where the project's own files are."""

from pathlib import Path

WORKFLOW = Path(__file__).resolve().parents[1]  # what PYTHONPATH names, so that other processes find the package
ROOT = WORKFLOW.parent
PACKAGE = WORKFLOW / "kvlab"
NOTEBOOK = WORKFLOW / "notebooks" / "analysis.ipynb"
REPORT = ROOT / "report"
DATA = ROOT / "config" / "data"
