"""What is said about the project in several places is the same everywhere."""

import json
import re
from pathlib import Path

import yaml

from kvlab import __version__

ROOT = Path(__file__).resolve().parents[2]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
ZENODO = json.loads((ROOT / ".zenodo.json").read_text(encoding="utf-8"))


def test_citation_zenodo_and_package_agree():
    assert CITATION["title"] == ZENODO["title"]
    assert CITATION["version"] == ZENODO["version"] == __version__
    assert CITATION["license"] == ZENODO["license"]
    assert [author["name"] for author in CITATION["authors"]] == [person["name"] for person in ZENODO["creators"]]
    assert CITATION["keywords"] == ZENODO["keywords"]
    assert CITATION["abstract"].strip() == ZENODO["description"]
    assert CITATION["references"][0]["doi"] == ZENODO["related_identifiers"][0]["identifier"]


def test_the_licence_is_the_one_that_is_named():
    assert CITATION["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")[:300]


def test_the_changelog_has_an_entry_for_this_version():
    releases = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert releases[0] == __version__
