"""Tables of codes of the image planes: what all stages learn from, computed once and kept in files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lungseg.approaches.vgg19_context.augmented_images import AugmentedImages
from lungseg.approaches.vgg19_context.image_planes import ImagePlanes
from lungseg.approaches.vgg19_context.separable_filters import resample
from lungseg.approaches.vgg19_context.settings import Vgg19ContextSettings
from lungseg.approaches.vgg19_pixels.sampling import sample_pixels
from lungseg.learning.regressors.base import as_rows
from lungseg.learning.trees.bins import Bins
from lungseg.learning.trees.table import CodeWriter, open_codes

Progress = Callable[[int, int], None]
SAMPLED_CASES, SAMPLED_PIXELS = 64, 3000  # that bins and components are found from
COARSE, FINE, BINS = "coarse.npy", "fine.npy", "bins.npz"


@dataclass(frozen=True)
class PixelChoice:
    """The R pixels of all cases that a stage learns from, case by case."""

    pixels: list[np.ndarray]  # of each case, int64, ascending flat indices into its grid
    targets: np.ndarray  # float32 R, the share of lung in each chosen pixel
    case: np.ndarray  # int64 R, the case of each chosen pixel

    def find_rows(self, case: int) -> slice:
        """Return the rows of a case."""
        start, end = np.searchsorted(self.case, [case, case + 1])
        return slice(int(start), int(end))


def choose_pixels(
    cases: AugmentedImages, grid: int, settings: Vgg19ContextSettings, seed: int, stage: int
) -> PixelChoice:
    """Choose a stratified sample of each case's pixels (`sample_pixels`), another one for each stage."""
    pixels, targets = [], []
    for index in range(len(cases)):
        share = resample(cases.masks[index : index + 1].float(), grid)[0, 0].numpy()
        count = settings.pixels_per_copy if cases.is_copy[index] else settings.pixels_per_image
        chosen = sample_pixels(share, count, np.random.default_rng([seed, stage, index]))
        pixels.append(chosen)
        targets.append(share.ravel()[chosen])
    case = np.repeat(np.arange(len(cases)), [len(chosen) for chosen in pixels])
    return PixelChoice(pixels, np.concatenate(targets), case)


def sample_rows(planes: Tensor, rng: np.random.Generator) -> np.ndarray:
    """Sample at most 3000 random pixels of planes N x P x G x G, as rows float32 n x P."""
    flat = planes.transpose(0, 1).reshape(planes.shape[1], -1)
    chosen = np.sort(rng.choice(flat.shape[1], min(SAMPLED_PIXELS, flat.shape[1]), replace=False))
    return np.ascontiguousarray(flat[:, torch.from_numpy(chosen)].T.cpu().numpy())


def space_evenly(count: int, wanted: int) -> list[int]:
    """Return at most `wanted` evenly spaced indices below `count`."""
    return sorted(set(np.linspace(0, count - 1, min(wanted, count)).astype(int).tolist()))


def choose_sample_cases(cases: AugmentedImages) -> list[int]:
    """Choose evenly spaced training cases: nothing is fitted to validation images."""
    training = cases.is_training.nonzero()[:, 0]
    return training[space_evenly(len(training), SAMPLED_CASES)].tolist()


def _stack(tables: list[np.ndarray]) -> np.ndarray:
    """Stack tables to one, and release each as soon as it is copied."""
    stacked = np.empty((sum(map(len, tables)), tables[0].shape[1]), np.float32)
    start = 0
    while tables:
        table = tables.pop(0)
        stacked[start : start + len(table)] = table
        start += len(table)
    return stacked


@torch.inference_mode()
def fit_projection(image_planes: ImagePlanes, cases: AugmentedImages, rng: np.random.Generator) -> None:
    """Fit the principal components of each block to sampled pixels, in place."""
    if not image_planes.settings.components:
        return
    samples: list[list[np.ndarray]] = [[] for _ in image_planes.settings.blocks]
    for index in choose_sample_cases(cases):
        image = cases.read(index).to(image_planes.runtime.device)
        for block, maps in enumerate(image_planes.compute_features(image)):
            samples[block].append(sample_rows(maps.float(), rng))
    image_planes.projection.fit([torch.from_numpy(_stack(rows)) for rows in samples])


@torch.inference_mode()
def fit_bins(image_planes: ImagePlanes, cases: AugmentedImages, rng: np.random.Generator) -> Bins:
    """Find bins of the image planes from sampled pixels at each grid."""
    rows = []
    for index in choose_sample_cases(cases):
        image = cases.read(index).to(image_planes.runtime.device)
        rows += [sample_rows(planes, rng) for planes in image_planes.compute_planes(image).values()]
    return Bins.from_sample(_stack(rows))


class CodeTables:
    """Codes of the P image planes, as memory-mapped files."""

    def __init__(self, folder: Path) -> None:
        """Open the files that `write_tables` wrote. Raises InputError if one is missing or damaged."""
        self.bins = Bins.load(folder / BINS)
        # uint8 N g g x P, all pixels of all cases at the coarse grid, case by case; no rows if there is only
        # one stage, as nothing would read them.
        self.coarse = open_codes(folder / COARSE)
        self.fine = open_codes(folder / FINE)  # uint8 R x P, the pixels that the last stage learns from


@torch.inference_mode()
def write_tables(
    folder: Path,
    image_planes: ImagePlanes,
    cases: AugmentedImages,
    fine: PixelChoice,
    bins: Bins,
    progress: Progress,
) -> None:
    """Write the files that `CodeTables` opens; `fine` are the pixels that the last stage learns from.

    `progress` is called with the cases that are done, and all.
    """
    settings, columns = image_planes.settings, len(image_planes.names)
    coarse_side = settings.coarse if settings.contexts else 0
    with (
        CodeWriter(folder / COARSE, len(cases) * coarse_side**2, columns) as coarse,
        CodeWriter(folder / FINE, len(fine.case), columns) as chosen,
    ):
        for batch in cases.list_batches():
            planes = image_planes.compute_planes(cases.read(batch).to(image_planes.runtime.device))
            if coarse_side:
                coarse.write(bins.encode(as_rows(planes[coarse_side])).cpu().numpy())
            for pixels, own in zip(fine.pixels[batch], planes[settings.grid], strict=True):
                rows = own.flatten(1)[:, torch.from_numpy(pixels)].T
                chosen.write(bins.encode(rows).cpu().numpy())
            progress(batch.stop, len(cases))
    bins.save(folder / BINS)
