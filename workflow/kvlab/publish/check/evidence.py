"""A run's files checked against what they were made from: logs, metrics, workloads, model, machine, claims, pictures.

Each check computes a product again and compares, or takes a digest. What neither can decide is listed in `not_proved`,
so that a reader sees what was not checked.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any

from kvlab.analyse.metrics import analyse
from kvlab.errors import KvlabError
from kvlab.publish.check import claims, made_again
from kvlab.publish.check.found import Found, Sections
from kvlab.quantities import Metrics, Quantity
from kvlab.records import PACKINGS, Run, digest, read_json, read_run

SEALED = ("environment.json", "model/fingerprint.json")  # with costs/: what no check can compute again


def examine(root: Path, section: Sections, sealed: dict[str, str]) -> Found:
    """Check every file that the page of the run in `root` is made from. KvlabError where there are no metrics.

    `section`: a stage's name to its part of the configuration. `sealed`: digests that an earlier verification noted.
    """
    found = Found()
    kept = Metrics.read(root / "metrics.json")
    logs = _raw_logs(root, kept, found)
    if not logs:  # a changed log is the cause; what it changes in the metrics would be named once more
        _metrics(root, kept, section("analyse"), found)
    runs = _runs(root, kept)
    _workloads(root, runs, found)
    _model(root, runs, found)
    _machine(root, runs, found)
    _claims(root, found)
    made_again.pictures(root, section("report"), found)
    if (root / "predicted").exists():
        made_again.predicted(root, section("analyse"), found)
    if (root / "simulated").exists():
        made_again.simulated(root, section, found)
    _unchanged(root, sealed, found)
    return found


def seals(root: Path) -> dict[str, str]:
    """Digests of the files that can't be computed again, for a later verification to compare."""
    names = [name for name in SEALED if (root / name).exists()]
    for stage_name in ("probe", "model", "workload", "measure", "analyse", "notebook"):  # those that the page shows
        place = root / "costs" / stage_name
        found = [*place.rglob("*.tsv"), *place.parent.glob(f"{stage_name}.tsv")]
        names += sorted(str(path.relative_to(root)) for path in found)
    return {name: digest(root / name) for name in names}


def _raw_logs(root: Path, kept: Metrics, found: Found) -> list[str]:
    faults, changed = [], []
    for file, sha256 in kept.files.items():
        try:
            now = digest(root / file)
        except KvlabError as error:
            faults.append(str(error))
        else:
            if now == sha256:
                continue
            faults.append(f"{root / file}: changed: sha256 {now[:12]}…, the metrics were computed from {sha256[:12]}…")
        changed.append(file)
    found.checked["raw logs"] = len(kept.files)
    found.add(faults, str(root / "raw"))
    found.add(f"{file}: {what}" for file in changed if (what := kept.resting_on(file)))
    return changed


def _metrics(root: Path, kept: Metrics, section: dict[str, Any], found: Found) -> None:
    file = root / "metrics.json"
    try:
        now = analyse(section, root)
    except KvlabError as error:
        found.faults.append(str(error))
        return
    found.checked |= {"quantities": len(now.quantities), "guards": len(now.guards)}
    names = sorted({q.id for q in now.quantities} | {q.id for q in kept.quantities})
    pairs = [(name, kept.quantities.get(name), now.quantities.get(name)) for name in names]
    faults = [f"{file}: {name} {_unlike(old, new)}" for name, old, new in pairs if old != new]
    for part in ("guards", "runs", "facts", "files", "run", "schema"):
        if getattr(kept, part) != getattr(now, part):
            faults.append(f"{file}: {part}: not what the raw logs give")
    with tempfile.TemporaryDirectory() as place:
        now.write(Path(place) / "metrics.json")
        if not faults and (Path(place) / "metrics.json").read_bytes() != file.read_bytes():
            faults.append(f"{file}: not the bytes that the raw logs give")
    found.add(faults, str(file))


def _unlike(old: Quantity | None, new: Quantity | None) -> str:
    """What two quantities of one id have other, field by field."""
    if old is None or new is None:
        return f"is {'missing' if old is None else 'there'}, the raw logs give {'it' if new else 'no such quantity'}"
    pairs = [(f.name, getattr(old, f.name), getattr(new, f.name)) for f in fields(old)]
    return "; ".join(f"has {name} {_cut(a)}, the raw logs give {_cut(b)}" for name, a, b in pairs if a != b)


