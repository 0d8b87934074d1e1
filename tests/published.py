"""Where the lengths that the paper's artifact published are on this machine. The project carries none of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data" / "sharegpt-opt-lengths.csv"
SHAREGPT = os.environ.get("KVLAB_SHAREGPT") or (str(_BESIDE) if _BESIDE.exists() else None)
needs_sharegpt = pytest.mark.skipif(
    SHAREGPT is None, reason="the artifact's ShareGPT lengths are not here: set KVLAB_SHAREGPT to the file"
)
