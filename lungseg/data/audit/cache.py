"""What the audit found in pictures, kept by their content: a second look takes no time.

A cache that can't be read, or written, is none; nothing fails for it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress

from lungseg.system.cache import cache_folder
from lungseg.system.errors import InputError
from lungseg.system.files import write_json
from lungseg.system.hashing import hash_code, hash_of

# Hash of each file -> hash of its pixels; (pixels, pixels, similarity); pixels that weren't compared.
Found = tuple[dict[str, str], list[tuple[str, str, float]], list[str]]

# What decides how a file is read and compared.
_CODE = ("lungseg.data.audit.audit", "lungseg.data.files.images")


def recall(files: Sequence[str], compared: bool) -> Found | None:
    """What `store` kept for these files (sorted hashes, hex); None if there is nothing sound."""
    folder = cache_folder("audit")
    if folder is None:
        return None
    try:
        kept = json.loads((folder / _name(files, compared)).read_text("utf-8"))
        pixels = {str(file): str(pixel) for file, pixel in kept["pixels"].items()}
        alike = [(str(first), str(second), float(similarity)) for first, second, similarity in kept["alike"]]
        uncompared = [str(pixel) for pixel in kept["uncompared"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    known = set(pixels.values())
    whole = sorted(pixels) == list(files) and all({first, second} <= known for first, second, _ in alike)
    return (pixels, alike, uncompared) if whole else None


def store(files: Sequence[str], compared: bool, found: Found) -> None:
    folder = cache_folder("audit")
    if folder is None:
        return
    pixels, alike, uncompared = found
    with suppress(InputError):  # an unwritable folder or a full disk: no cache
        write_json(
            folder / _name(files, compared),
            {"pixels": pixels, "alike": [list(pair) for pair in alike], "uncompared": uncompared},
        )


def _name(files: Sequence[str], compared: bool) -> str:
    return f"{hash_of([compared, hash_code(*_CODE), list(files)])}.json"
