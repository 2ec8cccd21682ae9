"""Cache what the audit found in pictures, by their content, so that a second audit takes no time.

A cache that can't be read or written counts as missing; nothing fails because of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from lungseg.system.cache import find_cache_folder
from lungseg.system.errors import InputError
from lungseg.system.files import write_json
from lungseg.system.hashing import hash_code, hash_value

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
        kept = json.loads((folder / _name(files, compared)).read_text("utf-8"))
        pixels = {str(file): str(pixel) for file, pixel in kept["pixels"].items()}
        alike = [(str(first), str(second), float(similarity)) for first, second, similarity in kept["alike"]]
        uncompared = {str(pixel) for pixel in kept["uncompared"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    known = set(pixels.values())
    whole = sorted(pixels) == list(files) and all({first, second} <= known for first, second, _ in alike)
    return PictureFindings(pixels, alike, uncompared) if whole else None


def store(files: Sequence[str], compared: bool, found: PictureFindings) -> None:
    """Store what these files (sorted hashes, hex) showed: `compared` with each other, or only hashed."""
    folder = find_cache_folder("audit")
    if folder is None:
        return
    values = {"pixels": found.pixels, "alike": found.alike, "uncompared": sorted(found.uncompared)}
    with suppress(InputError):  # an unwritable folder or a full disk: no cache
        write_json(folder / _name(files, compared), values)


def _name(files: Sequence[str], compared: bool) -> str:
    return f"{hash_value([compared, hash_code(*_CODE), list(files)])}.json"
