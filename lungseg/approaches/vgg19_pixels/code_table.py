"""Pixels as rows of codes: a file of bytes that is written block by block and mapped into memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import numpy as np

from lungseg.approaches.approach import Runtime
from lungseg.approaches.vgg19_pixels.binning import MOST_BINS, Bins
from lungseg.approaches.vgg19_pixels.features import PixelFeatures
from lungseg.approaches.vgg19_pixels.sampling import IMAGES_A_BATCH, PixelTable, build_table
from lungseg.data.sample import Sample
from lungseg.errors import InputError
from lungseg.storage import make_folder, unwritable

SAMPLE_IMAGES, SAMPLE_PIXELS = 64, 4096  # that edges are found from: a quarter of a million rows at most


class CodeWriter:
    """Writes a table uint8 N x F as a .npy file, block after block; the file appears once it is whole.

    To be used in a `with` block. What a cut run leaves behind has another name, and is written over.

    Raises:
        InputError: the disk is full, or the place can't be written.
        ValueError: a block is no uint8 table with F columns, or there are more or fewer than N rows in all.
    """

    def __init__(self, path: Path, rows: int, columns: int) -> None:
        self._path, self._temporary = path, path.with_name(f".{path.name}.part")
        self._rows, self._columns, self._written = rows, columns, 0

    def __enter__(self) -> CodeWriter:
        make_folder(self._path.parent)
        header = {"descr": "|u1", "fortran_order": False, "shape": (self._rows, self._columns)}
        try:
            self._file = open(self._temporary, "wb")
            np.lib.format.write_array_header_1_0(self._file, header)
        except OSError as error:
            raise unwritable(self._path, error) from error
        return self

    def write(self, block: np.ndarray) -> None:
        """Appends rows, uint8 n x F."""
        if block.dtype != np.uint8 or block.ndim != 2 or block.shape[1] != self._columns:
            raise ValueError(f"a block is {block.dtype} {block.shape}, not uint8 n x {self._columns}")
        self._written += len(block)
        if self._written > self._rows:
            raise ValueError(f"{self._written} rows for a table of {self._rows}")
        try:
            self._file.write(np.ascontiguousarray(block).data)
        except OSError as error:
            raise unwritable(self._path, error) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._written != self._rows:
                raise ValueError(f"{self._written} rows for a table of {self._rows}")
            if kind is None:
                self._file.flush()
                os.fsync(self._file.fileno())
            self._file.close()
            if kind is None:
                os.replace(self._temporary, self._path)
        except OSError as problem:
            raise unwritable(self._path, problem) from problem
        finally:
            with suppress(OSError):
                self._file.close()
            with suppress(OSError):
                self._temporary.unlink(missing_ok=True)


def open_codes(path: Path) -> np.ndarray:
    """A table of codes uint8 N x F, mapped into memory and read-only: pages are read when they are used.

    Raises:
        InputError: the file is missing, cut short or something else.
    """
    try:
        table = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is missing or damaged: encode the features again") from error
    if not isinstance(table, np.ndarray) or table.dtype != np.uint8 or table.ndim != 2:
        raise InputError(f"{path} holds no table of codes: encode the features again")
    return table


def pixel_parts(count: int) -> Iterator[tuple[int, int]]:
    """First and last image, exclusive, of the parts that `count` images are read in."""
    for start in range(0, count, IMAGES_A_BATCH):
        yield start, min(start + IMAGES_A_BATCH, count)


def pixel_part(
    samples: Sequence[Sample],
    start: int,
    network: PixelFeatures,
    runtime: Runtime,
    size: int,
    pixels_per_image: int,
    seed: int,
) -> PixelTable:
    """Feature rows of one part. Its pixels depend on the seed and on `start`, the part's place, alone.

    Args:
        samples: the images of this part.
        size, pixels_per_image: as of `build_table`.
    """
    own_seed = int(np.random.SeedSequence([seed, start]).generate_state(1)[0])
    return build_table(samples, network, runtime, size, pixels_per_image, own_seed)


def sample_bins(
    samples: Sequence[Sample],
    network: PixelFeatures,
    runtime: Runtime,
    size: int,
    seed: int,
    count: int = MOST_BINS,
) -> Bins:
    """Bins of the features of at most 64 images, evenly spaced in their order, at most 4096 pixels each."""
    places = np.unique(np.linspace(0, len(samples) - 1, SAMPLE_IMAGES).astype(int))
    chosen = [samples[place] for place in places]
    return Bins.from_sample(build_table(chosen, network, runtime, size, SAMPLE_PIXELS, seed).features, count)


def write_pixel_codes(
    path: Path,
    samples: Sequence[Sample],
    bins: Bins,
    network: PixelFeatures,
    runtime: Runtime,
    size: int,
    pixels_per_image: int,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> np.ndarray:
    """Encodes pixels of all images into the file `path`; memory is that of one part of images.

    Returns:
        targets float32 N: the share of lung of each row's pixel.
    """
    rows = min(pixels_per_image, size * size)
    targets = np.empty(len(samples) * rows, np.float32)
    with CodeWriter(path, len(targets), len(bins)) as table:
        for start, end in pixel_parts(len(samples)):
            part = pixel_part(samples[start:end], start, network, runtime, size, pixels_per_image, seed)
            table.write(bins.encode(part.features))
            targets[start * rows : end * rows] = part.targets
            progress(end, len(samples))
    return targets
