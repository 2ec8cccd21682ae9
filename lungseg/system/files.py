"""Write files completely or not at all, and explain a full disk or missing rights in one sentence."""

from __future__ import annotations

import errno
import io
import json
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lungseg.system.errors import InputError, UnwritableError

FOLDER_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}"  # what can be a folder's name on any system


def write_atomically(path: Path, data: str | bytes) -> None:
    """Write a file completely or not at all: no reader and no interruption ever meets half of it.

    The folder is made if need be. Text is UTF-8. Other processes may write the same file at the same time.
    Raises UnwritableError if the disk is full or the place can't be written.
    """
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):  # no right to write; the first error says so already
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise explain_write_error(path, error) from error
        raise


def expand_user(name: str, what: str) -> Path:
    """Return a path with ~ replaced by a home directory. Raises InputError, naming `what`, without one."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise InputError(
            f"{what} {name!r} names a home directory that isn't there: give a whole path"
        ) from None


def explain_write_error(path: Path, error: OSError) -> UnwritableError:
    """Return the error to raise for a file that can't be written: a full disk, or missing rights."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UnwritableError(
            f"the disk is full while writing {path}: free some space, then run the same command"
        )
    if error.errno == errno.EISDIR:
        return UnwritableError(f"{path} is a folder where a file belongs: remove it")
    return UnwritableError(f"can't write {path} ({error.strerror or error}): choose another folder")


def make_folder(folder: Path, empty: bool = False) -> Path:
    """Make a folder with its parents, or remove what it holds if `empty`, and return it.

    Raises InputError if the folder can't be made or emptied.
    """
    try:
        if empty and folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_write_error(folder, error) from error
    return folder


def remove(path: Path) -> None:
    """Remove a file, a link (not what it leads to) or a folder with all that is in it, if it is there.

    Raises OSError if that fails.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON. Raises InputError as `write_atomically` does."""
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises InputError if the file is missing, damaged or holds something else."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    except (OSError, ValueError, RecursionError):
        raise InputError(f"{path} can't be read or is damaged") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} holds no JSON object")
    return value


def write_grey(path: Path, values: np.ndarray) -> None:
    """Write an H x W map in [0, 1] (or bool) as an 8-bit PNG. Raises InputError as `write_atomically`."""
    buffer = io.BytesIO()
    pixels = np.round(np.clip(np.asarray(values, np.float32), 0, 1) * 255).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    write_atomically(path, buffer.getvalue())


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write arrays as one compressed .npz file, under the names of the keywords."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomically(path, buffer.getvalue())
