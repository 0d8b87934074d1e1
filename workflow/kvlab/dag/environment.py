"""The environment that a job's command inherits, in a container too: the package, the Python, and named caches.

It is set in Snakemake's own process, not in the jobs' shell lines: a path may then hold any character.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

CACHES = {
    "HF_HOME": "huggingface",
    "VLLM_CACHE_ROOT": "vllm",
    "TRITON_CACHE_DIR": "triton",
    "TORCHINDUCTOR_CACHE_DIR": "torchinductor",
    "MPLCONFIGDIR": "matplotlib",
    "XDG_CACHE_HOME": "xdg",
    "XDG_CONFIG_HOME": "xdg-config",
    "IPYTHONDIR": "ipython",
    "JUPYTER_CONFIG_DIR": "jupyter",
}


def users_caches() -> list[Path]:
    """Cache folders that the user has named."""
    return [Path(os.environ[name]) for name in CACHES if os.environ.get(name)]


def set_for_jobs(root: Path, contained: bool) -> None:
    """Caches in `root`/.cache, kept between jobs and containers, where the user has named none; the package's path.

    Outside a container the jobs run in the Python that runs this, activated or not.
    """
    for name, folder in CACHES.items():
        os.environ[name] = os.environ.get(name) or str(root / ".cache" / folder)
    _first_in("PYTHONPATH", root / "workflow")
    if not contained:
        _first_in("PATH", Path(sys.executable).parent)


def _first_in(name: str, folder: Path) -> None:
    kept = [entry for entry in os.environ.get(name, "").split(os.pathsep) if entry and entry != str(folder)]
    os.environ[name] = os.pathsep.join([str(folder), *kept])
