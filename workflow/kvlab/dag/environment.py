"""The environment that a job's command inherits, in a container too: the package, the Python, and named caches.

It is set in Snakemake's own process, not in the jobs' shell lines: a path may then hold any character.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from kvlab.records import write_json

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


def set_for_jobs(code: Path | None, contained: bool) -> None:
    """Caches in .cache here, kept between jobs and containers, where the user has named none; the package's path.

    `code`: the folder of the package in a checkout; None where the package is installed, here or in the image. Outside
    a container the jobs run in the Python that runs this, activated or not.
    """
    for name, folder in CACHES.items():
        os.environ[name] = os.environ.get(name) or str(Path.cwd() / ".cache" / folder)
    if code is not None:
        _first_in("PYTHONPATH", code)
    if not contained:
        _first_in("PATH", Path(sys.executable).parent)


def hand_over(run: Path, configuration: dict[str, Any]) -> None:
    """Leave a run's configuration to the commands of its jobs, which write it: `take_over`."""
    os.environ[_variable(run)] = json.dumps(configuration, allow_nan=False)


def take_over(run: Path) -> None:
    """Write the run's `config.json` where a workflow handed over another one than is there."""
    wanted, file = os.environ.get(_variable(run)), run / "config.json"
    if wanted and not (file.is_file() and json.loads(file.read_text(encoding="utf-8")) == json.loads(wanted)):
        write_json(file, json.loads(wanted))


def _variable(run: Path) -> str:
    return f"KVLAB_CONFIG_{run.name.replace('-', '_')}"


def _first_in(name: str, folder: Path) -> None:
    kept = [entry for entry in os.environ.get(name, "").split(os.pathsep) if entry and entry != str(folder)]
    os.environ[name] = os.pathsep.join([str(folder), *kept])
