"""What a run finds out about the machine before it starts an engine."""

from __future__ import annotations

import json
import struct
from pathlib import Path

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


def test_more_workers_than_there_are_gpus_or_cores_is_a_fault_that_names_both_numbers(monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: [2, 3, 5])
    machine.check_workers(2, "cuda", 2)
    machine.check_workers(3, "cpu", 0)
    with pytest.raises(ConfigError, match="needs 4 GPUs; this machine has 2") as caught:
        machine.check_workers(4, "cuda", 2)
    assert not isinstance(caught.value, NotRunnable)
    with pytest.raises(ConfigError, match="needs 4 CPU cores, one a worker; this machine has 3"):
        machine.check_workers(4, "cpu", 0)


@pytest.mark.parametrize(
    ("workers", "threads", "told"),
    [(2, 1, "0|1"), (2, 7, "0,1,2|3,4,5"), (4, 8, "0,1|2,3|4,5|6,7"), (3, 3, "0|1|2")],
)
def test_each_of_several_workers_has_its_own_cores(monkeypatch, workers, threads, told):
    monkeypatch.setattr(machine, "cores", lambda: list(range(8)))
    assert machine.shared_out(workers, threads) == told


@pytest.mark.parametrize(("tensor", "pipeline", "part"), [(1, 1, 1), (2, 1, 2), (4, 1, 4), (8, 1, 4), (2, 2, 4)])
def test_a_worker_has_its_part_of_a_slot(tmp_path, tensor, pipeline, part):
    """Four KV heads in two layers; a worker that shares a head has it whole."""
    config = {"num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64}
    folder = model(tmp_path, config, {})
    whole = machine.kv_bytes_per_slot(folder, "bfloat16")
    assert machine.kv_bytes_per_slot(folder, "bfloat16", tensor, pipeline) == whole // part


def test_several_gpus_run_without_nvlink_multicast():
    from types import SimpleNamespace

    from kvlab.measure.engines.vllm.worker import several

    told = several(SimpleNamespace(device="cuda", threads=1), 2)
    assert (told["NCCL_NVLS_ENABLE"], told["TORCH_SYMM_MEM_DISABLE_MULTICAST"]) == ("0", "1")
    assert told["VLLM_ALLREDUCE_USE_SYMM_MEM"] == "0"


def test_two_gpus_are_asked_of_a_cluster_for_tensor_parallel_2():
    from kvlab import config

    file = Path(__file__).resolve().parents[2] / "config" / "llama-8b-tp2.yaml"
    asked = config.load(file)
    assert {asked.gpus(arm) for arm in asked.workloads["azure-conv"].arms} == {2}
    assert len(asked.processes()) == 2  # two blocks, each a process with a pass of each arm
    assert asked.passes("azure-conv", "vllm", 0) == [("vllm-contiguous", None), ("vllm-paged", None)]


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
    machine.check_room(folder, "bfloat16", 10, 2_000 + 230_400, "gpu")
    with pytest.raises(NotRunnable, match=r"out of memory: .* 10 slots .* the GPU has free"):
        machine.check_room(folder, "bfloat16", 10, 2_000 + 230_399, "gpu")


def test_caches_of_an_earlier_run_are_seen(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    assert machine.warm_caches()["triton"] is False
    (tmp_path / "triton" / "kernel").mkdir(parents=True)
    assert machine.warm_caches()["triton"] is True
