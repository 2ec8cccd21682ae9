"""torch's state files, whole or not at all, and never unpickled."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import torch

from lungseg.storage import unwritable


def save_state(state: dict[str, Any], path: Path) -> None:
    """torch.save, whole or not at all. Raises InputError if the disk is full or shut."""
    temporary = path.with_suffix(".part")
    try:
        with open(temporary, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, RuntimeError) and "write" not in str(error).lower():
            raise
        # torch reports a write that failed as a RuntimeError of its zip writer, without the reason.
        full = error if isinstance(error, OSError) else OSError(errno.ENOSPC, str(error))
        raise unwritable(path, full) from error


def load_state(path: Path, device: torch.device) -> dict[str, Any] | None:
    """What `save_state` wrote; None if it isn't there, was cut short or is of another version."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception:  # whatever is wrong with it, it can't be gone on from
        return None
