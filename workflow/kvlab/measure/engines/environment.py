"""The environment that both engines get, set before their libraries are imported; variables that the user has set are
kept."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from kvlab.measure.job import Job
from kvlab.paths import WORKFLOW


@contextmanager
def kept() -> Iterator[None]:
    """Whatever a measurement sets, its process has its environment and module path back afterwards.

    So that what runs in the same process later (another measurement, a test) does not inherit, say, the path of a
    log file in a folder that was removed.
    """
    variables, path = dict(os.environ), list(sys.path)
    try:
        yield
    finally:
        for name in set(os.environ) - set(variables):
            del os.environ[name]
        os.environ.update(variables)
        sys.path[:] = path


def prepare(job: Job) -> None:
    """Offline, quiet, seeded alike, and on a CPU with a fixed number of threads and no compilation."""
    wanted = {
        "HF_HUB_OFFLINE": "1",  # the model is a folder: nothing is to be fetched while the clock runs
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
    }
    if job.device == "cpu":
        wanted |= {
            "OMP_NUM_THREADS": str(job.threads),
            # The core in the driver's process: its memory is the driver's, and start-up is ten seconds shorter.
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "CUDA_VISIBLE_DEVICES": "",
        }
        if job.settings.get("compile") != "on":
            # Compilation takes half a minute and a C++ compiler, and gains little on a CPU.
            wanted["TORCH_COMPILE_DISABLE"] = "1"
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
    # An engine's own processes find the package as this one does.
    package = str(WORKFLOW)
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if package not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [package, *paths]))
    if package not in sys.path:
        sys.path.insert(0, package)


def set_seed(seed: int) -> None:
    """Seed torch on all its devices. Greedy decoding draws nothing; this is for what a library might draw."""
    import torch

    torch.manual_seed(seed)
