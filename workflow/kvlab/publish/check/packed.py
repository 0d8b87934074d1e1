"""A reference run: packed to be committed, and replayed by anyone without an engine.

Packed, a run keeps its raw logs and metrics (compressed: `xzcat` reads them; of equal logs one is a link to the
other), what they were made from, and a manifest of digests. Replaying computes everything after the measurements
again, from those logs alone, and holds the metrics against the packed ones byte for byte.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from kvlab import config
from kvlab.analyse.metrics import analyse
from kvlab.errors import KvlabError
from kvlab.folders import whole_folder
from kvlab.paths import PREDICTIONS
from kvlab.publish import notebook
from kvlab.publish.check import claims
from kvlab.publish.check.verify import verify
from kvlab.publish.page.render import render
from kvlab.quantities import Metrics
from kvlab.records import PACKINGS, PREEMPTIONS, RAW_FILES, read_run, read_text, there, write_text
from kvlab.simulate.forecasts import before
from kvlab.terminal import say

MANIFEST = "MANIFEST.sha256"
STRANGE = "not in the manifest"
REPLAYED = ".kvlab-replay"  # marks a folder that a replay made
PLAIN = ("config.json", "environment.json", "model/fingerprint.json")
METRICS = "metrics.json.xz"


def pack(run: Path, folder: Path) -> int:
    """Pack the run into `folder`, whole or not at all; returns the bytes it takes. The files are copied unchanged."""
    metrics = Metrics.read(run / "metrics.json")
    if (folder / MANIFEST).exists():
        own = [fault for fault in check(folder) if fault.endswith(STRANGE)]
        if own:
            raise KvlabError(f"{own[0]}: not replaced, it would be lost; move it away or name another folder")
    with whole_folder(folder, MANIFEST) as building:
        for name in PLAIN:
            _copy(run / name, building / name)
        (building / METRICS).write_bytes(_squeezed(run / "metrics.json"))
        for name in sorted({path.name.partition(".")[0] for path in (run / "workloads").glob("*.jsonl*")}):
            place = Path("workloads") / f"{name}.jsonl.xz"
            beside = [twin for twin in sorted(folder.parent.glob(f"*/{place}")) if twin != folder / place]
            _squeeze(run / "workloads" / f"{name}.jsonl", building / place, beside)
        for entry in metrics.runs:
            place = Path("raw") / entry["workload"] / entry["arm"] / str(entry["repeat"])
            read_run(run / place)
            for name in (*RAW_FILES, *([PREEMPTIONS] if there(run / place / PREEMPTIONS) else [])):
                if name == "run.json":
                    _copy(run / place / name, building / place / name)
                else:
                    _squeeze(run / place / name, building / place / f"{name}.xz")
        for path in sorted((run / "costs").rglob("*.tsv")):
            _copy(path, building / path.relative_to(run))
        files = sorted(p for p in building.rglob("*") if p.is_file())
        lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(building)}" for p in files]
        write_text(building / MANIFEST, "\n".join(lines) + "\n")
        return sum(p.lstat().st_size for p in files)


def repack(folder: Path) -> int:
    """Pack a reference again from its own raw logs, after the quantities or their ids have changed.

    Returns the bytes it takes. KvlabError where a file is not as it was packed: the logs may have been changed.
    """
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / folder.name
        if faults := unpack(folder, run):
            raise KvlabError(f"{faults[0]}; a reference is packed again only from logs that are as they were packed")
        section = config.load(run / "config.json").section("analyse")
        analyse(section, run).write(run / "metrics.json")
        return pack(run, folder)


def unpack(folder: Path, run: Path) -> list[str]:
    """Unpack a run to a folder that the stages can work on; returns what its manifest finds wrong, a line a file.

    A changed file is followed by the quantities computed from it.
    """
    faults = check(folder)
    with whole_folder(run, REPLAYED) as building:
        for path in folder.rglob("*"):
            if path.is_file() and path.name not in (MANIFEST, METRICS):
                _copy(path, building / path.relative_to(folder))
        write_text(building / "metrics.json", read_text(folder / "metrics.json"))
    return faults + affected(folder, faults)


def replay(folder: Path, run: Path) -> list[str]:
    """Run all stages after the measurements on `run`, unpacked from `folder`; returns what is not as it was packed.

    Stops where the metrics differ: the page would show other numbers.
    """
    section = config.load(run / "config.json").section
    metrics = analyse(section("analyse"), run)
    metrics.write(run / "metrics.json")
    if faults := same_metrics(folder, run / "metrics.json"):
        return faults
    say(f"replay: {len(metrics.quantities)} quantities from {len(metrics.files)} raw logs, the same bytes")
    asked = section("analyse")
    before.calibrate(run, asked, PREDICTIONS / f"{asked['run']}.json")
    say(f"replay: {notebook.execute(section('notebook'), run)} figures")
    claims.write(run)
    render(section("report"), run)
    return verify(run / "report.html", section).faults


def check(folder: Path) -> list[str]:
    """Files that are missing, changed, or not in the manifest."""
    manifest = folder / MANIFEST
    if not manifest.exists():
        raise KvlabError(f"{manifest}: no such file; {folder} is not a packed run")
    known = {line[66:]: line[:64] for line in read_text(manifest).split("\n") if line}
    faults = []
    for name, sha256 in known.items():
        path = folder / name
        if not path.exists():
            faults.append(f"{path}: missing")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            faults.append(f"{path}: changed since it was packed")
    there = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} - {MANIFEST}
    return faults + [f"{folder / name}: {STRANGE}" for name in sorted(there - set(known))]


def affected(folder: Path, faults: list[str]) -> list[str]:
    """Which numbers were computed from the files that faults name, a line a file."""
    metrics = Metrics.read(folder / "metrics.json")
    return [
        f"{file}: {what}"
        for file in metrics.files
        if any(f"{folder / file}{end}" in fault for fault in faults for end in (":", *PACKINGS))
        and (what := metrics.resting_on(file))
    ]


def same_metrics(folder: Path, now: Path) -> list[str]:
    """What the metrics computed `now` have other than the packed ones; empty where they are the same bytes."""
    if read_text(folder / "metrics.json") == read_text(now):
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


def _squeezed(source: Path) -> bytes:
    return lzma.compress(read_text(source).encode(), preset=9 | lzma.PRESET_EXTREME)


def _squeeze(source: Path, target: Path, beside: Sequence[Path] = ()) -> None:
    """Compress `source` to `target`; the same log packs to the same bytes.

    Where a repeat has an equal log, or `beside` (the same file of packed runs in the same folder), it becomes a link.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    packed = _squeezed(source)
    for twin in [*sorted(target.parent.parent.glob(f"*/{target.name}")), *beside]:
        if not twin.is_symlink() and twin.read_bytes() == packed:
            target.symlink_to(os.path.relpath(twin, target.parent))
            return
    target.write_bytes(packed)
