"""A reference run: packed to be committed, and replayed by anyone without an engine.

Packed, a run keeps its raw logs (gzipped: `zcat` reads them), its metrics and what they were made from, and a manifest
of digests. Replaying computes everything after the measurements again, from those logs alone, and holds the metrics
against the packed ones byte for byte.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
from pathlib import Path

from kvlab.errors import KvlabError
from kvlab.quantities import Metrics
from kvlab.records import RAW_FILES, read_run, read_text, whole_folder, write_text

MANIFEST = "MANIFEST.sha256"
PLAIN = ("config.json", "environment.json", "metrics.json", "model/fingerprint.json")


def pack(run: Path, folder: Path) -> int:
    """Pack the run into `folder`, whole or not at all; returns the bytes it takes. Nothing is edited on the way."""
    metrics = Metrics.read(run / "metrics.json")
    with whole_folder(folder) as building:
        for name in PLAIN:
            _copy(run / name, building / name)
        for path in sorted((run / "workloads").glob("*.jsonl")):
            _squeeze(path, building / "workloads" / f"{path.name}.gz")
        for entry in metrics.runs:
            place = Path("raw") / entry["workload"] / entry["arm"] / str(entry["repeat"])
            read_run(run / place)
            for name in RAW_FILES:
                if name == "run.json":
                    _copy(run / place / name, building / place / name)
                else:
                    _squeeze(run / place / name, building / place / f"{name}.gz")
        for path in sorted((run / "costs").rglob("*.tsv")):
            _copy(path, building / path.relative_to(run))
        files = sorted(p for p in building.rglob("*") if p.is_file())
        lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(building)}" for p in files]
        write_text(building / MANIFEST, "\n".join(lines) + "\n")
        return sum(p.stat().st_size for p in files)


def unpack(folder: Path, run: Path) -> list[str]:
    """Lay a packed run out where the stages can work on it; returns what its manifest finds wrong, a line a file."""
    faults = check(folder)
    with whole_folder(run) as building:
        for path in folder.rglob("*"):
            if path.is_file() and path.name != MANIFEST:
                _copy(path, building / path.relative_to(folder))
    return faults


def check(folder: Path) -> list[str]:
    """Files that are missing, changed, or not in the manifest."""
    manifest = folder / MANIFEST
    if not manifest.exists():
        raise KvlabError(f"{manifest}: no such file; {folder} is not a packed run")
    known = {line[66:]: line[:64] for line in read_text(manifest).splitlines()}
    faults = []
    for name, sha256 in known.items():
        path = folder / name
        if not path.exists():
            faults.append(f"{path}: missing")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            faults.append(f"{path}: changed since it was packed")
    there = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} - {MANIFEST}
    return faults + [f"{folder / name}: not in the manifest" for name in sorted(there - set(known))]


def affected(folder: Path, faults: list[str]) -> list[str]:
    """Which numbers rest on the files that faults name, a line a file."""
    metrics = Metrics.read(folder / "metrics.json")
    return [
        f"{file}: {what}"
        for file in metrics.files
        if any(f"{folder / file}{end}" in fault for fault in faults for end in (":", ".gz:"))
        and (what := metrics.resting_on(file))
    ]


def same_metrics(folder: Path, now: Path) -> list[str]:
    """What the metrics computed `now` have other than the packed ones; empty where they are the same bytes."""
    if (folder / "metrics.json").read_bytes() == now.read_bytes():
        return []
    old, new = Metrics.read(folder / "metrics.json").quantities, Metrics.read(now).quantities
    names = sorted({q.id for q in old} | {q.id for q in new})
    wrong = [name for name in names if old.get(name) != new.get(name)]
    return [f"{now}: {name} is not what {folder / 'metrics.json'} has" for name in wrong] or [
        f"{now}: not the bytes of {folder / 'metrics.json'}"
    ]


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _squeeze(source: Path, target: Path) -> None:
    """Gzip without a name or time inside, so that the same log packs to the same bytes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(gzip.compress(source.read_bytes(), compresslevel=9, mtime=0))
