"""Images and masks at a working size: decoded and resized once, then read from memory-mapped cache files.

A file is named by a hash of its image and mask. So folds, seeds, approaches and later runs share it, and a
changed image gets a new file. If the cache can't be written, images stay in memory. A GPU with enough free
memory holds all of them, so that a training need not wait for the host.
"""

from __future__ import annotations

import functools
import hashlib
import io
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lungseg.data.memory import RememberedSample
from lungseg.learning.images.resize import shrink_mask, to_batch
from lungseg.system.cache import find_cache_folder
from lungseg.system.errors import InputError
from lungseg.system.files import write_atomically
from lungseg.system.hashing import hash_code
from lungseg.system.stored import append_digest, has_digest

LEVELS = 65535  # of uint16: values in [0, 1] are rounded by at most 8e-6
RESIDENT_SHARE = 0.05  # of a GPU's free memory: what takes more stays on the host


class Images:
    """Images and masks of samples at one working size, in memory or in files."""

    def __init__(self, names: list[str], arrays: list[np.ndarray | Path]) -> None:
        """Collect ids of samples and their arrays uint16 2 x s x s (image, mask), or .npy files of these."""
        self.names, self._arrays = names, arrays
        self._resident: Tensor | None = None  # 2 x N x s x s on a device: uint16, held as int16

    def __len__(self) -> int:
        return len(self._arrays)

    def read_batch(self, chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Read images and masks (shares of lung) by index: float32 n x 1 x s x s in [0, 1], on the host.

        Raises InputError if a file is missing or damaged.
        """
        stacked = np.stack([self._open(index) for index in chosen])
        # With numpy: torch would start OpenMP threads of its own in the thread that reads. With more of them
        # than cores, the training threads sleep after each operation instead of waiting for the next one.
        images, masks = (stacked[:, [channel]].astype(np.float32) / LEVELS for channel in (0, 1))
        return torch.from_numpy(images), torch.from_numpy(masks)

    def fits_on(self, device: torch.device) -> bool:
        """Return whether all images fit into a twentieth of a GPU's free memory; False for a CPU."""
        if device.type != "cuda" or not self._arrays:
            return False
        size = len(self) * self._open(0).nbytes
        return size <= RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]

    def keep_on(self, device: torch.device) -> None:
        """Copy all images and masks to a device, from which `gather` reads them.

        Raises InputError if a file is missing or damaged.
        """
        if self._resident is not None:
            return
        # torch computes little with uint16, and nothing that is gathered depends on the sign.
        resident = torch.empty((2, len(self), *self._open(0).shape[1:]), dtype=torch.int16, device=device)
        for index in range(len(self)):
            resident[:, index] = torch.from_numpy(self._open(index).view(np.int16).copy())
        self._resident = resident

    @property
    def is_resident(self) -> bool:
        """Return whether `keep_on` was called."""
        return self._resident is not None

    def gather(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Read images and masks by int64 indices on the device that holds them; as `read_batch`, and there.

        The values are those of `read_batch`, bit for bit, and nothing waits for the device.
        """
        levels = self._resident.index_select(1, chosen).int().bitwise_and(LEVELS)
        # By a tensor: CUDA divides by a number as it multiplies by its inverse, which rounds differently.
        images, masks = levels / torch.full((1,), float(LEVELS), device=levels.device)
        return images[:, None], masks[:, None]

    def _open(self, index: int) -> np.ndarray:
        found = self._arrays[index]
        if isinstance(found, np.ndarray):
            return found
        try:
            return np.load(found, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(
                f"{found} is missing or damaged: it was cached by this run; run the same command again"
            ) from error


def read_images(
    samples: Sequence[Any], size: int, progress: Callable[[int, int], None] = lambda done, total: None
) -> Images:
    """Open the cached images and masks of samples at size x size pixels, and make those not cached yet.

    `progress` is called with the samples that are done, and all.
    """
    folder = _find_folder(size)
    arrays: list[np.ndarray | Path] = []
    for index, sample in enumerate(samples):
        arrays.append(_find_or_make(sample, size, folder))
        if isinstance(arrays[-1], np.ndarray):
            folder = None  # it can't be written, so there is no use in trying again
        progress(index + 1, len(samples))
    return Images([sample.id for sample in samples], arrays)


def _find_folder(size: int) -> Path | None:
    folder = find_cache_folder("images")
    return None if folder is None else folder / f"{size}-{_hash_own_code()}"


@functools.cache
def _hash_own_code() -> str:
    """Hash what the cached pixels depend on besides the sample: this code and the libraries that it uses."""
    parts = hash_code(__name__), *(version(name) for name in ("numpy", "pillow", "scipy", "torch"))
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:12]


def _find_or_make(sample: Any, size: int, folder: Path | None) -> np.ndarray | Path:
    if folder is None:
        return _make(sample, size)
    try:
        # RememberedSample only wraps the sample whose class makes the image.
        own = _hash_sample_class(type(sample.original if isinstance(sample, RememberedSample) else sample))
    except InputError:  # a class without source, whose changes nothing would show
        return _make(sample, size)
    path = folder / f"{hashlib.sha256(own + sample.content()).hexdigest()[:32]}.npy"
    if _is_sound(path, size):
        return path
    array = _make(sample, size)
    try:
        write_atomically(path, append_digest(_to_npy(array)))
    except InputError:
        return array
    return path


@functools.cache
def _hash_sample_class(sample_class: type) -> bytes:
    """Hash a class of samples: two classes may read the same file in two ways. Raises as `hash_code`."""
    return f"{hash_code(sample_class)} {sample_class.__module__} {sample_class.__qualname__} ".encode()


def _is_sound(path: Path, size: int) -> bool:
    try:
        if not has_digest(path):
            return False
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    return found.shape == (2, size, size) and found.dtype == np.uint16


def _to_npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _make(sample: Any, size: int) -> np.ndarray:
    """Return image and mask uint16 2 x size x size."""
    image = to_batch([sample.image()], size)[0, 0].numpy()
    both = np.stack([image, shrink_mask(sample.mask(), size)])
    return np.rint(both * LEVELS).astype(np.uint16)
