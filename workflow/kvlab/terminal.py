"""What the user sees: results on standard output, progress and faults on standard error.

Everything else that is printed, by libraries too, goes to the job's log.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.table import Table

_stream: TextIO | None = None
_results: TextIO | None = None
PROGRESS = "KVLAB_PROGRESS"  # names a folder where passing lines go: Snakemake's logger shows them (--logger kvlab)


def stream() -> TextIO:
    """The standard error that the user sees, also while it is redirected into a log."""
    return _stream or sys.stderr


def say(text: str, *, passing: bool = False) -> None:
    """Show one line. A passing line is overwritten by the next on a terminal and left out elsewhere."""
    out = stream()
    if passing and PROGRESS in os.environ:
        with suppress(OSError):  # a fault of the display must not end a run
            Path(os.environ[PROGRESS], str(os.getpid())).write_text(text, encoding="utf-8")
        return
    if out.isatty():
        out.write(f"\r\x1b[2K{text}" + ("" if passing else "\n"))
    elif not passing:
        out.write(f"{text}\n")
    out.flush()
    if _stream is not None and not passing:
        with suppress(OSError):  # the log, on a disk that is full; the message was shown already
            print(text, file=sys.stderr, flush=True)


def show(what: str | Table = "") -> None:
    """Write a line or a table of a result: to standard output, also while that is redirected into a log."""
    from rich.console import Console

    out = _results or sys.stdout
    whole = None if out.isatty() else 1000  # columns; a file or a pipe gets each row on one line
    console = Console(file=out, width=whole, highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        console.print(what, soft_wrap=isinstance(what, str))
    out.write(captured.get())
    out.flush()


def table(*header: str, left: int = 1) -> Table:
    """An empty table without lines; its first `left` columns are set left, the others right."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for number, title in enumerate(header):
        made.add_column(title, justify="left" if number < left else "right")
    return made


@contextmanager
def logging_to(path: Path | None) -> Iterator[None]:
    """Send standard output and error, down to the file descriptors, into `path`; `say` still writes to the user's
    terminal."""
    global _stream, _results
    if path is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    log = path.open("w", encoding="utf-8")
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    _stream = os.fdopen(os.dup(kept[1]), "w", encoding="utf-8", buffering=1)
    _results = os.fdopen(os.dup(kept[0]), "w", encoding="utf-8", buffering=1)
    with log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        yield
    finally:
        with suppress(OSError):  # of the log, on a disk that is full
            sys.stdout.flush()
            sys.stderr.flush()
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)
        os.close(kept[0])
        os.close(kept[1])
        _stream.close()
        _results.close()
        _stream = _results = None