def _cut(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"


def _runs(root: Path, kept: Metrics) -> list[Run]:
    runs = []
    for entry in kept.runs:
        try:
            runs.append(read_run(root / "raw" / entry["workload"] / entry["arm"] / str(entry["repeat"])))
        except KvlabError:  # named where raw logs are checked
            continue
    return runs


def _workloads(root: Path, runs: list[Run], found: Found) -> None:
    """The requests, prompts included, are those that were served: by the digest that each run noted."""
    for name in dict.fromkeys(run.workload for run in runs):
        file = root / "workloads" / f"{name}.jsonl"
        noted = {run.workload_sha256 for run in runs if run.workload == name and run.workload_sha256}
        try:
            now = digest(file)
        except KvlabError as error:
            found.faults.append(str(error))
            continue
        if noted - {now}:
            found.faults.append(
                f"{file}: sha256 {now[:12]}…, the runs were given {', '.join(sha[:12] + '…' for sha in sorted(noted))}"
            )
        found.checked["workloads"] = found.checked.get("workloads", 0) + 1


def _model(root: Path, runs: list[Run], found: Found) -> None:
    """The fingerprint is what the runs noted and what its list of files gives; the files, where they are here."""
    file = root / "model" / "fingerprint.json"
    try:
        document = read_json(file)
        listed = {str(name): str(entry["sha256"]) for name, entry in document.get("files", {}).items()}
        whole = str(document["sha256"])
    except KvlabError as error:
        found.faults.append(str(error))
        return
    except (AttributeError, KeyError, TypeError):
        found.faults.append(f"{file}: not a fingerprint; make it again with: python -m kvlab model")
        return
    noted = {run.model_fingerprint for run in runs if run.model_fingerprint}
    if noted - {whole}:
        found.faults.append(f"{file}: sha256 {whole[:12]}…, the runs noted {', '.join(s[:12] + '…' for s in noted)}")
    if listed and hashlib.sha256("".join(f"{s}  {n}\n" for n, s in listed.items()).encode()).hexdigest() != whole:
        found.faults.append(f"{file}: its sha256 is not that of the files it lists")
    here = [name for name in listed if (root / "model" / name).exists()]
    for name in here:
        with (root / "model" / name).open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != listed[name]:
                found.faults.append(f"{root / 'model' / name}: changed since the fingerprint was taken")
    found.checked["model files"] = len(here)
    if len(here) < len(listed) or not listed:
        found.leave("model", "they are not here")


def _machine(root: Path, runs: list[Run], found: Found) -> None:
    """The logs repeat the engines' versions and the kind of device; nothing else can confirm the rest of the
    description."""
    file = root / "environment.json"
    try:
        document = read_json(file)
        packages, gpus = dict(document["packages"]), list(document["gpus"])
        dict(document["machine"])
    except KvlabError as error:
        found.faults.append(str(error))
        return
    except (KeyError, TypeError, ValueError):
        found.faults.append(f"{file}: not the description of a machine; make it again with: python -m kvlab probe")
        return
    for run in runs:
        name, version = str(run.engine.get("name", "")), run.engine.get("version")
        recorded = {str(v) for package, v in packages.items() if package in (name, f"{name}-cpu")}
        if version and recorded and str(version).split("+")[0] not in {v.split("+")[0] for v in recorded}:
            found.faults.append(f"{file}: {name} {', '.join(recorded)}, {run.workload}/{run.arm} was run by {version}")
        if run.status == "completed" and run.device == "cuda" and not gpus:
            found.faults.append(f"{file}: no GPU, {run.workload}/{run.arm} was run on one")


def _claims(root: Path, found: Found) -> None:
    try:
        kept, now = read_json(root / "claims.json"), claims.document(claims.judge(root))
    except KvlabError as error:
        found.faults.append(str(error))
        return
    found.checked["claims"] = len(now["claims"])
    if kept == json.loads(json.dumps(now)):
        return
    old = kept.get("claims") if isinstance(kept, dict) else None
    differing = [
        f"{root / 'claims.json'}: claim {new['id']} on {new['workload']}: not what the metrics give, {new['verdict']}"
        for place, new in enumerate(now["claims"])
        if not isinstance(old, list) or place >= len(old) or old[place] != json.loads(json.dumps(new))
    ]
    found.add(differing or [f"{root / 'claims.json'}: not the claims that the metrics give"], str(root / "claims.json"))


def _unchanged(root: Path, sealed: dict[str, str], found: Found) -> None:
    for name, sha256 in sealed.items():
        if not any((root / f"{name}{end}").exists() for end in ("", *PACKINGS)):
            found.faults.append(f"{root / name}: missing since the run was verified")
        elif digest(root / name) != sha256:
            found.faults.append(f"{root / name}: changed since the run was verified (verify.json)")
    since = "unchanged since verify.json was written" if sealed else "no verify.json holds its digest yet"
    for key in ("environment", "costs", "fingerprint"):
        found.leave(key, since)
