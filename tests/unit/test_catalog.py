"""What the Snakemake workflow catalog asks of a workflow that its "standardized usage" lists."""

from __future__ import annotations

import filecmp

import yaml

from kvlab.paths import ROOT


def test_the_files_are_where_the_catalog_and_snakedeploy_look():
    for name in ("workflow/Snakefile", "config/README.md", "README.md", "LICENSE", "profiles/default/config.yaml"):
        assert (ROOT / name).is_file(), name
    assert filecmp.cmp(ROOT / "config" / "config.yaml", ROOT / "config" / "smoke.yaml", shallow=False)


def test_what_it_says_of_its_use_is_of_the_catalogs_form():
    described = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text(encoding="utf-8"))
    assert set(described) == {"usage"}
    usage = described["usage"]
    assert set(usage) == {"mandatory-flags", "software-stack-deployment", "report"}
    assert set(usage["mandatory-flags"]) == {"desc", "flags"}
    assert set(usage["software-stack-deployment"]) == {"conda", "singularity", "singularity+conda"}
    assert all(type(value) is bool for value in usage["software-stack-deployment"].values())
    assert usage["report"] is True
