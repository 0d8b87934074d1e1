"""kvlab plan: what fits, from a model, lengths and memory alone."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kvlab.cli import main
from kvlab.errors import ConfigError
from kvlab.paths import ROOT
from kvlab.prepare import lengths
from kvlab.publish.check.verify import numbers_shown
from kvlab.simulate.planning import memory, plan
from kvlab.simulate.planning.shape import read_shape, shape_of

pytestmark = pytest.mark.slow

REFERENCE = ROOT / "results" / "reference"
GIB = 2**30


def opt(layers, hidden):
    heads = hidden // 128
    return {
        "architectures": ["OPTForCausalLM"],
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
    }


@pytest.mark.parametrize(
    ("layers", "hidden", "gib", "slots"),
    [(40, 5120, 12, 15_728), (64, 9216, 21, 9_557), (96, 12288, 264, 60_074)],
)
def test_slots_of_the_papers_table_1(layers, hidden, gib, slots):
    shape = shape_of(opt(layers, hidden), "opt")
    assert memory.pool_slots(gib * GIB, 1.0, 0, 0, shape.kv_bytes("float16"), block=1) == slots


@pytest.mark.parametrize(
    ("run", "name", "dtype"),
    [
        ("llama-8b/raw/azure-conv/vllm-paged/0", "llama-3.1-8b", "bfloat16"),
        ("opt-13b-policies/raw/closed/vllm-paged/0", "opt-13b", "bfloat16"),
        ("smoke-cpu/raw/pressured/vllm-paged/0", "smollm2-135m", "float32"),
    ],
)
def test_slots_that_vllm_logged(run, name, dtype):
    logged = json.loads((REFERENCE / run / "run.json").read_text())
    kv_bytes = read_shape(name).kv_bytes(dtype)
    assert kv_bytes == logged["kv_bytes_per_slot"]
    slots = memory.pool_slots(logged["kv_pool_bytes"], 1.0, 0, 0, kv_bytes, block=16)
    assert slots == logged["pool_slots"] + 16  # vLLM keeps one block for itself


def test_parameters_are_those_that_were_counted():
    assert read_shape("llama-3.1-8b").parameters == 8_030_261_248
    assert read_shape("smollm2-135m").parameters == 134_515_008
    assert read_shape("gpt2").parameters == 124_439_808


def test_heads_that_share_keys():
    base = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 8}
    assert shape_of(base, "x").kv_bytes("float16") == 2 * 2 * 8 * 8 * 2
    assert shape_of(base | {"num_key_value_heads": 2}, "x").kv_heads == 2
    assert shape_of(base | {"multi_query": True}, "x").kv_heads == 1
    assert shape_of(base | {"head_dim": 32}, "x").head_dim == 32


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"kv_lora_rank": 512}, "multi-head latent attention"),
        ({"sliding_window": 4096}, "sliding windows"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding windows or mixed layers"),
        ({"architectures": ["MambaForCausalLM"]}, "architecture MambaForCausalLM: states no num_hidden_layers"),
    ],
)
def test_models_whose_memory_does_not_follow(config, says):
    base = {} if "Mamba" in str(config) else {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 8}
    with pytest.raises(ConfigError, match=says):
        shape_of(base | config, "x")


def draw(count, seed):
    return lengths.paper(count, seed, max_total=1024).pairs()


def made(slots, **options):
    return plan.make(read_shape("tiny"), "float16", slots, draw, max_model_len=1024, seeds=2, **options)


def test_a_larger_pool_never_holds_fewer_and_never_preempts_earlier():
    found = [made(slots) for slots in (4096, 8192, 16384)]
    for policy in range(len(plan.POLICIES)):
        means = [one.together[policy].mean.mean for one in found]
        assert means == sorted(means)
    starts = [one.preempts_from for one in found]
    assert starts == sorted(starts)
    reserving = {one.policy: one for one in found[0].together}
    assert reserving["orca-max"].gain.low > reserving["orca-oracle"].gain.low > 1
    assert reserving["reserved"].gain.low > 1
    waste = [one.mean for one in found[0].waste.values()]
    assert waste == sorted(waste)
    assert found[0].waste[1].mean == 0


def test_a_pool_that_holds_everything_gains_nothing():
    found = made(65_536, max_num_seqs=16)
    assert found.fits
    assert found.preempts_from is None
    assert all(one.gain is None or one.gain.mean == pytest.approx(1) for one in found.together)


def test_the_command_writes_a_table_numbers_and_a_page(tmp_path, capsys):
    own = tmp_path / "own.jsonl"
    own.write_text('{"prompt_tokens": 100, "output_tokens": 50}\n{"prompt_tokens": 20, "output_tokens": 200}\n')
    words = ["plan", "--model", "tiny", "--kv-slots", "2048", "--lengths", str(own), "--seeds", "2"]
    assert main([*words, "--json", str(tmp_path / "p.json"), "--html", str(tmp_path / "p.html")]) == 0
    shown = capsys.readouterr().out
    assert "2,048 slots" in shown
    assert "Paging gains" in shown
    found = json.loads((tmp_path / "p.json").read_text())
    assert found["max_model_len"] == 256  # holds the longest pair, 220 tokens
    assert found["kv_bytes"] == 512
    page = (tmp_path / "p.html").read_text()
    assert "What fits: tiny" in page
    assert "能容纳多少" in page
    assert not re.search(r"(src|href)=\"https?:", page)
    trail = json.loads(re.search(r'id="trail-data">(.*?)</script>', page, re.DOTALL).group(1))
    assert ["--kv-slots", "2048"] in trail["inputs"]
    assert ["--gpu", "None"] not in trail["inputs"]
    assert trail["command"].startswith("kvlab plan --model tiny --kv-slots 2048 ")
    shown = {key for key, _ in numbers_shown(page)}
    assert shown == trail["quantities"].keys()
    assert float(trail["quantities"]["plan.paged.mean"]["x"]) == found["together"][-1]["mean"]["mean"]
    assert main([*words, "--language", "zh"]) == 0
    assert "抢占" in capsys.readouterr().out


LLAMA = REFERENCE / "llama-8b"


def test_with_a_calibration_it_gives_times_without_torch(tmp_path):
    words = ["plan", "--model", "llama-3.1-8b", "--kv-slots", "98304", "--lengths", "azure-conv", "--rate", "3"]
    words += ["--calibration", str(LLAMA), "--json", str(tmp_path / "p.json")]
    code = (
        "import sys; from kvlab.cli import main\n"
        f"assert main({words!r}) == 0\n"
        "assert not {'torch', 'vllm', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "p.json").read_text())
    by_policy = {one["policy"]: one for one in found["together"]}
    assert by_policy["paged"]["throughput"]["mean"] == pytest.approx(4330, rel=0.06)  # measured, other draws
    assert by_policy["orca-max"]["throughput"]["mean"] == pytest.approx(3580, rel=0.06)
    assert by_policy["paged"]["sustained"]["mean"] > by_policy["orca-max"]["sustained"]["mean"]
    rates = [one["rate"] for one in found["loaded"]]
    assert 3 in rates
    latencies = [one["latency"]["mean"] for one in found["loaded"]]
    assert latencies == sorted(latencies)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--model", "tiny", "--gpu", "1GiB", "--weights", "2GiB", "--lengths", "paper"], "the GPU is too small"),
        (["--model", "tiny", "--lengths", "paper"], "give --gpu 80GiB, or --kv-slots"),
        (["--model", "tiny", "--gpu", "much", "--lengths", "paper"], "'much' is no size"),
        (["--model", "nobody/nothing", "--kv-slots", "4096", "--lengths", "paper"], "no such file or folder"),
        (["--model", "tiny", "--kv-slots", "4096", "--lengths", "missing.jsonl"], "missing.jsonl: the lengths can't"),
        (["--model", "tiny", "--kv-slots", "4096", "--lengths", "{empty}"], "no request in it"),
        (
            ["--model", "tiny", "--kv-slots", "4096", "--lengths", "{own}", "--max-model-len", "100"],
            "above the maximum",
        ),
        (["--model", "tiny", "--kv-slots", "64", "--lengths", "{own}"], "lower the lengths or raise the pool"),
        (["--model", "tiny", "--kv-slots", "8", "--lengths", "{own}"], "less than one block"),
        (["--model", "tiny", "--kv-slots", "4096", "--lengths", "{own}", "--rate", "3"], "--rate needs --calibration"),
        (["--model", "tiny", "--kv-slots", "4096", "--lengths", "{own}", "--seeds", "0"], "--seeds 0"),
        (
            ["--model", "tiny", "--kv-slots", "4096", "--lengths", "{own}", "--calibration", str(LLAMA)],
            "step times hold for one model",
        ),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, words, says):
    (tmp_path / "empty").write_text("")
    (tmp_path / "own").write_text("prompt_tokens,output_tokens\n100,50\n")
    filled = [
        word.replace("{empty}", str(tmp_path / "empty")).replace("{own}", str(tmp_path / "own")) for word in words
    ]
    page = tmp_path / "p.html"
    assert main(["plan", *filled, "--html", str(page)]) == 2
    said = capsys.readouterr()
    assert says in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert not page.exists()


def test_a_calibration_without_a_paged_run_is_refused(tmp_path, capsys):
    words = ["plan", "--model", "tiny", "--kv-slots", "4096", "--lengths", "paper", "--calibration", str(tmp_path)]
    assert main(words) == 2
    assert "that batches with paging" in capsys.readouterr().err
    assert list(Path(tmp_path).iterdir()) == []
