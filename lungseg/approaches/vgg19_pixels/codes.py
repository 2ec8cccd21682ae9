"""Pixels of all images as a file of codes, a part of the images at a time: more rows than fit the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from lungseg.approaches.vgg19_pixels.sampling import IMAGES_A_BATCH, build_table
from lungseg.data.sample import Sample
from lungseg.learning.regressors.base import PixelTable
from lungseg.learning.trees.bins import MOST_BINS, Bins
from lungseg.learning.trees.table import SAMPLE_IMAGES, SAMPLE_PIXELS, CodeWriter
from lungseg.learning.vgg19.features import PixelFeatures
from lungseg.system.runtime import Runtime


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
