"""What a measure job depends on, and what it must not import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import kvlab
from kvlab.arms import ARMS
from kvlab.dag.imports import closure

PACKAGE = Path(kvlab.__file__).parent


def files_of(engine: str) -> set[str]:
    found = closure(PACKAGE, ["measure.run", f"measure.engines.{engine}.driver"])
    return {str(path.relative_to(PACKAGE)) for path in found}


def test_an_engine_does_not_depend_on_another():
    hf, vllm = files_of("transformers"), files_of("vllm")
    own = "measure/engines/transformers/"
    assert {f"{own}{name}.py" for name in ("driver", "generate", "continuous")} <= hf
    other = "measure/engines/vllm/"
    assert {f"{other}{name}.py" for name in ("driver", "recorder", "worker", "failures")} <= vllm
    assert not {name for name in hf if name.startswith(other)}
    assert not {name for name in vllm if name.startswith(own)}


@pytest.mark.parametrize("engine", sorted({arm.engine for arm in ARMS.values()}))
def test_a_job_does_not_depend_on_the_configuration_or_other_wings(engine):
    assert not files_of(engine) & {"arms.py", "cli.py"}
    assert {name.split("/")[0] for name in files_of(engine)} <= {
        "__init__.py",
        "errors.py",
        "events.py",
        "allocators",  # a policy admits with the simulator's own
        "measure",
        "paths.py",
        "records.py",
        "folders.py",
        "messages.py",  # why an arm was not run
        "terminal.py",
    }


def test_no_engine_is_imported_before_it_runs():
    code = (
        "import sys, kvlab.measure.run, kvlab.measure.engines.transformers.driver, kvlab.measure.engines.vllm.driver;"
        "import kvlab.measure.engines.transformers.generate, kvlab.measure.engines.transformers.continuous;"
        "import kvlab.measure.engines.vllm.recorder, kvlab.measure.engines.vllm.worker;"
        "print([name for name in ('torch', 'transformers', 'vllm', 'pynvml', 'psutil') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
