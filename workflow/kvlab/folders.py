"""Folders of results: whole or not at all, and only in the place of an older result of the same stage."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kvlab.errors import KvlabError
from kvlab.records import umask


@contextmanager
def whole_folder(folder: Path, mark: str) -> Iterator[Path]:
    """A folder that appears whole or not at all: yields a temporary one, renames it at the end.

    Only an empty folder (Snakemake makes that of a job's outputs) or an older result of the same stage is replaced,
    known by the file `mark`, which every result of the stage holds. KvlabError where anything else is in the way. The
    temporary folder is locked while it is written: one without a lock is left by a process that was killed, and is
    removed.
    """
    folder = Path(folder)
    _refuse_what_others_made(folder, mark)
    folder.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{folder.name}.unfinished-"
    for left in [one for one in folder.parent.iterdir() if one.name.startswith(prefix)]:
        if (held := _lock(left)) is not None:
            shutil.rmtree(left, ignore_errors=True)
            os.close(held)
    building = Path(tempfile.mkdtemp(dir=folder.parent, prefix=prefix))
    lock = _lock(building)
    try:
        yield building
        if not (building / mark).exists():
            (building / mark).touch()
        building.chmod(0o777 & ~umask())
        _refuse_what_others_made(folder, mark)
        if folder.exists():
            shutil.rmtree(folder)
        building.replace(folder)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    finally:
        if lock is not None:
            os.close(lock)


def _lock(folder: Path) -> int | None:
    """A lock on a folder, until it is closed or its process ends; None where another process has it.

    Also None where the file system has no locks: nothing is removed there.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _refuse_what_others_made(folder: Path, mark: str) -> None:
    if not folder.exists() and not folder.is_symlink():
        return
    if folder.is_symlink() or not folder.is_dir():
        raise KvlabError(f"{folder}: a folder is to be written here, and something else is in the way; move it away")
    if any(folder.iterdir()) and not (folder / mark).is_file():
        raise KvlabError(
            f"{folder}: not replaced: it holds no {mark}, so this command did not make it; "
            "move it away or name another folder"
        )
