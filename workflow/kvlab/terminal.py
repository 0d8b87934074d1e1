"""What a person sees while a stage works. Everything else that is printed, by libraries too, goes to the job's log."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

_stream: TextIO | None = None
PROGRESS = "KVLAB_PROGRESS"  # names a folder where passing lines go: Snakemake's logger shows them (--logger kvlab)


def stream() -> TextIO:
    """Where the person looks: standard error, also while it is redirected into a log."""
    return _stream or sys.stderr


def say(text: str, *, passing: bool = False) -> None:
    """Show one line. A passing line is overwritten by the next on a terminal and left out elsewhere."""
    out = stream()
    if passing and PROGRESS in os.environ:
        with suppress(OSError):  # a display is nothing that a run should fail for
            Path(os.environ[PROGRESS], str(os.getpid())).write_text(text, encoding="utf-8")
        return
    if out.isatty():
        out.write(f"\r\x1b[2K{text}" + ("" if passing else "\n"))
    elif not passing:
        out.write(f"{text}\n")
    out.flush()
    if _stream is not None and not passing:
        print(text, file=sys.stderr, flush=True)


@contextmanager
def logging_to(path: Path | None) -> Iterator[None]:
    """Send standard output and error, down to the file descriptors, into `path`; `say` still reaches the person."""
    global _stream
    if path is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    _stream = os.fdopen(os.dup(kept[1]), "w", encoding="utf-8", buffering=1)
    with path.open("w", encoding="utf-8") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)
        os.close(kept[0])
        os.close(kept[1])
        _stream.close()
        _stream = None
