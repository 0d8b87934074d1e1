"""Packed runs, packed again from their own logs."""

import dataclasses
import hashlib
import html
import json
import lzma
import re
import shutil
from pathlib import Path

import pytest
from tests.fixtures import small_run

from kvlab.errors import KvlabError
from kvlab.publish.check import packed
from kvlab.publish.words.strings import said
from kvlab.quantities import Metrics
from kvlab.raw import RawRun

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    place = tmp_path_factory.mktemp("packed")
    packed.pack(small_run.build(place / "small", figures=False), place / "reference")
    return place / "reference"


@pytest.fixture
def reference(once, tmp_path):
    return shutil.copytree(once, tmp_path / "reference", symlinks=True)


def test_a_repeats_equal_log_is_a_link_and_reads_the_same(reference):
    links = [path for path in reference.rglob("*") if path.is_symlink()]
    assert links
    assert all(path.resolve().is_relative_to(reference) and path.name == path.resolve().name for path in links)
    assert packed.check(reference) == []


def test_repacking_what_is_current_changes_nothing(reference, tmp_path):
    shutil.copytree(reference, tmp_path / "again", symlinks=True)
    packed.repack(tmp_path / "again")
    assert (tmp_path / "again" / packed.MANIFEST).read_bytes() == (reference / packed.MANIFEST).read_bytes()


def test_repacking_computes_the_metrics_from_the_logs(reference):
    """A metrics file of an older version, packed as it was then: afterwards it holds what the logs give now."""
    file = reference / packed.METRICS
    right = file.read_bytes()
    document = json.loads(lzma.decompress(right))
    document["quantities"] = document["quantities"][1:]
    file.write_bytes(lzma.compress(json.dumps(document).encode()))
    manifest = reference / packed.MANIFEST
    old = [line for line in manifest.read_text().splitlines() if not line.endswith(f"  {packed.METRICS}")]
    now = hashlib.sha256(file.read_bytes()).hexdigest()
    manifest.write_text("\n".join([*old, f"{now}  {packed.METRICS}"]) + "\n")
    packed.repack(reference)
    assert file.read_bytes() == right


def test_requests_that_a_run_beside_has_too_are_a_link_to_them(once, tmp_path):
    shutil.copytree(once, tmp_path / "a", symlinks=True)
    assert packed.unpack(once, tmp_path / "b-run") == []
    packed.pack(tmp_path / "b-run", tmp_path / "b")
    (link, *more) = (tmp_path / "b" / "workloads").iterdir()
    assert all(one.is_symlink() for one in (link, *more))
    assert link.resolve() == (tmp_path / "a" / "workloads" / link.name).resolve()
    for one in ("a", "b"):
        packed.repack(tmp_path / one)
        assert packed.check(tmp_path / one) == []


def test_logs_that_were_changed_are_not_packed_anew(reference):
    file = next(reference.rglob("run.json"))
    file.write_text(file.read_text() + " ")
    with pytest.raises(KvlabError, match="changed since it was packed"):
        packed.repack(reference)


def test_the_sample_page_shows_the_packed_runs_numbers():
    """Whether its text and style are current too, `make replay` says."""
    page = (ROOT / "docs" / "sample" / "report.html").read_text(encoding="utf-8")
    shown = json.loads(re.search(r'id="trail-data">(.*?)</script>', page, re.DOTALL).group(1))
    reference = ROOT / "results" / "reference" / shown["run"]
    known = {q.id: q for q in Metrics.read(reference / "metrics.json").quantities}
    assert known.keys() <= shown["quantities"].keys(), "make repack"
    for name, quantity in known.items():
        entry = shown["quantities"][name]
        assert entry.get("x") == (None if quantity.value is None else repr(quantity.value)), name
        files = [shown["files"][file] for file, _ in shown["sources"][entry["s"]]]
        assert files == [[source.file, source.sha256] for source in quantity.sources], name
    differs = next(guard for guard in Metrics.read(reference / "metrics.json").guards if guard["id"] == "same-engine")
    card = page.split('<section id="answer"')[1].split("</section>")[0]
    assert (said("en", differs["detail"]) in html.unescape(card)) == (differs["outcome"] == "fail")


@pytest.mark.parametrize("arm", ["vllm-contiguous", "vllm-paged"])
def test_two_gpus_hold_the_blocks_of_one_at_every_step(arm):
    """Tensor parallel 2 on H100s: the cache of each request, its blocks and preemptions are those of one worker."""
    one, two = (
        [RawRun.read(ROOT / "results/reference" / run, "azure-conv", arm, repeat) for repeat in (0, 1)]
        for run in ("llama-8b-tp1", "llama-8b-tp2")
    )
    steps = [[dataclasses.replace(step, t_s=0.0) for step in raw.steps] for raw in (*one, *two)]
    assert steps[0] == steps[1] == steps[2] == steps[3]
    assert [raw.run.engine.get("kv_bytes_each") for raw in two] == [[two[0].run.kv_pool_bytes // 2] * 2] * 2
    assert {raw.run.kv_pool_bytes for raw in (*one, *two)} == {one[0].run.kv_pool_bytes}
