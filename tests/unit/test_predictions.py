"""Predictions of a run that is not made yet, as a file."""

import json

import pytest
from tests.unit.test_calibration import synthetic

from kvlab.cli import main
from kvlab.errors import ConfigError, LogError
from kvlab.prepare.own_lengths import read_pairs
from kvlab.simulate.forecasts import predict, predictions
from kvlab.simulate.forecasts.calibration import fit
from kvlab.simulate.forecasts.forecast import Setting
from kvlab.simulate.forecasts.predictions import sustained

pytestmark = pytest.mark.slow

CONFIG = {
    "run": "planned",
    "workloads": {
        "closed": {
            "requests": {"kind": "paper", "requests": 40},
            "arms": ["hf-sequential-static", "vllm-contiguous", "vllm-paged"],
            "kv_slots": 4096,
            "max_model_len": 1024,
            "repeats": 2,
            "shuffle": True,
        },
        "open": {
            "requests": {"kind": "paper", "requests": 200},
            "arms": ["vllm-contiguous", "vllm-paged"],
            "kv_slots": 4096,
            "max_model_len": 1024,
            "repeats": 2,
            "arrivals": {
                "kind": "poisson",
                "duration_s": 30,
                "leave_out_s": 5,
                "drain_s": 10,
                "rates": {"vllm-contiguous": [1], "vllm-paged": [[1, 4], [2]]},
            },
        },
    },
    "measure": {"vllm": {"max_num_seqs": 64, "max_num_batched_tokens": 2048}},
}


def test_predict_writes_what_it_rests_on_and_every_cell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(predict, "STEADY_S", 40.0)
    raw = synthetic(tmp_path / "run")
    config, out = tmp_path / "planned.json", tmp_path / "out.json"
    config.write_text(json.dumps(CONFIG))
    words = ["predict", str(config), "--calibration", str(tmp_path / "run"), "--output", str(out)]
    assert main(words) == 0
    first = out.read_bytes()
    found = predictions.read(out)
    assert [(c.workload, c.arm, c.rate, c.block) for c in found.cells] == [
        *[("closed", "vllm-contiguous", None, block) for block in (0, 1)],
        *[("closed", "vllm-paged", None, block) for block in (0, 1)],
        *[("open", "vllm-contiguous", 1.0, block) for block in (0, 1)],
        *[("open", "vllm-paged", rate, block) for rate, block in ((1.0, 0), (4.0, 0), (2.0, 1))],
    ]
    assert list(found.head["left_out"]) == ["closed/hf-sequential-static"]
    assert found.head["calibration"]["sources"][1]["sha256"] == raw.digests["steps.jsonl"]
    paged = [c.expected for c in found.cells if c.arm == "vllm-paged"]
    assert paged[0].requests == 40
    assert paged[0].throughput != paged[1].throughput  # each block has an order of its own
    assert paged[2].per_token_mean < paged[3].per_token_mean
    assert {one.workload for one in found.sustained} == {"open"}
    rate = {one.arm: one.rate for one in found.sustained}
    assert rate["vllm-contiguous"] < rate["vllm-paged"]
    assert main(words) == 0
    assert out.read_bytes() == first


def test_prompts_have_lengths_only_once_they_are_made(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    synthetic(tmp_path / "run")
    config = CONFIG | {"workloads": {"w": {"requests": {"kind": "prompts", "prompts": ["a"]}, "arms": ["vllm-paged"]}}}
    (tmp_path / "c.json").write_text(json.dumps(config))
    assert main(["predict", "c.json", "--calibration", "run"]) == 2
    assert "kvlab workload results/planned w" in capsys.readouterr().err


def test_a_calibration_that_is_none(tmp_path, capsys):
    (tmp_path / "c.json").write_text(json.dumps(CONFIG))
    assert main(["predict", str(tmp_path / "c.json"), "--calibration", str(tmp_path)]) == 2
    assert "that batches with paging" in capsys.readouterr().err


def test_a_larger_pool_never_sustains_less(tmp_path):
    fitted = fit(synthetic(tmp_path))

    def draw(count, seed):
        return [(100, 100)] * count

    rates = [
        sustained(draw, 0, Setting("paged", pool, 1024, 16, 64, 2048), fitted, bound_s=0.03, arrive_s=60)
        for pool in (1024, 2048, 8192)
    ]
    assert rates == sorted(rates)
    assert rates[0] < rates[2]


def test_no_sustained_rate_where_the_bound_is_never_met(tmp_path):
    fitted = fit(synthetic(tmp_path))
    setting = Setting("paged", 4096, 1024, 16, 64, 2048)
    assert sustained(lambda count, seed: [(10, 10)] * count, 0, setting, fitted, bound_s=1e-6, arrive_s=60) is None


def test_a_file_that_is_no_prediction(tmp_path):
    (tmp_path / "p.json").write_text('{"cells": [{"arm": 1}]}')
    with pytest.raises(LogError, match="not a file of predictions"):
        predictions.read(tmp_path / "p.json")


@pytest.mark.parametrize(
    "text",
    [
        '{"prompt_tokens": 5, "output_tokens": 7}\n\n{"prompt_tokens": 8, "output_tokens": 9}\n',
        "prompt_tokens,output_tokens\n5,7\n8,9\n",
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023,5,7\n2023,8,9\n",
    ],
)
def test_lengths_of_ones_own(tmp_path, text):
    (tmp_path / "l").write_text(text)
    assert read_pairs(tmp_path / "l").pairs() == [(5, 7), (8, 9)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no request in it"),
        ('{"prompt_tokens": 5}', ":1: not lengths of a request"),
        ('{"prompt_tokens": 5, "output_tokens": 0}', ":1: not lengths"),
        ('{"prompt_tokens": 5, "output_tokens": 2.5}', ":1: not lengths"),
        ("{broken", ":1: not a line of JSON"),
        ("prompt_tokens,output_tokens\n5,x\n", ":2: not lengths"),
        ("a,b\n5,6\n", ":2: not lengths"),
        ("prompt_tokens,output_tokens\n5,60\n", ":2: prompt 5 \\+ output 60 = 65 tokens, above the maximum of 64"),
    ],
)
def test_lengths_that_are_none(tmp_path, text, says):
    (tmp_path / "l").write_text(text)
    with pytest.raises(ConfigError, match=says):
        read_pairs(tmp_path / "l", max_total=64)
