"""Executes the analysis notebook with papermill; it draws the figures."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from kvlab.errors import KvlabError
from kvlab.folders import whole_folder
from kvlab.paths import NOTEBOOK


def execute(section: dict[str, Any], root: Path) -> int:
    """Write `analysis.ipynb` and `figures/` of the run in `root`; returns the number of figures.

    `section`: `palette` and `language`. Raises KvlabError naming the cell that failed.
    """
    os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")  # jupyter's own change of folders; silences its warning
    import papermill
    from papermill.exceptions import PapermillExecutionError

    executed = root / ".analysis.ipynb"
    with whole_folder(root / "figures", ".kvlab-figures") as building:
        try:
            papermill.execute_notebook(
                str(NOTEBOOK),
                str(executed),
                parameters={"run": str(root.resolve()), "figures_folder": str(building.resolve())} | section,
                kernel_name="python3",
                progress_bar=False,
                cwd=str(NOTEBOOK.parent),
                # a cell's error comes back through papermill; the kernel's own lines are about its sockets and its end
                extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
            )
        except PapermillExecutionError as error:
            raise KvlabError(
                f"{NOTEBOOK.name}: cell {error.exec_count} failed: {error.ename}: {error.evalue}"
            ) from None
        finally:
            if executed.exists():
                _strip(executed)
        drawn = len(json.loads((building / "figures.json").read_text(encoding="utf-8"))["figures"])
    executed.replace(root / "analysis.ipynb")
    return drawn


def _strip(path: Path) -> None:
    """Remove this machine's folders and the wall-clock times from the executed notebook, which is meant to be
    shared."""
    document = json.loads(path.read_text(encoding="utf-8"))
    document["metadata"].pop("papermill", None)
    for cell in document["cells"]:
        cell["metadata"].pop("papermill", None)
        cell["metadata"].pop("execution", None)
        if "injected-parameters" in cell["metadata"].get("tags", []):
            cell["source"] = [line for line in cell["source"] if "_folder" not in line and not line.startswith("run =")]
    path.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
