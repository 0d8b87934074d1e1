"""Claims, comparison, crate, packing and replaying, on a real run."""

from __future__ import annotations

import json
import lzma
import re
import shutil

import pytest
import yaml

pytestmark = pytest.mark.engine


@pytest.fixture
def packed(project, tmp_path):
    done = project.kvlab("pack", "results/tiny", str(tmp_path / "packed"))
    assert done.returncode == 0, done.stderr
    return tmp_path / "packed"


def replay(project, packed, into):
    done = project.kvlab("replay", str(packed), "--into", str(into))
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    return done.returncode, done.stdout + done.stderr


def test_a_packed_run_replays_to_the_same_bytes(project, packed, tmp_path):
    code, said = replay(project, packed, tmp_path / "again")
    assert code == 0, said
    assert (tmp_path / "again" / "metrics.json").read_bytes() == (project.run / "metrics.json").read_bytes()
    assert (tmp_path / "again" / "report.html").exists()
    assert "byte for byte" in said
    assert "IPKernelApp" not in said


def test_packing_twice_gives_the_same_bytes(project, packed, tmp_path):
    project.kvlab("pack", "results/tiny", str(tmp_path / "twice"))
    assert (tmp_path / "twice/MANIFEST.sha256").read_bytes() == (packed / "MANIFEST.sha256").read_bytes()


def test_a_flipped_byte_is_named_with_the_numbers_that_rest_on_it(project, packed, tmp_path):
    file = packed / "raw/words/vllm-paged/0/requests.jsonl.xz"
    text = lzma.decompress(file.read_bytes()).decode()
    place = text.index('"finish_s":') + len('"finish_s":')
    changed = text[:place] + ("9" if text[place] != "9" else "8") + text[place + 1 :]
    file.write_bytes(lzma.compress(changed.encode()))
    code, said = replay(project, packed, tmp_path / "again")
    assert code != 0
    assert "raw/words/vllm-paged/0/requests.jsonl.xz: changed" in said
    assert "words.vllm-paged.throughput" in said


def test_swapped_arms_and_a_deleted_log_are_named(project, packed, tmp_path):
    a, b = packed / "raw/queue/vllm-paged", packed / "raw/queue/vllm-contiguous"
    a.rename(packed / "x")
    b.rename(a)
    (packed / "x").rename(b)
    (packed / "raw/words/vllm-paged/0/steps.jsonl.xz").unlink()
    code, said = replay(project, packed, tmp_path / "again")
    assert code != 0
    assert "raw/queue/vllm-paged/0/run.json: changed" in said
    assert "raw/words/vllm-paged/0/steps.jsonl.xz: missing" in said


def test_a_changed_log_is_found_though_its_manifest_was_changed_too(project, packed, tmp_path):
    """A log and its digest that are changed together are found by the metrics: they are not those that were packed."""
    import hashlib

    file = packed / "raw/words/vllm-paged/0/run.json"
    old = hashlib.sha256(file.read_bytes()).hexdigest()
    file.write_text(file.read_text().replace('"weights_bytes": ', '"weights_bytes": 1'))
    manifest = packed / "MANIFEST.sha256"
    manifest.write_text(manifest.read_text().replace(old, hashlib.sha256(file.read_bytes()).hexdigest()))
    code, said = replay(project, packed, tmp_path / "again")
    assert code != 0
    assert "words.vllm-paged.weights.bytes" in said


def test_simulated_paging_holds_what_vllm_held_step_by_step(project):
    metrics = json.loads((project.run / "metrics.json").read_text())
    guards = {g["workload"]: g for g in metrics["guards"] if g["id"] == "simulation"}
    assert {w: g["outcome"] for w, g in guards.items()} == {"words": "pass", "queue": "pass"}, guards
    found = {q["id"]: q["value"] for q in metrics["quantities"]}
    assert found["queue.vllm-paged.served-again.agreement"] == 1.0
    assert (
        found["queue.vllm-paged.served-again.orca-max.running"] < found["queue.vllm-paged.served-again.paged.running"]
    )


def test_claims_are_judged_and_a_failed_one_is_an_exit_code(project, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(project.run, run, ignore=shutil.ignore_patterns("model"))
    done = project.kvlab("claims", str(run))
    verdicts = {(v["id"], v["workload"]): v for v in json.loads((run / "claims.json").read_text())["claims"]}
    assert verdicts["same-tokens", "words"]["verdict"] == "held"
    assert verdicts["same-counts", "words"]["verdict"] == "held"
    undecided = verdicts["paging-is-faster", "queue"]
    assert undecided["verdict"] == "not decided"
    assert undecided["seen"]
    metrics = json.loads((run / "metrics.json").read_text())
    for guard in metrics["guards"]:
        if guard["id"] == "same-outputs":
            guard["outcome"] = "fail"
    (run / "metrics.json").write_text(json.dumps(metrics))
    failed = project.kvlab("claims", str(run))
    assert failed.returncode == 1
    assert re.search(r"^failed +same-tokens", failed.stdout, re.M)
    assert done.returncode in (0, 1)


def test_a_claims_file_that_is_not_one_is_named(tmp_path):
    from kvlab.errors import KvlabError
    from kvlab.publish.check.claims import _read

    (tmp_path / "claims.yaml").write_text(yaml.safe_dump({"claims": [{"id": "x", "relation": "nearly"}]}))
    with pytest.raises(KvlabError, match="claim x: relation must be one of"):
        _read(tmp_path / "claims.yaml")


def test_a_run_compared_with_itself_is_the_same(project):
    from kvlab.publish.check.compare import compare

    lines = compare(project.run, project.run)
    assert {line.verdict for line in lines} <= {"agree", "can't be compared"}
    assert "agree" in {line.verdict for line in lines if line.kind == "claim"}


def test_another_model_or_machine_is_not_compared(project, tmp_path):
    from kvlab.publish.check.compare import compare

    other = tmp_path / "other"
    shutil.copytree(project.run, other, ignore=shutil.ignore_patterns("model"))
    environment = json.loads((other / "environment.json").read_text())
    environment["machine"]["cpu"] = "Another CPU"
    (other / "environment.json").write_text(json.dumps(environment))
    found = {line.id: line for line in compare(project.run, other)}
    assert found["words.vllm-paged.throughput"].verdict == "can't be compared"
    assert "Another CPU" in found["words.vllm-paged.throughput"].why
    assert found["words.vllm-paged.preemptions"].verdict == "agree"
    for file in other.rglob("run.json"):
        file.write_text(file.read_text().replace('"float32"', '"bfloat16"'))
    found = {line.id: line for line in compare(project.run, other)}
    assert "dtype float32 against bfloat16" in found["words.vllm-paged.preemptions"].why


def test_the_crate_of_a_run_holds_what_the_profile_requires(project):
    from tests.fixtures.rocrate import violations

    assert violations(project.run) == []
    document = json.loads((project.run / "ro-crate-metadata.json").read_text(encoding="utf-8"))
    entities = {entity["@id"]: entity for entity in document["@graph"]}
    action = entities[entities["./"]["mentions"]["@id"]]
    for entry in action["object"] + action["result"]:
        assert len(entities[entry["@id"]]["sha256"]) == 64
        assert entry["@id"] in {part["@id"] for part in entities["./"]["hasPart"]}
    results = {entry["@id"] for entry in action["result"]}
    assert {"report.html", "metrics.json", "raw/words/vllm-paged/0/steps.jsonl"} <= results
