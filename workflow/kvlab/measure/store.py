"""Finished passes, by what they depend on: `results/<run>/.passes/<digest>/`.

Snakemake deletes a job's outputs before it runs the job again. A pass that depends on nothing that changed is taken
from here, so that a process measures only what is missing. Files are hard links of those in the raw folder where the
file system can, and are checked against their digests before they are used.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kvlab.folders import whole_folder
from kvlab.measure.passes import Planned
from kvlab.records import Run, digest, read_run, write_json

KEPT = "digests.json"


@dataclass(frozen=True)
class Store:
    """`folder` holds the passes; `code` is the digest of the code that measures them."""

    folder: Path
    code: str

    def identity(self, cell: Planned, facts: Mapping[str, str]) -> str:
        """sha256 of what the pass depends on: section, cell, block, code, model and requests."""
        on = {
            "section": cell.section,
            "cell": [cell.workload, cell.name, cell.repeat],
            "code": self.code,
            "model_fingerprint": facts["model_fingerprint"],
            "workload_sha256": facts["workload_sha256"],
        }
        return hashlib.sha256(json.dumps(on, sort_keys=True).encode()).hexdigest()

    def fetch(self, cell: Planned, facts: Mapping[str, str]) -> Run | None:
        """Link or copy the pass into its raw folder and return its run; None where it is not here, or was changed."""
        place = self.folder / self.identity(cell, facts)
        if not (place / KEPT).exists():
            return None
        kept = json.loads((place / KEPT).read_text(encoding="utf-8"))
        if any(not (place / name).exists() or digest(place / name) != sha256 for name, sha256 in kept.items()):
            shutil.rmtree(place)
            return None
        with whole_folder(cell.folder, "run.json") as building:
            for name in kept:
                _link(place / name, building / name)
        return read_run(cell.folder)

    def keep(self, cell: Planned, run: Run) -> None:
        """Store a finished pass, whole or not at all."""
        facts = {"model_fingerprint": run.model_fingerprint, "workload_sha256": run.workload_sha256}
        with whole_folder(self.folder / self.identity(cell, facts), KEPT) as building:
            files = sorted(path for path in cell.folder.iterdir() if path.is_file())
            for path in files:
                _link(path, building / path.name)
            write_json(building / KEPT, {path.name: digest(path) for path in files})


def _link(origin: Path, target: Path) -> None:
    try:
        os.link(origin, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(origin, target)
