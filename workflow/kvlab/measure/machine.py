"""The resources of this machine that a run uses: device, threads, free memory, warm caches. No engine is imported for
it."""

from __future__ import annotations

import json
import math
import os
import tempfile
from pathlib import Path

from kvlab.errors import ConfigError, NotRunnable
from kvlab.messages import Message

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def gpu_indices() -> list[int]:
    """NVML indices of the GPUs that this process may use, see CUDA_VISIBLE_DEVICES. Empty without a driver."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no driver, or no library: there is no GPU to use
        return []
    try:
        count = int(pynvml.nvmlDeviceGetCount())
        uuids = [str(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(i))) for i in range(count)]
        parents = {}  # a MIG slice's memory is seen as part of its GPU's
        for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(","):
            if name.startswith("MIG-"):
                slice_ = pynvml.nvmlDeviceGetHandleByUUID(name)
                parents[name] = int(
                    pynvml.nvmlDeviceGetIndex(pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(slice_))
                )
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()
    return visible(uuids, os.environ.get("CUDA_VISIBLE_DEVICES"), parents)


def visible(uuids: list[str], wanted: str | None, parents: dict[str, int] | None = None) -> list[int]:
    """Which of the GPUs CUDA_VISIBLE_DEVICES names, by index or by (the start of) a uuid; all where it is unset."""
    if wanted is None:
        return list(range(len(uuids)))
    chosen = []
    for name in (part.strip() for part in wanted.split(",")):
        match = [i for i, uuid in enumerate(uuids) if str(i) == name or (name and uuid.startswith(name))]
        match += [(parents or {})[name]] if name in (parents or {}) else []
        if not match:  # CUDA stops at the first name that it does not know
            break
        chosen.append(match[0])
    return chosen


def choose_device(wanted: str, gpus: int) -> str:
    """`cpu` or `cuda`. Raises NotRunnable where a GPU is asked for and none answers."""
    if wanted == "auto":
        return "cuda" if gpus else "cpu"
    if wanted == "cuda" and not gpus:
        raise NotRunnable(Message("no-gpu"))
    return wanted


def check_workers(needed: int, device: str, gpus: int) -> None:
    """Raises ConfigError where an engine is to have more workers than there are GPUs; on a CPU, than cores."""
    there = gpus if device == "cuda" else len(cores())
    if needed > there:
        what = "GPUs" if device == "cuda" else "CPU cores, one a worker"
        raise ConfigError(
            f"the engine needs {needed} {what}; this machine has {there}: lower "
            "measure.vllm.tensor_parallel_size or pipeline_parallel_size, or run on a larger machine"
        )


def cores() -> list[int]:
    """Numbers of the CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def shared_out(workers: int, threads: int) -> str:
    """The cores of each of several CPU workers as vLLM's VLLM_CPU_OMP_THREADS_BIND takes them: "0,1|2,3".

    `threads` in all, at least one a worker, each with a core of its own.
    """
    each = max(1, threads // workers)
    of_worker = [cores()[worker * each : (worker + 1) * each] for worker in range(workers)]
    return "|".join(",".join(map(str, mine)) for mine in of_worker)


def threads(wanted: int | None) -> int:
    """CPU threads of an engine: as asked, as OMP_NUM_THREADS says, or one core less than there are.

    One core is left to the sampler and the system: a thread that waits for its core delays all the others.
    """
    said = os.environ.get("OMP_NUM_THREADS", "")
    if wanted is None and said.isdigit():
        return max(1, int(said))
    return wanted or max(1, len(cores()) - 1)


def free_memory() -> int:
    """Bytes of main memory that can be had without swapping."""
    import psutil

    return int(psutil.virtual_memory().available)


def kv_bytes_per_slot(model: Path, dtype: str, tensor: int = 1, pipeline: int = 1) -> int:
    """Bytes of the K and V of one token: 2 x layers x KV heads x head size x item size, from config.json.

    Of the worker that has the most: `tensor` workers share the KV heads of a layer (each has at least one), `pipeline`
    the layers.
    """
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    config = config.get("text_config") or config
    # GPT-2 and related models use other names for these.
    heads = config.get("num_attention_heads") or config["n_head"]
    layers = config.get("num_hidden_layers") or config["n_layer"]
    head_dim = config.get("head_dim") or (config.get("hidden_size") or config["n_embd"]) // heads
    kv_heads = config.get("num_key_value_heads") or heads
    return int(2 * math.ceil(layers / pipeline) * math.ceil(kv_heads / tensor) * head_dim * ITEM_BYTES[dtype])


def weights_bytes(model: Path, dtype: str) -> int:
    """Bytes of the weights in `dtype`, from the headers of the checkpoint's safetensors files.

    Of a model without a checkpoint (`load_format: dummy`) from the number of parameters in its fingerprint.
    """
    elements = 0
    for path in model.glob("*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        elements += sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    if not elements:
        elements = json.loads((model / "fingerprint.json").read_text(encoding="utf-8")).get("parameters", 0)
    return elements * ITEM_BYTES[dtype]


def check_room(model: Path, dtype: str, kv_slots: int, free_bytes: int, where: str) -> None:
    """Raises NotRunnable where weights and KV pool alone are more than is free; `where`: gpu or machine."""
    weights = weights_bytes(model, dtype)
    pool = kv_slots * kv_bytes_per_slot(model, dtype)
    if weights + pool > free_bytes:
        sizes = {"weights": weights, "pool": pool, "free": free_bytes}
        shown = {name: f"{size / (1 << 30):.2f} GiB" for name, size in sizes.items()}
        raise NotRunnable(Message(f"no-room-{where}", shown | {"slots": kv_slots}))


def warm_caches() -> dict[str, bool]:
    """Which compilation caches hold something from an earlier run: first starts are slower."""
    home = Path.home()
    vllm = Path(os.environ.get("VLLM_CACHE_ROOT", home / ".cache" / "vllm"))
    inductor = Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR", f"{tempfile.gettempdir()}/torchinductor_{_user()}"))
    triton = Path(os.environ.get("TRITON_CACHE_DIR", home / ".triton" / "cache"))
    places = {"vllm_compile": vllm / "torch_compile_cache", "inductor": inductor, "triton": triton}
    return {name: place.is_dir() and any(place.iterdir()) for name, place in places.items()}


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a passwd entry
        return str(os.getuid())
