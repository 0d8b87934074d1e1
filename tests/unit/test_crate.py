"""The crate of a packed run, judged by the validator of the profile, and read as a generic viewer reads it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rocrate.rocrate import ROCrate
from tests.fixtures.rocrate import violations

from kvlab import paths
from kvlab.publish.check.crate import describe
from kvlab.publish.check.packed import unpack

pytestmark = pytest.mark.slow

REFERENCE = Path(__file__).resolve().parents[2] / "results" / "reference" / "smoke-cpu"


@pytest.fixture(scope="module")
def crate(tmp_path_factory):
    run = tmp_path_factory.mktemp("crate") / "smoke-cpu"
    assert unpack(REFERENCE, run) == []
    describe(run, paths.ROOT)
    return run


def test_it_holds_what_the_profile_requires(crate):
    assert violations(crate) == []


def test_the_validator_finds_what_is_missing(crate, tmp_path):
    """The validator must find a fault where there is one, or a pass would show nothing."""
    file = crate / "ro-crate-metadata.json"
    kept = file.read_text(encoding="utf-8")
    document = json.loads(kept)
    for entity in document["@graph"]:
        entity.pop("instrument", None)
    file.write_text(json.dumps(document), encoding="utf-8")
    try:
        found = violations(crate)
    finally:
        file.write_text(kept, encoding="utf-8")
    assert any("instrument" in line for line in found)


def test_a_generic_reader_finds_the_workflow_and_the_run(crate):
    read = ROCrate(crate)
    assert [entity.id for entity in read.root_dataset["conformsTo"]][1] == "https://w3id.org/ro/wfrun/workflow/0.6"
    assert read.mainEntity.id == "workflow/Snakefile"
    assert (crate / read.mainEntity.id).read_text() == (paths.ROOT / "Snakefile").read_text()
    run = read.dereference("#run")
    assert run["instrument"] == read.mainEntity
    for entity in run["object"] + run["result"] + read.mainEntity["hasPart"]:
        assert (crate / entity.id).is_file()
    assert {"workflow/measure.smk", "workflow/publish.smk"} <= {part.id for part in read.mainEntity["hasPart"]}


def test_describing_twice_gives_the_same_bytes(crate):
    before = (crate / "ro-crate-metadata.json").read_bytes()
    describe(crate, paths.ROOT)
    assert (crate / "ro-crate-metadata.json").read_bytes() == before
