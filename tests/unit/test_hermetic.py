"""The tests' own environment: caches and HOME are this session's, also in the processes that a test starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import CACHES, FOLDER

ASK = """
import pathlib
import matplotlib
for place in (pathlib.Path.home(), matplotlib.get_configdir(), matplotlib.get_cachedir()):
    print(place)
"""


def test_every_cache_lies_in_the_sessions_folder():
    folder = Path(os.environ[FOLDER])
    assert folder.is_dir()
    for name in CACHES:
        assert folder in Path(os.environ[name]).parents, name


def test_libraries_in_other_processes_use_that_folder_too():
    said = subprocess.check_output([sys.executable, "-c", ASK], text=True).split()
    assert len(said) == 3
    for place in said:
        assert place.startswith(os.environ[FOLDER]), place


def test_make_test_runs_every_folder_of_tests():
    tests = Path(__file__).resolve().parents[1]
    said = (tests / "all").read_text(encoding="utf-8")
    for folder in {file.parent.name for file in tests.glob("*/test_*.py")}:
        assert f"tests/{folder}" in said
