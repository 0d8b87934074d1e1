"""A run's products on disk: what is stale though Snakemake can't see it."""

import hashlib
import json
import os

import pytest

from kvlab.dag.products import drop_outdated, mark_stale, process_file, set_aside


def made(tmp_path):
    """A run with a model that is a link to a folder elsewhere, as `prepare.model` leaves it."""
    elsewhere, run = tmp_path / "weights", tmp_path / "run"
    elsewhere.mkdir()
    (run / "model").mkdir(parents=True)
    weights = elsewhere / "model.safetensors"
    weights.write_bytes(b"abc")
    (run / "model" / weights.name).symlink_to(weights)
    known = {weights.name: {"sha256": hashlib.sha256(b"abc").hexdigest(), "bytes": 3}}
    (run / "model" / "fingerprint.json").write_text(json.dumps({"files": known}))
    (run / "model" / "settings-0.json").symlink_to("fingerprint.json")
    return run, run / "model" / "settings-0.json", weights


def test_what_is_as_it_was_made_is_not_stale(tmp_path):
    run, model, _ = made(tmp_path)
    assert mark_stale(run, model) == []
    assert mark_stale(run, run / "model" / "settings-of-another-model.json") == []
    assert model.exists()


@pytest.mark.parametrize("old_times", [False, True])
@pytest.mark.parametrize("content", [b"abd", b"abcd"])
def test_weights_that_were_replaced_are_seen_whatever_time_they_have(tmp_path, content, old_times):
    run, model, weights = made(tmp_path)
    new = weights.with_name("new")
    new.write_bytes(content)
    if old_times:
        os.utime(new, (1, 1))
    new.replace(weights)
    for _ in range(2):  # a second dry run says it again
        assert mark_stale(run, model) == [f"{weights} changed since its digest was taken"]
        assert not model.exists()


def test_weights_that_were_only_touched_are_the_same(tmp_path):
    run, model, weights = made(tmp_path)
    later = weights.stat().st_mtime + 100
    os.utime(weights, (later, later))
    assert mark_stale(run, model) == []
    assert model.exists()


def test_weights_that_are_gone_are_named_until_they_are_back(tmp_path):
    run, model, weights = made(tmp_path)
    weights.unlink()
    assert mark_stale(run, model) == [f"{run / 'model' / weights.name} is gone"]
    assert not model.exists()
    weights.write_bytes(b"abc")
    assert mark_stale(run, model) == []
    assert model.exists()


@pytest.mark.parametrize("place", ["figures", "simulated/figures"])
def test_a_figure_that_is_gone_is_named(tmp_path, place):
    run, model, _ = made(tmp_path)
    folder = run / place
    folder.mkdir(parents=True)
    files = {language: {"file": f"a.{language}.svg"} for language in ("en", "zh")}
    (folder / "figures.json").write_text(json.dumps({"figures": [{"files": files}]}))
    (folder / "a.en.svg").touch()
    assert mark_stale(run, model) == [f"{folder / 'a.zh.svg'} is gone"]
    assert not (folder / "figures.json").exists()
    (folder / "a.zh.svg").touch()
    assert mark_stale(run, model) == []
    assert (folder / "figures.json").exists()


def test_a_page_is_outdated_until_there_is_a_new_one(tmp_path):
    page, outdated = tmp_path / "report.html", tmp_path / "report.outdated.html"
    set_aside(tmp_path)  # a first run has none
    page.write_text("old")
    (tmp_path / "verify.json").touch()
    set_aside(tmp_path)
    assert not page.exists()
    assert not (tmp_path / "verify.json").exists()
    set_aside(tmp_path)  # a second failure leaves it
    drop_outdated(tmp_path)
    assert outdated.read_text() == "old"
    page.write_text("new")
    drop_outdated(tmp_path)
    assert not outdated.exists()


def test_a_raw_log_that_is_gone_is_named_by_the_process_that_lists_it(tmp_path):
    run, model, _ = made(tmp_path)
    log, listing = run / "raw/w/a/0/steps.jsonl", process_file(run, "w", "vllm", 0)
    log.parent.mkdir(parents=True)
    log.touch()
    listing.parent.mkdir(parents=True)
    listing.write_text(json.dumps({"files": {"raw/w/a/0/steps.jsonl": "0"}}))
    assert mark_stale(run, model) == []
    log.rename(tmp_path / "kept")
    assert mark_stale(run, model) == [f"{log} is gone"]
    assert not listing.exists()
    (tmp_path / "kept").rename(log)
    assert mark_stale(run, model) == []
    assert listing.exists()
