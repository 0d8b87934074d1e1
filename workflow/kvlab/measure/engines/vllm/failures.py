"""What vLLM's refusals look like, also where they happen in a process of its own.

There the driver gets "Engine core initialization failed. See root cause above", so vLLM's loggers also write their
errors to a file, in every process, and the root cause is looked for in it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kvlab.errors import KvlabError, NotRunnable
from kvlab.measure.engines.attention import MESSAGE
from kvlab.measure.engines.refusal import ours, out_of_memory, refusal

OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "No available memory for the cache blocks",
    "KV cache memory",
    "Free memory on device",
    "is less than requested memory for kv",
)


def keep_errors(scratch: Path) -> None:
    """Have vLLM's errors written to a file as well; to be called before it is imported. A user's own setting wins."""
    level = os.environ.get("VLLM_LOGGING_LEVEL", "ERROR")
    handlers = {
        "console": {"class": "logging.StreamHandler", "level": level},
        "file": {"class": "logging.FileHandler", "level": "ERROR", "filename": str(_file(scratch)), "delay": True},
    }
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": handlers,
        "loggers": {"vllm": {"handlers": list(handlers), "level": level, "propagate": False}},
    }
    path = scratch / "vllm-logging.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    os.environ.setdefault("VLLM_LOGGING_CONFIG_PATH", str(path))


@contextmanager
def memory(scratch: Path, loading: bool = False) -> Iterator[None]:
    """Running out of memory, and `loading` any other refusal, means that this machine can't run the arm: NotRunnable.

    A layer without full attention raises KvlabError, as it does where the core is in this process.
    """
    try:
        yield
    except NotRunnable:
        raise
    except Exception as error:
        log = _file(scratch).read_text(encoding="utf-8") if _file(scratch).exists() else ""
        lines = [str(error), *log.splitlines()]
        for line in lines:  # raised in the core, which may be another process
            if MESSAGE in line and not isinstance(error, KvlabError):
                raise KvlabError(MESSAGE + line.split(MESSAGE, 1)[1]) from error
        causes = [line for line in lines if any(phrase in line for phrase in OUT_OF_MEMORY)]
        if causes or isinstance(error, MemoryError):
            raise out_of_memory((causes or lines)[-1]) from error
        if not loading or isinstance(error, KvlabError) or ours(error, log):
            raise
        raise refusal("vLLM", error, log) from error


def _file(scratch: Path) -> Path:
    return scratch / "vllm-errors"
