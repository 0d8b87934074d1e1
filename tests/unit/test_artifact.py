"""The artifact's lengths: read without running code, drawn as its authors draw them."""

from __future__ import annotations

import hashlib
import json
import pickle
import random
import subprocess
import threading
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.published import SHAREGPT, needs_sharegpt

from kvlab import config
from kvlab.errors import ConfigError, KvlabError, LogError
from kvlab.paths import ROOT
from kvlab.prepare import artifact
from kvlab.prepare.lengths import Lengths
from kvlab.prepare.workload import make

PAIRS = [(21, 518), (8, 66), (2000, 48), (1999, 48), (5000, 3), (7, 7), (300, 1)]


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def lengths_of(pairs):
    return Lengths(*np.array(pairs, dtype=np.int64).T)


@pytest.fixture
def files(tmp_path):
    """The same pairs in each form that is read."""
    made = {"csv": tmp_path / "l.csv", "pickle": tmp_path / "l.pkl", "ids": tmp_path / "ids.pkl"}
    made["csv"].write_text("prompt_tokens,output_tokens\n" + "".join(f"{p},{o}\n" for p, o in PAIRS))
    made["pickle"].write_bytes(pickle.dumps(PAIRS))
    made["ids"].write_bytes(pickle.dumps([([2] * p, [0] * o) for p, o in PAIRS]))
    return made


@pytest.mark.parametrize("form", ["csv", "pickle", "ids"])
def test_every_form_holds_the_same_pairs(files, form):
    assert artifact.read("sharegpt", str(files[form]), digest(files[form])).pairs() == PAIRS
    assert artifact.read("alpaca", str(files[form])).pairs() == PAIRS  # no digest of it is known


def test_another_file_is_not_taken_for_the_artifacts(files):
    with pytest.raises(LogError, match=r"l\.csv: sha256 .*, wanted e94cab.* or f4ba88.*; fetch that file"):
        artifact.read("sharegpt", str(files["csv"]))


class Harm:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_pickle_that_would_run_something_is_refused_and_runs_nothing(tmp_path):
    file, harm = tmp_path / "bad.pkl", tmp_path / "harm"
    file.write_bytes(pickle.dumps([(1, 2), Harm(harm)]))
    with pytest.raises(LogError, match=r"bad\.pkl: not a pickle of lengths \(it asks for .*open"):
        artifact.read("alpaca", str(file))
    assert not harm.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80",
        b"prompt_tokens,output_tokens\n",
        b"prompt_tokens,output_tokens\n1\n",
        b"prompt_tokens,output_tokens\n1,two\n",
        b"prompt_tokens,output_tokens\n0,2\n",
        b"prompt_tokens,output_tokens\n1,2,3\n",
        b"prompt_tokens,tokens\n1,2\n",
        b"prompt_tokens,output_tokens\n1,99999999999999999999\n",
        *(
            pickle.dumps(one)
            for one in (
                [],
                None,
                7,
                [1],
                [(1, 2, 3)],
                [(1, -2)],
                [(True, 2)],
                [(1.5, 2)],
                ["ab"],
                {1: 2},
                [(1, 1 << 70)],
            )
        ),
    ],
)
def test_what_is_no_file_of_lengths_is_refused_in_one_line(data, tmp_path):
    (tmp_path / "bad").write_bytes(data)
    with pytest.raises(LogError, match=r"/bad: ") as fault:
        artifact.read("alpaca", str(tmp_path / "bad"))
    assert "\n" not in str(fault.value)


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_random_bytes_give_an_error_line_and_no_traceback(data):
    try:
        rows = artifact._unpickle(data, "bytes")
        artifact._pairs(rows, "bytes")
    except LogError:
        pass


@contextmanager
def served(folder, monkeypatch, handler=SimpleHTTPRequestHandler):
    """The address at which the folder's files are."""
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_without_a_path_the_original_is_fetched_by_its_digest(files, monkeypatch):
    with served(files["pickle"].parent, monkeypatch) as address:
        address += "/l.pkl"
        monkeypatch.setitem(artifact.FILES, "sharegpt", artifact.ArtifactFile(address, (digest(files["pickle"]),)))
        assert artifact.read("sharegpt", None).pairs() == PAIRS
        monkeypatch.setitem(artifact.FILES, "sharegpt", artifact.ArtifactFile(address, ("0" * 64,)))
        with pytest.raises(LogError, match="sha256"):
            artifact.read("sharegpt", None)
    with pytest.raises(LogError, match=r"127\.0\.0\.1.*can't be read"):
        artifact.read("sharegpt", None)
    with pytest.raises(ConfigError, match="KVLAB_ALPACA"):
        artifact.read("alpaca", None)


