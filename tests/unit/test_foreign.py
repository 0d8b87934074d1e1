"""A run belongs to its own requests and model: `analyse` refuses others, `verify` names them."""

import json
import shutil
from pathlib import Path

import pytest
from tests.fixtures.small_run import build

from kvlab.cli import main
from kvlab.publish.check.verify import verify
from kvlab.publish.page import render

SECTIONS = {
    "analyse": {"analysis": {"bootstrap_resamples": 100, "confidence": 0.95}, "run": "small", "raw": [], "arms": {}}
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    run = build(tmp_path_factory.mktemp("run") / "small", figures=False)
    render.render({}, run)
    return run


@pytest.fixture
def run(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "small"))


def other_requests(run):
    file = run / "workloads" / "seed.jsonl"
    file.write_text(file.read_text().replace('"max_new_tokens":24', '"max_new_tokens":25', 1))
    return "served other requests"


def other_model(run):
    file = run / "model" / "fingerprint.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"sha256": "0" * 64}))
    return "ran another model"


def no_requests(run):
    (run / "workloads" / "seed.jsonl").unlink()
    return "seed.jsonl: no such file"


def test_its_own_requests_and_model_are_accepted(run):
    assert main(["analyse", str(run)]) == 0


@pytest.mark.parametrize(
    ("change", "file"),
    [
        (other_requests, "seed.jsonl: sha256"),
        (other_model, "fingerprint.json"),
        (no_requests, "seed.jsonl: no such file"),
    ],
)
def test_others_are_refused_and_named(run, capfd, change, file):
    def named():
        faults = verify(run / "report.html", lambda name: SECTIONS.get(name, {})).faults
        return [fault for fault in faults if file in fault]

    assert named() == []
    kept, said = (run / "metrics.json").read_bytes(), change(run)
    assert main(["analyse", str(run)]) == 2
    assert said in capfd.readouterr().err
    assert (run / "metrics.json").read_bytes() == kept
    assert named()
