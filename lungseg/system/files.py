"""Files written whole or not at all, and one sentence for a full disk or a shut folder."""

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

from lungseg.system.errors import InputError

FOLDER_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}"  # what can be a folder's name on any system


def write_atomically(path: Path, data: str | bytes, shared: bool = False) -> None:
    """Writes a file whole or not at all: a reader, or a kill half-way, never sees a part of it.

    Args:
        path: the file.
        data: text is written as UTF-8.
        shared: other processes may be writing the same file, so what is half written has a name of its own.

    Raises:
        InputError: the disk is full, or the place can't be written.
    """
    own = f".{secrets.token_hex(8)}" if shared else ""
    temporary = path.with_name(f".{path.name}{own}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data.encode("utf-8") if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        _remove(temporary)
        if isinstance(error, OSError):
            raise unwritable(path, error) from error
        raise


def _remove(path: Path) -> None:
    with suppress(OSError):  # the folder is shut; the first error says so already
        path.unlink(missing_ok=True)


def unwritable(path: Path, error: OSError) -> InputError:
    """The sentence for a file that can't be written: a full disk, or a folder without the right to."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InputError(
            f"the disk is full while writing {path}: free some space, then run the same command"
        )
    return InputError(f"can't write {path} ({error.strerror or error}): choose another folder")


def make_folder(folder: Path, empty: bool = False) -> Path:
    """The folder, made if need be, and emptied if asked for. Raises InputError if it can't be."""
    try:
        if empty and folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    return folder


def write_json(path: Path, value: Any) -> None:
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """An object that `write_json` wrote. Raises InputError if it is missing, damaged or something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing: {path.parent} holds no benchmark results") from None
    except (OSError, ValueError):
        raise InputError(f"{path} can't be read or is damaged: remove it, or choose another folder") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} is not a file of this program: choose another folder with --out")
    return value


def write_grey(path: Path, values: np.ndarray) -> None:
    """An H x W map in [0, 1] (or bool) as an 8-bit PNG."""
    buffer = io.BytesIO()
    pixels = np.round(np.clip(np.asarray(values, np.float32), 0, 1) * 255).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    write_atomically(path, buffer.getvalue())


def write_array(path: Path, array: np.ndarray, shared: bool = False) -> None:
    """A .npy file, which can be mapped; `shared` as in `write_atomically`."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_atomically(path, buffer.getvalue(), shared)


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """A compressed .npz file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomically(path, buffer.getvalue())
