"""One folder a session for every cache and for HOME: no test finds what another session, or the person, left there.

The variables are set before anything is imported, since libraries read them when they are imported; the processes that
tests start, and pytest-xdist's workers, inherit them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

CACHES = {
    "HOME": "home",
    "XDG_CACHE_HOME": "xdg/cache",
    "XDG_CONFIG_HOME": "xdg/config",
    "XDG_DATA_HOME": "xdg/data",
    "XDG_STATE_HOME": "xdg/state",
    "HF_HOME": "huggingface",
    "VLLM_CACHE_ROOT": "vllm",
    "VLLM_CONFIG_ROOT": "vllm-config",
    "TORCH_HOME": "torch",
    "TORCHINDUCTOR_CACHE_DIR": "torchinductor",
    "TRITON_CACHE_DIR": "triton",
    "NUMBA_CACHE_DIR": "numba",
    "MPLCONFIGDIR": "matplotlib",
    "IPYTHONDIR": "ipython",
    "JUPYTER_CONFIG_DIR": "jupyter",
}
FOLDER = "KVLAB_TESTS_HOME"


def _isolate() -> Path:
    """Point every cache into a new folder. What is downloaded with a digest in a lock is not a cache of this kind."""
    if "UV_CACHE_DIR" not in os.environ and (uv := shutil.which("uv")):  # the image's wheels, 3 GB
        os.environ["UV_CACHE_DIR"] = subprocess.check_output([uv, "cache", "dir"], text=True).strip()
    folder = Path(tempfile.mkdtemp(prefix="kvlab-tests-"))
    for name, place in CACHES.items():
        (folder / place).mkdir(parents=True)
        os.environ[name] = str(folder / place)
    os.environ[FOLDER] = str(folder)
    return folder


_made = None if FOLDER in os.environ else _isolate()  # a worker of pytest-xdist has it from its parent


def pytest_unconfigure() -> None:
    """The process that made the folder removes it."""
    if _made:
        shutil.rmtree(_made, ignore_errors=True)
