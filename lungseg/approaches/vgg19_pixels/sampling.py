"""Stratified sampling of pixels from images, and the table of features and targets that they make."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from lungseg.data.sample import Sample
from lungseg.learning.images.resize import shrink_mask, to_batch
from lungseg.learning.regressors.base import PixelTable
from lungseg.learning.vgg19.features import CHANNELS, PixelFeatures, extract_features
from lungseg.system.runtime import Runtime

IMAGES_A_BATCH = 8


def sample_pixels(target: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Sample pixels of a target float32 h x w, stratified by its shares of lung: ascending flat indices.

    The strata are no lung, less than half, half or more, and all lung. Each gets its share of the image,
    rounded by largest remainder. So the sample has the true share of lung, and the thin strata along the edge
    are not lost by chance. All pixels are taken if the image has no more than `count`.
    """
    values = target.ravel()
    if count >= values.size:
        return np.arange(values.size)
    stratum = np.where(values <= 0, 0, np.where(values >= 1, 3, np.where(values < 0.5, 1, 2)))
    sizes = np.bincount(stratum, minlength=4)
    exact = sizes * (count / values.size)
    wanted = np.floor(exact).astype(int)
    for index in np.argsort(wanted - exact, kind="stable")[: count - wanted.sum()]:
        wanted[index] += 1
    chosen = [rng.choice(np.flatnonzero(stratum == s), wanted[s], replace=False) for s in range(4)]
    return np.sort(np.concatenate(chosen))


def build_table(
    samples: Sequence[Sample],
    network: PixelFeatures,
    runtime: Runtime,
    size: int,
    pixels_per_image: int,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> PixelTable:
    """Build a table of sampled pixels of all images; beyond it, memory is that of one batch of images.

    Images are shrunk to size x size pixels by area average; the mask's area average is the target. The seed
    and an image's index in `samples` determine which of its pixels are sampled: `pixels_per_image`, or all if
    it has no more. `progress` is called with the images that are done, and all.
    """
    rows = min(pixels_per_image, size * size)
    features = np.empty((len(samples) * rows, CHANNELS), np.float32)
    targets = np.empty(len(samples) * rows, np.float32)
    for start in range(0, len(samples), IMAGES_A_BATCH):
        group = samples[start : start + IMAGES_A_BATCH]
        batch = to_batch([sample.image() for sample in group], size, runtime.device)
        maps = extract_features(network, batch, runtime).flatten(2)
        for offset, sample in enumerate(group):
            target = shrink_mask(sample.mask(), size)
            rng = np.random.default_rng([seed, start + offset])
            chosen = sample_pixels(target, rows, rng)
            place = slice((start + offset) * rows, (start + offset + 1) * rows)
            index = torch.from_numpy(chosen).to(maps.device)
            features[place] = maps[offset].index_select(1, index).T.cpu().numpy()
            targets[place] = target.ravel()[chosen]
        progress(min(start + IMAGES_A_BATCH, len(samples)), len(samples))
    return PixelTable(features, targets)
