"""Tables of codes of all images' pixels, built a few images at a time: for more rows than fit the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from lungseg.approaches.vgg19_pixels.sampling import IMAGES_A_BATCH, build_table
from lungseg.data.sample import Sample
from lungseg.learning.regressors.base import PixelTable
from lungseg.learning.trees.bins import Bins
from lungseg.learning.trees.table import SAMPLE_IMAGES, SAMPLE_PIXELS, CodeWriter
from lungseg.learning.vgg19.features import PixelFeatures
from lungseg.system.runtime import Runtime


def list_image_ranges(count: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges in which `count` images are read: first and last index, the last exclusive."""
    for start in range(0, count, IMAGES_A_BATCH):
        yield start, min(start + IMAGES_A_BATCH, count)


def build_range_table(
    samples: Sequence[Sample],
    start: int,
    network: PixelFeatures,
    runtime: Runtime,
    size: int,
    pixels_per_image: int,
    seed: int,
) -> PixelTable:
    """Build the table of a range of images; the first one's index and the seed determine the sample."""
    own_seed = int(np.random.SeedSequence([seed, start]).generate_state(1)[0])
    return build_table(samples, network, runtime, size, pixels_per_image, own_seed)


def sample_bins(
    samples: Sequence[Sample], network: PixelFeatures, runtime: Runtime, size: int, seed: int
) -> Bins:
    """Find bins of the features from at most 64 evenly spaced images and 4096 pixels of each."""
    places = np.unique(np.linspace(0, len(samples) - 1, SAMPLE_IMAGES).astype(int))
    chosen = [samples[place] for place in places]
    return Bins.from_sample(build_table(chosen, network, runtime, size, SAMPLE_PIXELS, seed).features)


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
    """Write the codes of sampled pixels of all images to an .npy file; return the targets float32 N.

    Memory is that of one range of images. `open_codes` reads the file.
    """
    rows = min(pixels_per_image, size * size)
    targets = np.empty(len(samples) * rows, np.float32)
    with CodeWriter(path, len(targets), len(bins)) as writer:
        for start, end in list_image_ranges(len(samples)):
            table = build_range_table(
                samples[start:end], start, network, runtime, size, pixels_per_image, seed
            )
            writer.write(bins.encode(table.features))
            targets[start * rows : end * rows] = table.targets
            progress(end, len(samples))
    return targets
