"""Cache what the audit found in pictures, by their content, so that a second audit takes no time.

A cache that can't be read or written counts as missing; nothing fails because of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from lungseg.system.cache import find_cache_folder
from lungseg.system.errors import InputError
from lungseg.system.hashing import hash_code, hash_value
from lungseg.system.stored import DamagedError, read_record, write_record

# The code that reads and compares files.
_CODE = ("lungseg.data.audit.compare", "lungseg.data.files.images")


@dataclass(frozen=True)
class PictureFindings:
    """What pictures showed, by hashes (hex), not by names, so that it holds for copies of a dataset too."""

    pixels: dict[str, str]  # hash of each file -> hash of its decoded pixels
    alike: list[tuple[str, str, float]]  # (hash of pixels, hash of pixels, similarity) from LOOKALIKE up
    uncompared: set[str]  # hashes of the pixels of pictures that show too little to be compared


def recall(files: Sequence[str], compared: bool) -> PictureFindings | None:
    """Return what `store` kept for these files; None if nothing usable is stored."""
    folder = find_cache_folder("audit")
    if folder is None:
        return None
    try:
        kept = read_record(folder / _name(files, compared))
    except DamagedError:
        return None
    if kept is None:
        return None
    alike = [(first, second, similarity) for first, second, similarity in kept["alike"]]
    return PictureFindings(kept["pixels"], alike, set(kept["uncompared"]))


def store(files: Sequence[str], compared: bool, found: PictureFindings) -> None:
    """Store what these files (sorted hashes, hex) showed: `compared` with each other, or only hashed."""
    folder = find_cache_folder("audit")
    if folder is None:
        return
    values = {"pixels": found.pixels, "alike": found.alike, "uncompared": sorted(found.uncompared)}
    with suppress(InputError):  # an unwritable folder or a full disk: no cache
        write_record(folder / _name(files, compared), values)


def _name(files: Sequence[str], compared: bool) -> str:
    return f"{hash_value([compared, hash_code(*_CODE), list(files)])}.json"
