"""Where what can be made again is kept between runs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(name: str) -> Path | None:
    """Return `lungseg/NAME` below LUNGSEG_CACHE, else XDG_CACHE_HOME, else ~/.cache; None without a home."""
    named = os.environ.get("LUNGSEG_CACHE") or os.environ.get("XDG_CACHE_HOME")
    try:
        root = Path(named).expanduser() if named else Path.home() / ".cache"
    except RuntimeError:
        return None
    return root / "lungseg" / name