@needs_sharegpt
def test_the_original_is_fetched_by_the_digest_that_is_pinned(tmp_path, monkeypatch):
    """The pairs of the CSV, pickled as the artifact's authors did, are the original, byte for byte."""
    pairs = artifact.read("sharegpt", SHAREGPT).pairs()
    (tmp_path / "original.pkl").write_bytes(pickle.dumps(pairs, protocol=3))
    known = artifact.FILES["sharegpt"]
    assert digest(tmp_path / "original.pkl") == known.digests[0]
    with served(tmp_path, monkeypatch) as address:
        monkeypatch.setitem(artifact.FILES, "sharegpt", replace(known, address=f"{address}/original.pkl"))
        assert artifact.read("sharegpt", "download").pairs() == pairs


@pytest.mark.parametrize("address", ["http://127.0.0.1/a file", "http://[nowhere", "https://:99999/", "file\0"])
def test_an_address_that_is_none_is_one_line(address):
    with pytest.raises(LogError, match=r"can't be read .*; check the path or address"):
        artifact.read("sharegpt", address)


class Half(SimpleHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"prompt_tokens")


def test_half_a_download_is_one_line(tmp_path, monkeypatch):
    with served(tmp_path, monkeypatch, Half) as address, pytest.raises(LogError, match="can't be read"):
        artifact.read("sharegpt", address)


def authors(pairs, rate, duration, seed):
    """The artifact's own steps, in its own words: orca/benchmark/trace.py."""
    random.seed(seed)
    np.random.seed(seed)
    counts = np.random.poisson(lam=rate * 0.01, size=int(duration * 100))
    timestamps = []
    for i, n in enumerate(counts):
        timestamps += [i * 0.01] * n
    filtered = [pair for pair in pairs if sum(pair) < 2048]
    data = []
    while len(data) < len(timestamps):
        data += filtered
    data = data[: len(timestamps)]
    random.shuffle(data)
    return data, timestamps


@given(st.integers(0, 50), st.floats(0.1, 20), st.integers(1, 60))
@settings(deadline=None, max_examples=50)
def test_the_trace_is_the_authors(seed, rate, duration):
    drawn, times = artifact.trace(lengths_of(PAIRS), rate, duration, seed)
    data, timestamps = authors(PAIRS, rate, duration, seed)
    assert drawn.pairs() == data
    assert times.tolist() == timestamps


@given(st.integers(1, 40), st.integers(0, 9), st.sampled_from(["authors", "resampled"]), st.integers(10, 3000))
@settings(deadline=None)
def test_draws_keep_pairs_and_obey_the_maxima(requests, seed, order, most):
    bounds = {"max_total": most, "max_prompt": 400}
    fit = [pair for pair in PAIRS if sum(pair) <= min(most, 2047) and pair[0] <= 400]
    if not fit:
        with pytest.raises(ConfigError, match="no lengths are left"):
            artifact.draw(lengths_of(PAIRS), order, requests, seed, **bounds)
        return
    drawn = artifact.draw(lengths_of(PAIRS), order, requests, seed, **bounds).pairs()
    assert len(drawn) == requests
    if order == "authors":
        assert sorted(drawn) == sorted((fit * requests)[:requests])
    else:
        assert set(drawn) <= set(fit)
        assert artifact.draw(lengths_of(PAIRS), order, requests + 5, seed, **bounds).pairs()[:requests] == drawn


def workload(**requests):
    data = {"run": "t", "workloads": {"w": {"requests": {"kind": "sharegpt"} | requests, "arms": ["vllm-paged"]}}}
    return config.parse(data, "test")


