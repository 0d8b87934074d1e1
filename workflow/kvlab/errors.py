"""Errors whose cause the user can remove."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from kvlab.messages import Message, Said, said

if TYPE_CHECKING:
    from pydantic import ValidationError


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what a disk without room answers


class KvlabError(Exception):
    """A fault with its remedy, shown as one line and without a traceback.

    It says what was wrong, where, and what to do. One that a report may show is a message, so that it can be said in
    either language; `str` of it is English.
    """

    def __init__(self, why: Said) -> None:
        super().__init__(why)
        self.why = why

    def __str__(self) -> str:
        return said("en", self.why)


class ConfigError(KvlabError):
    """The configuration asks for something that can't be."""


class LogError(KvlabError):
    """A raw log is missing, cut short, or not what the records say."""


class NotRunnable(KvlabError):
    """What was asked for can't be done here, with the reason, a message; the others go on.

    An arm that this machine can't run is recorded as not run; a run that a prediction does not hold for, as not
    predicted.
    """

    why: Message

    def __init__(self, why: Message) -> None:
        super().__init__(why)


class OutOfTime(NotRunnable):
    """A measurement reached its time budget: what it measured so far bounds what it would have given."""


def of_the_system(error: OSError) -> str:
    """What the system refused, on one line: the file, why, and what to do."""
    remedy = "make room there" if error.errno in FULL else "check that it exists and can be written"
    return f"{error.filename or 'a file'}: {error.strerror}; {remedy}"


def first_fault(error: ValidationError) -> str:
    """The first thing that pydantic finds wrong: the key and why, on one line."""
    fault = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in fault["loc"])
    return f"{key}: {fault['msg']}" if key else fault["msg"].removeprefix("Value error, ")
