"""Images and masks at a working size: decoded and resized once, then read from mapped files.

A file is named by the content of its image and mask, so folds, seeds, approaches and later runs share it, and
a changed image has another name. A cache that can't be written is none: the images then stay in memory.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lungseg.data.memory import RememberedSample
from lungseg.learning.images.resize import shrink_mask, to_batch
from lungseg.system.cache import cache_folder
from lungseg.system.errors import InputError
from lungseg.system.files import write_array
from lungseg.system.hashing import hash_code

LEVELS = 65535  # of a uint16: an error of 8e-6 in [0, 1]


class Images:
    """Images and the share of lung in each of their pixels, both size x size.

    Attributes:
        names: ids of the samples, in their order.
    """

    def __init__(self, names: list[str], arrays: list[np.ndarray | Path]) -> None:
        """`arrays`: uint16 2 x s x s each, image and mask, or the .npy file that holds them."""
        self.names = names
        self._arrays = arrays

    def __len__(self) -> int:
        return len(self._arrays)

    def batch(self, chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images and masks, float32 n x 1 x s x s in [0, 1], on the host.

        Raises InputError if a file is gone or damaged.
        """
        stacked = np.stack([self._array(index) for index in chosen])
        # By numpy: in the thread that reads, torch would start OpenMP threads of its own, and when there are
        # more of them than cores, those that train sleep after each operation instead of awaiting the next.
        images, masks = (stacked[:, [kind]].astype(np.float32) / LEVELS for kind in (0, 1))
        return torch.from_numpy(images), torch.from_numpy(masks)

    def _array(self, index: int) -> np.ndarray:
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
    """Opens what is cached of the samples, and makes the rest.

    Args:
        samples: with `id`, `content()`, `image()` and `mask()`.
        size: pixels a side.
    """
    folder = _folder(size)
    arrays: list[np.ndarray | Path] = []
    for index, sample in enumerate(samples):
        arrays.append(_cached(sample, size, folder))
        if isinstance(arrays[-1], np.ndarray):
            folder = None  # it can't be written: no use to try each time
        progress(index + 1, len(samples))
    return Images([sample.id for sample in samples], arrays)


def _folder(size: int) -> Path | None:
    folder = cache_folder("images")
    return None if folder is None else folder / f"{size}-{_code()}"


@functools.cache
def _code() -> str:
    """Changes with all that a file's pixels depend on besides its content: the code and what it stands on."""
    code = hash_code(__name__)
    packages = [version(name) for name in ("numpy", "pillow", "scipy", "torch")]
    return hashlib.sha256(" ".join([code, *packages]).encode()).hexdigest()[:12]


def _cached(sample: Any, size: int, folder: Path | None) -> np.ndarray | Path:
    if folder is None:
        return _prepared(sample, size)
    path = folder / f"{hashlib.sha256(_own_code(_kind(sample)) + sample.content()).hexdigest()[:32]}.npy"
    if _is_sound(path, size):
        return path
    array = _prepared(sample, size)
    try:
        write_array(path, array, shared=True)
    except InputError:
        return array
    return path


def _kind(sample: Any) -> type:
    """The class that makes its image: one that is kept in memory is wrapped."""
    return type(sample.original if isinstance(sample, RememberedSample) else sample)


@functools.cache
def _own_code(kind: type) -> bytes:
    """Two classes may read the same file in two ways."""
    return f"{hash_code(kind)} {kind.__module__} {kind.__qualname__} ".encode()


def _is_sound(path: Path, size: int) -> bool:
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    return found.shape == (2, size, size) and found.dtype == np.uint16


def _prepared(sample: Any, size: int) -> np.ndarray:
    image = to_batch([sample.image()], size)[0, 0].numpy()
    both = np.stack([image, shrink_mask(sample.mask(), size)])
    return np.rint(both * LEVELS).astype(np.uint16)
