"""torch's state files, whole or not at all, and never unpickled."""

from __future__ import annotations

import errno
import os
import warnings
from pathlib import Path
from typing import Any

import torch

from lungseg.system.errors import InputError, is_out_of_memory
from lungseg.system.files import unwritable


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
    """What `save_state` wrote; None if it isn't there, and with a warning if it was cut short or damaged.

    Raises:
        InputError: it can't be read now, which says nothing of what is in it.
        RuntimeError: the memory of the device is full.
    """
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path} can't be read ({reason}): make it readable, or use --fresh") from error
    except Exception as error:  # its content, in whatever way that is wrong
        if is_out_of_memory(error):
            raise
        warnings.warn(f"{path} is damaged: this training starts over", stacklevel=2)
        return None
