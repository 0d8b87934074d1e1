"""`ro-crate-metadata.json`: a run described for others, as a Workflow Run RO-Crate.

Profiles: Workflow Run Crate 0.6 (https://w3id.org/ro/wfrun/workflow/0.6) on RO-Crate 1.1. The workflow, of which the
crate holds a copy, is the root's `mainEntity`; the run is a `CreateAction` whose `instrument` is the workflow, `object`
its inputs, `result` its outputs.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kvlab.errors import KvlabError
from kvlab.quantities import Metrics
from kvlab.records import PACKINGS, Phase, read_json, read_lines, read_run, write_text

PROFILES = (
    "https://w3id.org/ro/wfrun/process/0.6",
    "https://w3id.org/ro/wfrun/workflow/0.6",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0",
)
PUBLISHED = ("metrics.json", "analysis.ipynb", "claims.json", "report.html", "verify.json")
TERMS = "https://w3id.org/ro/terms/workflow-run/context"  # containerImage and the like
KINDS = {"oci": "DockerImage", "apptainer": "SIFImage"}
LICENCE = "https://spdx.org/licenses/Apache-2.0"


def describe(root: Path, project: Path) -> dict[str, Any]:
    """Write the crate's metadata and a copy of the workflow into the run's folder; returns the metadata.

    `project`: the folder of the Snakefile.

    Raises KvlabError where a stage that the crate describes has not run.
    """
    from rocrate.model.contextentity import ContextEntity
    from rocrate.rocrate import ROCrate

    environment = read_json(root / "environment.json")
    started, ended = _times(root)
    crate = ROCrate(gen_preview=False, version="1.1")
    crate.metadata.extra_contexts.append(TERMS)
    crate.root_dataset["datePublished"] = ended
    crate.root_dataset["name"] = f"KV-cache memory and time under PagedAttention: run {root.name}"
    crate.root_dataset["description"] = "Raw logs, metrics and report of one run, and the workflow that made them."
    crate.root_dataset["license"] = crate.add(
        ContextEntity(crate, LICENCE, {"@type": "CreativeWork", "name": "Apache-2.0"})
    )
    profiles = [crate.add(ContextEntity(crate, p, {"@type": "CreativeWork", "name": _profile(p)})) for p in PROFILES]
    crate.root_dataset["conformsTo"] = profiles

    workflow, *rules = _workflow(crate, root, project)
    workflow["name"] = "The PagedAttention memory experiment"
    workflow["hasPart"] = rules
    revision = (environment.get("git") or {}).get("revision")
    if revision:
        workflow["version"] = revision
    software = [_software(crate, name, version) for name, version in sorted(environment["packages"].items())]
    software.append(_software(crate, "python", environment["python"]["version"]))

    inputs = [_file(crate, root, "config.json")]
    inputs += [_file(crate, root, str(p.relative_to(root))) for p in sorted((root / "workloads").glob("*.jsonl*"))]
    inputs.append(_file(crate, root, "model/fingerprint.json"))
    results = [_file(crate, root, name) for name in PUBLISHED if (root / name).exists() or name == "metrics.json"]
    results += [_file(crate, root, name) for name in _raw(root)]
    action = ContextEntity(
        crate,
        "#run",
        {
            "@type": "CreateAction",
            "name": f"Run {root.name}",
            "description": "Probe, model, workloads, measurements, analysis, notebook, report, and its verification",
            "startTime": started,
            "endTime": ended,
            "actionStatus": "http://schema.org/CompletedActionStatus",
        },
    )
    crate.add(action)
    action["instrument"] = workflow
    action["object"] = inputs
    action["result"] = results
    agent = crate.add(ContextEntity(crate, "#whoever-ran-it", {"@type": "Person", "name": "whoever ran the workflow"}))
    action["agent"] = agent
    crate.root_dataset["author"] = agent
    container = environment.get("container")
    if container:
        image = ContextEntity(
            crate,
            "#image",
            {
                "@type": "ContainerImage",
                "name": container.get("image") or "container",
                "additionalType": {
                    "@id": TERMS.removesuffix("/context") + "#" + KINDS.get(container["engine"], "SIFImage")
                },
            },
        )
        label = container.get("label") or {}
        if isinstance(label, dict) and label.get("digest"):
            image["sha256"] = label["digest"]
        action["containerImage"] = crate.add(image)
    workflow["softwareRequirements"] = software
    crate.root_dataset["mentions"] = action
    document: dict[str, Any] = crate.metadata.generate()
    _steady(document, ended)
    write_text(
        root / "ro-crate-metadata.json", json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    )
    return document


def _steady(document: dict[str, Any], ended: str) -> None:
    """The same run gives the same bytes: no time of writing, entities in order."""
    for entity in document["@graph"]:
        if entity["@id"] == "./":
            entity["datePublished"] = ended
    document["@graph"].sort(key=lambda entity: str(entity["@id"]))


def _profile(address: str) -> str:
    name, version = address.rstrip("/").split("/")[-2:]
    return {"process": "Process Run Crate", "workflow": "Workflow Run Crate"}.get(
        name, "Workflow RO-Crate"
    ) + f" {version}"


def _software(crate: Any, name: str, version: str) -> Any:
    from rocrate.model.contextentity import ContextEntity

    home = (
        f"https://pypi.org/project/{name}/{version}/"
        if name != "python"
        else f"https://docs.python.org/release/{version}/"
    )
    facts = {"@type": "SoftwareApplication", "name": name, "softwareVersion": version, "url": home}
    return crate.add(ContextEntity(crate, home, facts))


def _workflow(crate: Any, root: Path, project: Path) -> list[Any]:
    """The Snakefile and its rules, copied into `workflow/` of the run's folder."""
    entities: list[Any] = []
    for path in [project / "Snakefile", *sorted((project / "workflow" / "rules").glob("*.smk"))]:
        name = f"workflow/{path.name}"
        write_text(root / name, path.read_text(encoding="utf-8"))
        facts = {"encodingFormat": "text/plain"}
        if entities:
            facts |= {"name": path.stem}
            entities.append(crate.add_file(root / name, name, properties=facts, fetch_remote=False))
        else:
            main = crate.add_workflow(
                root / name, name, main=True, lang="snakemake", fetch_remote=False, properties=facts
            )
            entities.append(main)
    return entities


