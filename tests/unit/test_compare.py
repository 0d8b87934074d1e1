"""Whether two runs agree: claims and factors first, a margin that counts as the same, reasons for the rest."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.fixtures.small_run import build

from kvlab import cli
from kvlab.publish.check.compare import compare


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return build(tmp_path_factory.mktemp("compare") / "small", figures=False)


@pytest.fixture
def other(small, tmp_path):
    return Path(shutil.copytree(small, tmp_path / "other"))


def scaled(run, name, factor, interval=None):
    """Multiply a quantity of a run's metrics."""
    file = run / "metrics.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    quantity = next(q for q in document["quantities"] if q["id"] == name)
    quantity["value"] *= factor
    quantity["interval"] = interval and [end * quantity["value"] for end in interval]
    file.write_text(json.dumps(document), encoding="utf-8")


def line(small, other, name, **options):
    return next(one for one in compare(small, other, **options) if one.id == name)


def test_a_run_agrees_with_itself(small, capsys):
    assert cli.main(["compare", str(small), str(small)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("The conclusions agree: of ")
    assert ", 0 differ," in said.split("\n")[0]


@pytest.mark.parametrize(
    ("factor", "interval", "margin", "verdict"),
    [
        (1.019, None, 0.02, "agree"),
        (1.019, (0.9999, 1.0001), 0.02, "agree"),  # intervals apart, but within the margin
        (1.05, None, 0.02, "differ"),
        (1.05, None, 0.10, "agree"),
        (1.05, (0.5, 1.5), 0.02, "agree"),
        (1.05, (0.999, 1.001), 0.02, "differ"),
    ],
)
def test_a_margin_counts_as_the_same(small, other, factor, interval, margin, verdict):
    name = "seed.vllm-paged.throughput"
    scaled(other, name, factor, interval)
    assert line(small, other, name, margin=margin).verdict == verdict


def test_values_that_are_shown_alike_never_differ(small, other):
    """A reader can't see in what < 0.001 s and < 0.001 s differ, whatever their intervals."""
    for run, value in ((small, 2e-4), (other, 8e-4)):
        file = run / "metrics.json"
        before = file.read_text(encoding="utf-8")
        document = json.loads(before)
        for quantity in document["quantities"]:
            if quantity["unit"] in ("s", "ms") and quantity["value"] is not None:
                quantity["value"], quantity["interval"] = value, [value, value]
        file.write_text(json.dumps(document), encoding="utf-8")
        if run is small:
            kept = before
    try:
        lines = compare(small, other)
    finally:
        (small / "metrics.json").write_text(kept, encoding="utf-8")
    alike = [one for one in lines if one.ours == one.theirs and one.why == "the same as shown"]
    assert {one.ours for one in alike} == {"<\u00a00.001\u00a0s", "<\u00a00.001\u00a0ms"}
    assert not [one for one in lines if one.verdict == "differ" and one.ours == one.theirs]


def test_a_factor_that_differs_is_a_conclusion_that_differs(small, other, capsys):
    scaled(other, "seed.speedup", 2.0)
    assert line(small, other, "seed.speedup").kind == "factor"
    assert cli.main(["compare", str(small), str(other)]) == 1
    said = capsys.readouterr().out
    assert said.startswith("The conclusions differ: ")
    assert next(row for row in said.split("\n") if row.startswith("differ")).split()[1] == "seed.speedup"


def test_a_claim_that_differs_is_a_conclusion_that_differs(small, other):
    file = other / "metrics.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    guard = next(g for g in document["guards"] if g["id"] == "no-prefix-cache" and g["workload"] == "seed")
    guard["outcome"] = "fail"
    file.write_text(json.dumps(document), encoding="utf-8")
    found = line(small, other, "seed.no-prefix-cache")
    assert (found.kind, found.verdict, found.ours, found.theirs) == ("claim", "differ", "held", "failed")


def test_another_machine_keeps_its_claims_and_what_does_not_depend_on_it(small, other):
    environment = json.loads((other / "environment.json").read_text())
    environment["machine"]["cpu"] = "Another CPU"
    (other / "environment.json").write_text(json.dumps(environment))
    assert line(small, other, "seed.no-prefix-cache").verdict == "agree"
    assert line(small, other, "seed.vllm-paged.efficiency").verdict == "agree"
    found = line(small, other, "seed.vllm-paged.throughput")
    assert (found.verdict, "Another CPU" in found.why) == ("can't be compared", True)


def test_the_long_list_comes_only_when_it_is_asked_for(small, capsys):
    cli.main(["compare", str(small), str(small)])
    short = capsys.readouterr().out
    cli.main(["compare", str(small), str(small), "--all"])
    long = capsys.readouterr().out
    assert "seed.vllm-paged.pool.slots" in long
    assert "seed.vllm-paged.pool.slots" not in short
    for group in ("claims and factors", "memory", "speed", "costs of paging"):
        assert group in short
