"""Checkpoint files of trainings: written completely or not at all, and read without running pickled code."""

from __future__ import annotations

import errno
import math
import os
import warnings
from pathlib import Path
from typing import Any

import torch

from lungseg.system.errors import InputError, is_out_of_memory
from lungseg.system.files import explain_write_error


def read_checkpoint_interval() -> float:
    """Return the least seconds between checkpoints: LUNGSEG_CHECKPOINT_SECONDS, or 60.

    Raises InputError if the variable isn't a number of at least 0.
    """
    text = os.environ.get("LUNGSEG_CHECKPOINT_SECONDS", "60")
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise InputError(f"LUNGSEG_CHECKPOINT_SECONDS={text} is not a number of at least 0: mend or unset it")
    return seconds


def save_state(state: dict[str, Any], path: Path) -> None:
    """Write a state by torch.save, completely or not at all.

    Raises InputError if the disk is full or the place can't be written.
    """
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
        # torch's zip writer raises a RuntimeError without the reason where a write fails.
        full = error if isinstance(error, OSError) else OSError(errno.ENOSPC, str(error))
        raise explain_write_error(path, full) from error


def load_state(path: Path, device: torch.device) -> dict[str, Any] | None:
    """Read what `save_state` wrote; None if there is no file, and, with a warning, if it is damaged.

    Raises InputError if the file can't be read now, which says nothing about its content, and RuntimeError if
    the memory of the device is full.
    """
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path} can't be read ({reason}): make it readable, or use --fresh") from error
    except Exception as error:  # what torch raises for damaged content is not documented
        if is_out_of_memory(error):
            raise
        warnings.warn(f"{path} is damaged: this training starts over", stacklevel=2)
        return None
