"""workflow/setup, up to where it would install: no index answers here, so that nothing is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def executable(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An environment that is there already: making one takes seconds, and few tests are about it."""
    venv = tmp_path_factory.mktemp("made") / "venv"
    subprocess.run([Path(sys.executable).resolve(), "-m", "venv", venv], check=True)
    return {"VENV": str(venv)}


@pytest.fixture
def setup(tmp_path):
    """Run workflow/setup with stand-ins for the commands in `tools`, and nothing else but coreutils, on PATH."""
    tools = tmp_path / "tools"
    tools.mkdir()

    def run(**environment: str) -> subprocess.CompletedProcess[str]:
        others = ("ENGINES", "PYTHON", "PYENV_", "UV_")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(others)}
        clean |= {
            "PATH": f"{tools}:/usr/bin:/bin",
            "HOME": str(tmp_path),
            "VENV": str(tmp_path / "venv"),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
            "PIP_RETRIES": "0",
            "PIP_NO_CACHE_DIR": "1",
        }
        return subprocess.run(
            [ROOT / "workflow" / "setup"],
            env=clean | environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    run.tools = tools
    return run


def driver(tools: Path, version: str) -> None:
    executable(tools / "nvidia-smi", f"#!/bin/sh\necho {version}\n")


def python(tools: Path, name: str = "python3.12") -> None:
    (tools / name).symlink_to(Path(sys.executable).resolve())


def test_an_old_driver_is_named_with_the_needed_one_and_the_choices(setup):
    driver(setup.tools, "550.54.15")
    done = setup()
    assert done.returncode == 1
    assert "550.54.15" in done.stderr
    assert "580 or newer" in done.stderr
    assert "make run ENGINES=cpu" in done.stderr


def test_an_old_driver_does_not_stop_the_cpu(setup, made):
    driver(setup.tools, "550.54.15")
    done = setup(ENGINES="cpu", **made)
    assert "too old" not in done.stderr
    assert "installing" in done.stderr


@pytest.mark.parametrize("version", ["580.65.06", "595.10"])
def test_a_new_driver_means_cuda(setup, made, version):
    driver(setup.tools, version)
    assert f"NVIDIA driver {version} answers: engines for CUDA" in setup(**made).stderr


def test_a_driver_that_does_not_answer_means_the_cpu(setup, made):
    executable(
        setup.tools / "nvidia-smi",
        "#!/bin/sh\necho 'Failed to initialize NVML: Driver/library version mismatch'\nexit 18\n",
    )
    assert "no NVIDIA driver answers: engines for the CPU" in setup(**made).stderr


def test_cuda_without_a_driver_is_refused(setup):
    done = setup(ENGINES="cuda")
    assert done.returncode == 1
    assert "no NVIDIA driver answers" in done.stderr


def test_unknown_engines_are_refused(setup):
    assert "auto, cuda, cpu or none" in setup(ENGINES="tpu").stderr


def test_an_interpreter_that_refuses_to_run_is_passed_over(setup):
    executable(setup.tools / "python3.12", "#!/bin/sh\necho 'pyenv: version 3.12 is not installed' >&2\nexit 127\n")
    python(setup.tools, "python")
    done = setup(ENGINES="none")
    assert "making" in done.stderr
    assert "python3.12)" not in done.stderr


def test_no_interpreter_says_how_to_get_one(setup):
    for name in ("python3.11", "python3.12", "python3.13", "python3", "python"):
        executable(setup.tools / name, "#!/bin/sh\nexit 127\n")
    done = setup(ENGINES="none")
    assert done.returncode == 1
    assert "no Python 3.11, 3.12 or 3.13 that runs" in done.stderr
    for way in ("apt install", "pyenv install", "uv python install"):
        assert way in done.stderr


def test_a_missing_venv_module_names_its_package(setup):
    real = Path(sys.executable).resolve()
    for name in ("python3.11", "python3.12", "python3.13", "python3", "python"):
        executable(setup.tools / name, f'#!/bin/sh\ncase "$*" in *ensurepip*) exit 1;; esac\nexec {real} "$@"\n')
    done = setup(ENGINES="none")
    assert done.returncode == 1
    assert f"sudo apt install python3.{sys.version_info.minor}-venv" in done.stderr


def test_no_network_is_one_clear_line_and_leaves_no_stamp(setup, tmp_path):
    python(setup.tools, f"python3.{sys.version_info.minor}")
    done = setup(ENGINES="none")
    assert done.returncode == 1
    assert "the package index can't be reached" in done.stderr
    assert not (tmp_path / "venv" / "kvlab-installed").exists()
    assert "Traceback" not in done.stderr


def test_a_python_of_ones_own_that_does_not_run_is_named(setup):
    assert "PYTHON=/nowhere/python" in setup(ENGINES="none", PYTHON="/nowhere/python").stderr
