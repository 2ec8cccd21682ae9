"""The folder for files that can be made again, such as decoded images."""

from __future__ import annotations

import os
from pathlib import Path


def find_cache_folder(name: str) -> Path | None:
    """Return the folder `lungseg/NAME` in the user's cache; None if there is no home directory.

    The cache is the first of LUNGSEG_CACHE, XDG_CACHE_HOME and ~/.cache that is set. The folder may be
    missing.
    """
    named = os.environ.get("LUNGSEG_CACHE") or os.environ.get("XDG_CACHE_HOME")
    try:
        root = Path(named).expanduser() if named else Path.home() / ".cache"
    except RuntimeError:
        return None
    return root / "lungseg" / name
