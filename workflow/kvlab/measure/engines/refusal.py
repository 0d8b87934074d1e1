"""An engine's refusal while it loads: this machine can't run the arm, for a reason that the engine gave.

Engines refuse in many ways (out of memory, no kernel for a head size, an unknown model). All of them are the
arm's reason, and the other arms go on. A mistake in this project's own code is no refusal and ends the run: it is
recognised by its type and by where it was raised.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kvlab.errors import KvlabError, NotRunnable
from kvlab.messages import Message
from kvlab.paths import PACKAGE

MISTAKES = (TypeError, AttributeError, NameError, KeyError, IndexError, ImportError, SyntaxError)
_FRAME = re.compile(r'File "([^"]+)", line \d+')
_RAISED = re.compile(r"(?:^|\s)(?:[\w.]+\.)?(\w+(?:Error|Exception))(?:: (.*))?$", re.MULTILINE)


def ours(error: BaseException, log: str = "") -> bool:
    """Whether an exception is this project's mistake; `log`: the traceback that another of its processes wrote."""
    frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if raised := _RAISED.findall(log):
        frames, kinds = _FRAME.findall(log.rpartition("Traceback (most recent call last)")[2]), {raised[-1][0]}
    last = Path(frames[-1]) if frames else None
    return bool(kinds & {kind.__name__ for kind in MISTAKES}) or (last is not None and last.is_relative_to(PACKAGE))


def refusal(engine: str, error: BaseException, log: str = "") -> NotRunnable:
    """The engine's reason in one line: the last exception of `log` where there is one, else of `error`."""
    raised = _RAISED.findall(log)
    said = raised[-1][1] if raised else str(error)
    return NotRunnable(Message("engine-refuses", {"engine": engine, "text": one_line(said or type(error).__name__)}))


def out_of_memory(text: str) -> NotRunnable:
    """That there is not enough memory, with what the engine said."""
    return NotRunnable(Message("out-of-memory", {"text": one_line(text)}))


def one_line(text: str) -> str:
    """The beginning of an engine's own error, on one line."""
    return " ".join(text.split())[:300]


@contextmanager
def refusals(engine: str) -> Iterator[None]:
    """Raises NotRunnable for an engine's refusal; a fault that we name and a mistake of ours pass as they are."""
    try:
        yield
    except KvlabError:
        raise
    except Exception as error:
        if ours(error):
            raise
        raise refusal(engine, error) from error
