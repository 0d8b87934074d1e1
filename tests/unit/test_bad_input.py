"""Bad input of every kind: one line that says what is wrong and where, a code that is not 0, nothing written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kvlab import cli, config
from kvlab.errors import ConfigError
from kvlab.prepare import workload

ROOT = Path(__file__).resolve().parents[2]
WORKLOAD = {"requests": {"kind": "azure-conv"}, "arms": ["vllm-paged"]}
MODEL = {"vocab_size": 1000, "max_position_embeddings": 1024}


# --- the user's own file of requests ------------------------------------------------------------------------------


def made(tmp_path, content, **settings):
    """The requests made from a file that holds `content`."""
    file = tmp_path / "mine.jsonl"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "fingerprint.json").write_text(json.dumps(MODEL))
    asked = {"requests": {"kind": "file", "path": str(file)} | settings, "arms": ["vllm-paged"], "max_model_len": 1024}
    section = config.parse({"run": "t", "workloads": {"w": asked}}, "t").section("workload", "w")
    return workload.make(section, tmp_path, tmp_path / "out.jsonl")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"prompt_tokens": 1e999}', "prompt_tokens: Input should be a valid integer"),
        ('{"prompt_tokens": 1' + "0" * 400 + "}", "prompt_tokens: Input should be less than"),
        ('{"prompt_tokens": 1' + "0" * 9000 + "}", "not a request"),
        ('{"prompt_tokens": 12.0}', "prompt_tokens: Input should be a valid integer"),
        ('{"prompt_tokens": true}', "prompt_tokens: Input should be a valid integer"),
        ('{"prompt_tokens": "12"}', "prompt_tokens: Input should be a valid integer"),
        ('{"prompt_tokens": 0}', "prompt_tokens: Input should be greater than or equal to 1"),
        ('{"prompt_tokens": -3}', "prompt_tokens: Input should be greater than or equal to 1"),
        ('{"prompt_tokens": 3, "output_tokens": 0}', "output_tokens: Input should be greater than or equal to 1"),
        ('{"prompt_tokens": 3, "output_tokens": false}', "output_tokens: Input should be a valid integer"),
        ('{"prompt_tokens": 3, "outputs": 4}', "outputs: Extra inputs are not permitted"),
        ('{"prompt_tokens": 3, "text": "both"}', "text or prompt_tokens, one of the two"),
        ("{}", "text or prompt_tokens, one of the two"),
        ('{"text": 5}', "text: Input should be a valid string"),
        ('{"text": ["a"]}', "text: Input should be a valid string"),
        ('{"text": ""}', "text: String should have at least 1 character"),
        ('{"text": "\\ud800"}', "Invalid JSON"),
        ("[1, 2]", "not a request"),
        ("7", "not a request"),
        ("{", "Invalid JSON"),
        ("[" * 20_000 + "]" * 20_000, "recursion limit"),
        ('{"text": ' + '{"a":' * 20_000 + "1" + "}" * 20_001, "recursion limit"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_a_line_that_is_no_request_is_named(tmp_path, line, said):
    with pytest.raises(ConfigError) as caught:
        made(tmp_path, '{"prompt_tokens": 4}\n' + line + "\n")
    assert str(caught.value).startswith(f"{tmp_path / 'mine.jsonl'}:2: not a request (")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.jsonl").exists()


def test_a_byte_order_mark_is_no_fault(tmp_path):
    (one,) = made(tmp_path, b'\xef\xbb\xbf{"prompt_tokens": 4}\r\n')
    assert len(one.prompt_token_ids) == 4


def test_a_file_in_another_encoding_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"mine\.jsonl: not UTF-8 \(byte 10\); save it in that encoding"):
        made(tmp_path, '{"text": "é"}'.encode("latin-1"))


def test_every_setting_of_a_file_is_honoured(tmp_path):
    lines = [f'{{"prompt_tokens": {n}, "output_tokens": {2 * n}}}' for n in range(1, 101)] + ['{"prompt_tokens": 7}']
    text = "\n".join(lines)

    def sizes(**settings):
        return [(len(r.prompt_token_ids), r.max_new_tokens) for r in made(tmp_path, text, **settings)]

    everything = [(n, 2 * n) for n in range(1, 101)]
    assert sizes() == [*everything, (7, 64)]  # all lines, not the first 64
    assert sizes(requests=3) == everything[:3]
    assert sizes(max_prompt_tokens=5, max_new_tokens=9) == [*everything[:5], (7, 9)][:5]
    assert sizes(max_output_tokens=8) == everything[:4]
    assert sizes(max_output_tokens=8, requests=2) == everything[:2]
    with pytest.raises(ConfigError, match="scale: no such key"):
        sizes(scale=0.5)
    with pytest.raises(ConfigError, match="an empty workload"):
        sizes(max_output_tokens=1)


# --- the configuration --------------------------------------------------------------------------------------------


def parse(**changes):
    return config.parse({"run": "t", "workloads": {"w": WORKLOAD}} | changes, "here.yaml")


def asking(**requests):
    return {"workloads": {"w": {"requests": requests, "arms": ["vllm-paged"]}}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"measure": 3}, "measure: Input should be a valid dictionary"),
        ({"measure": {"time_budget_s": float("inf")}}, "measure.time_budget_s: Input should be a finite number"),
        ({"measure": {"time_budget_s": float("nan")}}, "measure.time_budget_s: "),
        ({"measure": {"threads": 10**9}}, "measure.threads: Input should be less than or equal to 1024"),
        ({"model": {"source": "random:tiny", "seed": 10**30}}, "model.seed: Input should be less than"),
        ({"model": {"source": "a/b", "trust_remote_code": True}}, "model.trust_remote_code: code from a model's"),
        ({"run": "reference"}, "run: results/reference/ holds the packed runs"),
        ({"run": "replay"}, "run: results/replay/ holds the replayed runs"),
        ({"workloads": [1]}, "workloads: Input should be a valid dictionary"),
        ({"workloads": {"w": 3}}, "workloads.w: "),
        ({"workloads": {"w": {"requests": 3, "arms": ["vllm-paged"]}}}, "workloads.w.requests: "),
        (asking(kind="paper", prompt_mean=1e300), "prompt_mean: Input should be less than or equal to 1000000"),
        (asking(kind="paper", output_cv=float("inf")), "output_cv: Input should be a finite number"),
        (asking(kind="prompts", prompts=[{"text": "a", "times": 1e20}]), "Repeated.times: "),
        (asking(kind="prompts", prompts=[{"text": "a" * 999, "times": 100_000}]), "at most 50000000 are taken"),
        (asking(kind="prompts", prompts=["a"], max_new_tokens=10**12), "max_new_tokens: Input should be less than"),
        (asking(kind="file", path="x", scale=0.5), "scale: no such key"),
        ({1: 2}, "1: "),
    ],
)
def test_a_setting_that_can_not_be_is_one_line(changes, said):
    with pytest.raises(ConfigError) as caught:
        config.parse(config.spread({"run": "t", "workloads": {"w": WORKLOAD}} | changes), "here.yaml")
    assert str(caught.value).startswith("here.yaml: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_part_that_is_no_mapping_does_not_hide_a_setting_named_without_its_part():
    with pytest.raises(ConfigError, match="measure: Input should be a valid dictionary"):
        config.parse(config.spread({"run": "t", "workloads": {"w": WORKLOAD}, "measure": 3, "dtype": "float32"}), "t")


@pytest.mark.parametrize("stage", ["probe", "crate", "meassure", ""])
def test_a_stage_without_a_section_is_an_error(stage):
    with pytest.raises(ValueError, match=f"no stage '{stage}' has a section"):
        parse().section(stage)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"run: [", "neither YAML nor JSON"),
        (b"run: caf\xe9", "not UTF-8 (byte 8)"),
        (b'{"run": "t", ', "neither YAML nor JSON"),
        (b"[" * 20_000, "nested too deeply"),
        (b"run: t\ndata_seed: 1" + b"0" * 9000, "neither YAML nor JSON"),
        (b"run: t\nreport: {title: 2020-13-45}", "neither YAML nor JSON"),
        (b"- 1", "a configuration is a mapping"),
        (b"", "a configuration is a mapping"),
        (b"&a [*a]", "nested too deeply"),
        (b'{"run": "t", "report": {"title": "\\ud800"}}', "half of a surrogate pair"),
        (b'run: t\nreport: {title: "\\ud800"}', "half of a surrogate pair"),
    ],
)
def test_a_file_that_can_not_be_read_is_one_line(tmp_path, content, said):
    file = tmp_path / "bad.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        config.load(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ['{"report": {"title": "\\ud83e\\udde9"}}', 'report: {title: "\\ud83e\\udde9"}'])
def test_an_escaped_pair_of_surrogates_is_its_character(tmp_path, text):
    from kvlab.config import documents

    (tmp_path / "pair.json").write_text(text)
    assert documents.read(tmp_path / "pair.json") == {"report": {"title": "🧩"}}


def test_a_byte_order_mark_of_a_configuration_is_no_fault(tmp_path):
    (tmp_path / "bom.yaml").write_bytes(
        b"\xef\xbb\xbf" + json.dumps({"run": "t", "workloads": {"w": WORKLOAD}}).encode()
    )
    assert config.load(tmp_path / "bom.yaml").run == "t"


# --- commands -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["configure", "{bad"], "neither YAML nor JSON"),
        (["configure", "no-such.yaml"], "no-such.yaml: cannot be read"),
        (["configure", "."], ".: cannot be read"),
        (["configure", '{"run": "reference", "workloads": {}}'], "holds the packed runs"),
        (["measure", "{run}", "w", "vllm-paged", "-1"], "-1"),
        (["measure", "{run}", "w", "vllm-paged", "99"], "99"),
        (["measure", "{run}", "w", "vllm-contiguous", "0"], "vllm-contiguous"),
        (["measure", "{run}", "w", "no-such-arm", "0"], "no-such-arm"),
        (["measure", "{run}", "nothing", "vllm-paged", "0"], "nothing"),
        (["workload", "{run}", "nothing"], "nothing"),
        (["analyse", "{run}"], "no such file"),
        (["report", "{run}"], "no such file"),
        (["verify", "{run}/report.html"], "report.html"),
        (["claims", "{run}"], "no such file"),
        (["summary", "{run}"], "no such file"),
        (["crate", "{run}"], "no such file"),
        (["compare", "{run}", "{run}"], "no such file"),
        (["pack", "{run}", "{run}/packed"], "no such file"),
        (["replay", "{run}"], "not a packed run"),
        (["what-if", "{run}", "w", "vllm-paged", "0"], "no such file"),
        (["simulate", "{run}"], "has no simulation"),
        (["simulated", "{run}"], "no such file"),
        (["draw-simulation", "{run}"], "has no simulation"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_command_that_can_not_work_is_one_line(tmp_path, capfd, arguments, said):
    run = tmp_path / "run"
    assert (
        cli.main(
            ["configure", json.dumps({"run": "t", "workloads": {"w": WORKLOAD}}), "--output", f"{run}/config.json"]
        )
        == 0
    )
    before = sorted(run.rglob("*"))
    code = cli.main([argument.replace("{run}", str(run)) for argument in arguments])
    out, err = capfd.readouterr()
    assert code == 2, (out, err)
    assert out == ""
    assert said in err
    assert err.count("\n") == 1
    assert sorted(run.rglob("*")) == before


def test_a_folder_that_can_not_be_written_is_named():
    command = [
        sys.executable,
        "-m",
        "kvlab",
        "configure",
        str(ROOT / "config/smoke.yaml"),
        "--output",
        "/proc/x/config.json",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2
    assert "/proc/x" in done.stderr
    assert done.stderr.count("\n") == 1
