"""Check what is stored before it is used: files by length and sha256, records by a sha256 of their own."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lungseg.system.errors import InputError
from lungseg.system.files import write_json
from lungseg.system.hashing import hash_value

SEAL = "sha256"  # the key of a record that holds the hash of all others
FOLDER_RECORD = "files.json"
DIGEST_BYTES = 32

Description = dict[str, dict[str, Any]]  # path below a folder -> its "bytes" and "sha256"


class DamagedError(InputError):
    """Something stored isn't what was written."""


def write_record(path: Path, values: dict[str, Any]) -> None:
    """Write values as JSON with their own sha256. Raises InputError as `write_atomically` does."""
    write_json(path, values | {SEAL: hash_value(values)})


def read_record(path: Path) -> dict[str, Any] | None:
    """Read what `write_record` wrote, without its hash; None if there is no file.

    Raises DamagedError if the file can't be read or holds anything else.
    """
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DamagedError(f"{path} can't be read ({error.strerror or error})") from error
    except (ValueError, RecursionError):
        raise DamagedError(f"{path} is damaged") from None
    seal = values.pop(SEAL, None) if isinstance(values, dict) else None
    if seal is None or seal != hash_value(values):
        raise DamagedError(f"{path} is damaged or was changed after it was written")
    return values


def describe_files(folder: Path, names: Iterable[str] | None = None) -> Description:
    """Describe files by length and sha256, under their paths below the folder.

    Args:
        folder: where they lie.
        names: paths below it; all files in it and in its subfolders if None.
    """
    if names is None:
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {name: _describe(folder / name) for name in names}


def find_damage(folder: Path, described: Description) -> str | None:
    """Say in what a folder differs from what `describe_files` returned; None if it is whole.

    Other files beside them don't matter.
    """
    for name, expected in described.items():
        path = folder / name
        try:
            if path.stat().st_size != expected["bytes"]:
                return f"{path} has {path.stat().st_size} bytes instead of {expected['bytes']}"
            if _describe(path) != expected:
                return f"{path} has another content than was written"
        except FileNotFoundError:
            return f"{path} is missing"
        except OSError as error:
            return f"{path} can't be read ({error.strerror or error})"
    return None


def seal_folder(folder: Path, values: dict[str, Any]) -> None:
    """Write a record of values and of all files in a folder; it says that these are complete."""
    (folder / FOLDER_RECORD).unlink(missing_ok=True)
    write_record(folder / FOLDER_RECORD, {"values": values, "files": describe_files(folder)})


def read_sealed(folder: Path) -> dict[str, Any] | None:
    """Return the values that `seal_folder` stored; None if it didn't, or, with a warning, after damage."""
    try:
        record = read_record(folder / FOLDER_RECORD)
        damage = record and find_damage(folder, record["files"])
    except DamagedError as error:
        damage = str(error)
    if damage:
        warnings.warn(f"{damage}: what depends on it is made again", stacklevel=2)
        return None
    return record and record["values"]


def append_digest(data: bytes) -> bytes:
    """Return data with its sha256 (32 bytes) behind it."""
    return data + hashlib.sha256(data).digest()


def has_digest(path: Path) -> bool:
    """Return whether a file ends with the sha256 of what is before. Raises OSError if it can't be read."""
    digest = hashlib.sha256()
    left = path.stat().st_size - DIGEST_BYTES
    with path.open("rb") as file:
        while left > 0 and (block := file.read(min(left, 1 << 20))):
            digest.update(block)
            left -= len(block)
        return left == 0 and file.read() == digest.digest()


def _describe(path: Path) -> dict[str, Any]:
    found = os.stat(path)
    return {
        "bytes": found.st_size,
        "sha256": _hash_file(path, found.st_size, found.st_mtime_ns, found.st_ino),
    }


@functools.lru_cache(maxsize=100_000)
def _hash_file(path: Path, size: int, changed: int, inode: int) -> str:
    """Hash a file once for as long as it stays the same; the further arguments say whether it did."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