def test_the_path_is_the_configurations_else_the_environments(monkeypatch):
    monkeypatch.delenv("KVLAB_SHAREGPT", raising=False)
    asked = workload()
    assert (asked.files("w"), asked.section("workload", "w")["requests"]["path"]) == ([], None)
    monkeypatch.setenv("KVLAB_SHAREGPT", "/data/lengths.pkl")
    assert asked.files("w") == ["/data/lengths.pkl"]
    assert asked.section("workload", "w")["requests"]["path"] == "/data/lengths.pkl"
    assert workload(path="mine.csv").files("w") == ["mine.csv"]
    assert workload(path="https://host/l.pkl").files("w") == []


@pytest.mark.parametrize("wrong", [{"order": "mine"}, {"sha256": "x"}, {"seed": -1}, {"prompt_mean": 3}])
def test_a_wrong_setting_is_one_line(wrong):
    with pytest.raises(KvlabError, match=r"workloads\.w\.requests\.sharegpt\."):
        workload(**wrong)


@needs_sharegpt
def test_the_published_lengths_have_the_papers_means():
    pairs = artifact.read("sharegpt", SHAREGPT)
    kept = artifact.lengths.fitting(pairs, max_total=2047)
    assert (len(pairs), len(kept)) == (84_226, 79_725)
    # Fig. 11: 161.31 and 337.99.
    assert (kept.prompt.mean(), kept.output.mean()) == (pytest.approx(161.18, abs=0.01), pytest.approx(338.0, abs=0.01))
    drawn, times = artifact.trace(pairs, 4.0, 900, 0)
    data, timestamps = authors(pairs.pairs(), 4.0, 900, 0)
    assert (drawn.pairs(), times.tolist()) == (data, timestamps)


def test_a_measured_workload_is_made_of_them(files, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "fingerprint.json").write_text('{"max_position_embeddings": 4096, "vocab_size": 50}')
    asked = workload(path=str(files["csv"]), sha256=digest(files["csv"]), requests=9, seed=3, max_prompt_tokens=400)
    made = make(asked.section("workload", "w"), tmp_path / "model", tmp_path / "w.jsonl")
    data = [(21, 518), (8, 66), (7, 7), (300, 1)] * 2 + [(21, 518)]
    random.Random(3).shuffle(data)
    assert [(len(one.prompt_token_ids), one.max_new_tokens) for one in made] == data


def test_a_file_of_them_is_neither_committed_nor_in_an_image():
    names = ["config/data/sharegpt_opt_text_completion_length.pkl", "config/data/sharegpt-opt-lengths.csv"]
    ignored = subprocess.run(["git", "check-ignore", *names], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ignored.stdout.split() == names
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not [name for name in tracked.split() if "sharegpt" in name and name.endswith((".pkl", ".csv"))]
    assert {"**/*sharegpt*.pkl", "**/*sharegpt*lengths.csv"} <= set((ROOT / ".dockerignore").read_text().split())


def test_the_summary_says_what_numpy_says():
    kept = np.array([pair for pair in PAIRS if sum(pair) < 2048])
    found = artifact.summary(lengths_of(PAIRS))
    assert (found["pairs"], found["kept"]) == (len(PAIRS), len(kept))
    assert found["prompt"]["mean"] == pytest.approx(kept[:, 0].mean(), abs=1e-4)
    assert found["output"]["cv"] == pytest.approx(kept[:, 1].std() / kept[:, 1].mean(), abs=1e-4)
    assert found["total"]["quantiles"]["1"] == kept.sum(axis=1).max()
    assert found["prompt"]["quantiles"]["0.5"] in kept[:, 0]
    assert found["correlation"] == pytest.approx(np.corrcoef(kept.T)[0, 1], abs=1e-4)


def test_the_carried_summary_is_of_the_papers_means():
    carried = json.loads(artifact.SUMMARY.read_text())
    assert (carried["pairs"], carried["kept"]) == (84_226, 79_725)
    assert carried["prompt"]["mean"] == pytest.approx(161.31, rel=0.001)  # Fig. 11
    assert carried["output"]["mean"] == pytest.approx(337.99, rel=0.001)


@needs_sharegpt
def test_the_carried_summary_is_of_the_artifacts_lengths():
    assert artifact.summary(artifact.read("sharegpt", SHAREGPT)) == json.loads(artifact.SUMMARY.read_text())