def _file(crate: Any, root: Path, name: str) -> Any:
    path = root / name
    path = next((named for end in ("", *PACKINGS) if (named := path.with_name(path.name + end)).exists()), path)
    if not path.exists():
        raise KvlabError(f"{root / name}: no such file; the crate describes a run that is complete")
    data = path.read_bytes()
    kinds = {
        ".json": "application/json",
        ".html": "text/html",
        ".gz": "application/gzip",
        ".xz": "application/x-xz",
        ".ipynb": "application/x-ipynb+json",
    }
    facts = {
        "sha256": hashlib.sha256(data).hexdigest(),
        "contentSize": str(len(data)),
        "encodingFormat": kinds.get(path.suffix, "application/jsonl"),
    }
    return crate.add_file(path, str(path.relative_to(root)), properties=facts, fetch_remote=False)


def _raw(root: Path) -> list[str]:
    return sorted(Metrics.read(root / "metrics.json").files)


def _times(root: Path) -> tuple[str, str]:
    """When the first measurement began and the last one ended, UTC."""
    starts, ends = [], []
    for started, seconds in _spans(root):
        starts.append(started)
        ends.append(started + datetime.timedelta(seconds=seconds))
    if not starts:
        raise KvlabError(f"{root}: no measurement has run; there is nothing to describe")
    return min(starts).isoformat(timespec="seconds"), max(ends).isoformat(timespec="seconds")


def _spans(root: Path) -> Iterator[tuple[datetime.datetime, float]]:
    for entry in Metrics.read(root / "metrics.json").runs:
        folder = root / "raw" / entry["workload"] / entry["arm"] / str(entry["repeat"])
        run = read_run(folder)
        if run.started_utc:
            phases = read_lines(folder / "phases.jsonl", Phase)
            yield datetime.datetime.fromisoformat(run.started_utc), max((p.end_s for p in phases), default=0.0)
