"""Checkpoint files of trainings: written completely or not at all, and read without running pickled code."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import time
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import torch

from lungseg.system.errors import InputError
from lungseg.system.files import explain_write_error
from lungseg.system.stored import has_digest

LONGEST_SAVING_SHARE = 0.05  # of the time: a large state on a slow disk is written more rarely


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


class CheckpointClock:
    """Tells when a checkpoint is due, and how long those of this session took.

    Least age: LUNGSEG_CHECKPOINT_SECONDS, and so long that saving takes at most 5 % of the time.
    """

    def __init__(self) -> None:
        """Start the clock. Raises InputError as `read_checkpoint_interval`."""
        self._between, self._saved = read_checkpoint_interval(), time.perf_counter()
        self._savings: list[float] = []

    @property
    def seconds(self) -> float:
        """Return the seconds that all checkpoints took."""
        return sum(self._savings)

    def is_due(self) -> bool:
        """Return whether the last checkpoint is old enough."""
        between = self._between
        if between > 0:  # 0 stands for every step, whatever that costs
            took = min(self._savings[-2:], default=0.0)  # the lower of two, since one may have been delayed
            between = max(between, took / LONGEST_SAVING_SHARE)
        return time.perf_counter() - self._saved >= between

    def note(self, begun: float) -> None:
        """Note a checkpoint that was begun at a time of `time.perf_counter` and is written now."""
        self._saved = time.perf_counter()
        self._savings.append(self._saved - begun)


def save_state(state: dict[str, Any], path: Path) -> None:
    """Write a state by torch.save, completely or not at all.

    Raises InputError if the disk is full or the place can't be written.
    """
    temporary = path.with_suffix(".part")
    try:
        with open(temporary, "wb") as file:
            writer = _HashingWriter(file)
            torch.save(state, writer)
            file.write(writer.digest.digest())
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


class _HashingWriter:
    """Hashes what passes through it to a file."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def load_state(path: Path) -> dict[str, Any] | None:
    """Read what `save_state` wrote; None if there is no file, and, with a warning, if it is damaged.

    All tensors are on the host: a device may have no memory for them beside the network that they replace.
    Raises InputError if the file can't be read now, which says nothing about its content.
    """
    try:
        if has_digest(path):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path} can't be read ({reason}): make it readable, or use --fresh") from error
    warnings.warn(f"{path} is damaged: this training starts over", stacklevel=2)
    return None
