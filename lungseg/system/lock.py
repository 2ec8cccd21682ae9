"""Let one process at a time write into a folder."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from lungseg.system.errors import InputError
from lungseg.system.files import make_folder, read_json, write_json

LOCK, HOLDER = ".lock", ".lock.json"


@contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Keep other processes from writing into a folder during the `with` block.

    The folder is made if need be. The lock belongs to this process, and ends with it however it ends. So one
    that a killed process left doesn't block. Where the file system has no locks, nothing is held.

    Raises:
        InputError: another process holds the folder; it is named with its host and since when it does. Or
            the folder can't be made or written.
    """
    make_folder(folder)
    holder = {
        "process": os.getpid(),
        "host": platform.node(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=1)  # `require_free` of another process takes it for a moment
    except Timeout:
        raise InputError(_refuse(folder)) from None
    except (OSError, NotImplementedError):
        lock = None  # if it is the folder that can't be written, the next line says so
    try:
        write_json(folder / HOLDER, holder)
        yield
    finally:
        with suppress(OSError):  # the lock's own file stays: two processes may have it open
            (folder / HOLDER).unlink(missing_ok=True)
        if lock is not None:
            lock.release()


def require_free(folder: Path) -> None:
    """Raise InputError as `hold_folder` does if a process holds the folder now."""
    if not (folder / LOCK).exists():
        return
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(_refuse(folder)) from None
    except (OSError, NotImplementedError):
        return
    lock.release()


def _refuse(folder: Path) -> str:
    who = "another process"
    with suppress(InputError):  # the holder may not have written it yet
        holder = read_json(folder / HOLDER)
        who = f"process {holder.get('process')} on {holder.get('host')}, since {holder.get('since')},"
    return (
        f"{folder} is in use: {who} is writing there. Wait for its end, or choose another folder with --out"
    )
