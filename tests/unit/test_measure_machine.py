"""What a run finds out about the machine before it starts an engine."""

from __future__ import annotations

import json
import struct

import pytest

from kvlab.errors import ConfigError, NotRunnable
from kvlab.measure import machine

GPUS = ["GPU-aaaa", "GPU-bbbb", "GPU-cccc"]


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("2,0", [2, 0]),
        ("GPU-bb", [1]),
        ("0,7,1", [0]),  # CUDA stops at the first name that it does not know
        ("-1", []),
        ("MIG-x", [2]),
    ],
)
def test_visible_gpus_are_those_that_cuda_would_see(wanted, chosen):
    assert machine.visible(GPUS, wanted, {"MIG-x": 2}) == chosen


def test_auto_takes_a_gpu_where_there_is_one():
    assert machine.choose_device("auto", 2) == "cuda"
    assert machine.choose_device("auto", 0) == "cpu"
    assert machine.choose_device("cpu", 2) == "cpu"


def test_a_gpu_that_is_not_there_is_a_reason_not_to_run():
    with pytest.raises(NotRunnable, match="no NVIDIA GPU"):
        machine.choose_device("cuda", 0)


def test_more_gpus_than_there_are_is_a_fault_that_names_both_numbers():
    machine.check_gpus(2, 2)
    machine.check_gpus(1, 0)
    with pytest.raises(ConfigError, match="needs 4 GPUs, this machine has 2") as caught:
        machine.check_gpus(4, 2)
    assert not isinstance(caught.value, NotRunnable)


def test_one_core_is_left_to_the_sampler(monkeypatch):
    import os

    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert machine.threads(3) == 3
    assert machine.threads(None) == 5
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert machine.threads(None) == max(1, len(os.sched_getaffinity(0)) - 1)


def model(folder, config, shapes):
    header = {"__metadata__": {"format": "pt"}} | {
        name: {"dtype": "BF16", "shape": shape, "data_offsets": [0, 0]} for name, shape in shapes.items()
    }
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


SMOLLM2 = {"num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 576}
GPT2 = {"n_layer": 12, "n_head": 12, "n_embd": 768}


@pytest.mark.parametrize(
    ("config", "dtype", "bytes_"),
    [
        (SMOLLM2, "bfloat16", 23_040),
        (SMOLLM2, "float32", 46_080),
        (SMOLLM2 | {"head_dim": 128}, "bfloat16", 46_080),
        (GPT2, "float16", 36_864),
        ({"text_config": SMOLLM2}, "bfloat16", 23_040),
    ],
)
def test_kv_bytes_of_one_token(tmp_path, config, dtype, bytes_):
    assert machine.kv_bytes_per_slot(model(tmp_path, config, {}), dtype) == bytes_


def test_weights_are_counted_in_the_dtype_of_the_run(tmp_path):
    folder = model(tmp_path, SMOLLM2, {"a": [10, 20], "b": [5]})
    assert machine.weights_bytes(folder, "bfloat16") == 410
    assert machine.weights_bytes(folder, "float32") == 820


def test_a_pool_that_does_not_fit_is_a_reason_not_to_run(tmp_path):
    folder = model(tmp_path, SMOLLM2, {"a": [1000]})
    machine.check_room(folder, "bfloat16", 10, 2_000 + 230_400, "GPU")
    with pytest.raises(NotRunnable, match=r"out of memory: .* 10 slots .* the GPU has free"):
        machine.check_room(folder, "bfloat16", 10, 2_000 + 230_399, "GPU")


def test_caches_of_an_earlier_run_are_seen(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    assert machine.warm_caches()["triton"] is False
    (tmp_path / "triton" / "kernel").mkdir(parents=True)
    assert machine.warm_caches()["triton"] is True
