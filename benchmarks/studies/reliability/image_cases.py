"""Damaged images and masks, each read by what a benchmark reads them with."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.studies.reliability.outcomes import Wrong
from benchmarks.studies.reliability.picture_damage import DAMAGES, find_contradiction, keep
from benchmarks.studies.reliability.pictures import make_originals
from lungseg.data.files.images import read_image, read_mask
from lungseg.data.files.raster import read_size
from lungseg.system.errors import InputError

LIMIT = 10.0  # seconds
OTHER_READER = 0.15  # share of the masks read as an image, and of the images read as a mask
SUFFIXES = {"PNG": "png", "JPEG": "jpg", "TIFF": "tif", "BMP": "bmp"}
KINDS = list(DAMAGES)


@dataclass
class ImageCases:
    """A picture file a case.

    Attributes:
        seed: of the pictures and of what is done to them.
        folder: for the files.
    """

    seed: int
    folder: Path
    part: str = "images"

    def prepare(self) -> None:
        """Make the sound files, and have each warning said that the program lets through."""
        warnings.simplefilter("always", append=True)  # behind the filters of the program
        self.originals = make_originals(self.seed)

    def name_kind(self, number: int) -> str:
        return KINDS[number % len(KINDS)]

    def find_limit(self, number: int) -> float:
        return LIMIT

    def run(self, number: int) -> None:
        """Damage a file and read it twice. Raises InputError, or Wrong."""
        rng = np.random.default_rng([self.seed, 1, number])
        original = self.originals[rng.integers(len(self.originals))]
        damage = DAMAGES[self.name_kind(number)]
        path = self.folder / f"{os.getpid()}.{SUFFIXES[original.format]}"
        path.write_bytes(damage(original.data, original.format, rng))
        as_mask = original.is_mask ^ (damage is not keep and rng.random() < OTHER_READER)
        try:
            check_reading(path, read_mask if as_mask else read_image)
            if found := find_contradiction(path.read_bytes(), original.format):
                raise Wrong(f"{path.name} is read although {found}")
        except InputError as error:
            if damage is keep:
                raise Wrong(f"a sound file is refused: {error}") from error
            raise


def check_reading(path: Path, read: Callable[[Path], np.ndarray]) -> None:
    """Read a file twice and its size. Raises InputError if it is refused, and Wrong as `_check_values`."""
    size, first, second = (_attempt(reader, path) for reader in (read_size, read, read))
    if str(first) != str(second) if isinstance(first, InputError) else not np.array_equal(first, second):
        raise Wrong(f"{path.name}: read twice, and the results differ")
    if isinstance(first, InputError):
        raise first
    _check_values(first, np.dtype(bool) if read is read_mask else np.dtype(np.float32))
    if isinstance(size, InputError):
        raise Wrong(f"{path.name}: it is read, but its size is not: {size}")
    if first.shape != size:
        raise Wrong(f"{path.name}: read_size says {size}, and {first.shape} is read")


def _attempt(reader: Callable[[Path], np.ndarray | tuple[int, int]], path: Path):
    """What is read, or the refusal."""
    try:
        return reader(path)
    except InputError as error:
        return error


def _check_values(values: np.ndarray, kind: np.dtype) -> None:
    if values.dtype != kind or values.ndim != 2:
        raise Wrong(f"the result is {values.dtype} of {values.ndim} dimensions")
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
        raise Wrong(f"the result runs from {values.min()} to {values.max()}")
