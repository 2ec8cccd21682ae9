"""Cases to tables of codes: what every stage learns from, extracted once and kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lungseg.approaches.vgg19_context.base import BasePlanes
from lungseg.approaches.vgg19_context.cases import Cases
from lungseg.approaches.vgg19_context.separable import resample
from lungseg.approaches.vgg19_context.settings import Vgg19ContextSettings
from lungseg.approaches.vgg19_pixels.sampling import sample_pixels
from lungseg.learning.regressors.base import as_rows
from lungseg.learning.trees.bins import Bins
from lungseg.learning.trees.table import CodeWriter, open_codes

Progress = Callable[[int, int], None]
SAMPLED_CASES, SAMPLED_PIXELS = 64, 3000  # that edges and components are found from
COARSE, FINE, BINS = "coarse.npy", "fine.npy", "bins.npz"


@dataclass(frozen=True)
class Choice:
    """Which pixels of each case a stage learns from.

    Attributes:
        pixels: of each case, int64, ascending flat indices into its grid.
        targets: float32 R, the share of lung of all chosen pixels, case by case.
        case: int64 R, the case of each.
    """

    pixels: list[np.ndarray]
    targets: np.ndarray
    case: np.ndarray

    def place(self, index: int) -> slice:
        """Where the rows of a case lie."""
        start, end = np.searchsorted(self.case, [index, index + 1])
        return slice(int(start), int(end))


def choose_pixels(cases: Cases, grid: int, settings: Vgg19ContextSettings, seed: int, stage: int) -> Choice:
    """A stratified sample of each case's pixels (see `sample_pixels`); it differs from stage to stage."""
    pixels, targets = [], []
    for index in range(len(cases)):
        share = resample(cases.masks[index : index + 1].float(), grid)[0, 0].numpy()
        count = settings.pixels_per_copy if cases.copied[index] else settings.pixels_per_image
        chosen = sample_pixels(share, count, np.random.default_rng([seed, stage, index]))
        pixels.append(chosen)
        targets.append(share.ravel()[chosen])
    case = np.repeat(np.arange(len(cases)), [len(chosen) for chosen in pixels])
    return Choice(pixels, np.concatenate(targets), case)


def sampled_rows(planes: Tensor, rng: np.random.Generator, count: int = SAMPLED_PIXELS) -> np.ndarray:
    """At most `count` rows float32 of random pixels of planes N x P x G x G."""
    flat = planes.transpose(0, 1).reshape(planes.shape[1], -1)
    chosen = np.sort(rng.choice(flat.shape[1], min(count, flat.shape[1]), replace=False))
    return np.ascontiguousarray(flat[:, torch.from_numpy(chosen)].T.cpu().numpy())


def spread(count: int, wanted: int) -> list[int]:
    """At most `wanted` of `count` indices, evenly spaced."""
    return sorted(set(np.linspace(0, count - 1, min(wanted, count)).astype(int).tolist()))


def sampled_cases(cases: Cases) -> list[int]:
    """Evenly spaced cases among those to learn from: nothing is fitted to a validation image."""
    learnt = cases.learnt.nonzero()[:, 0]
    return learnt[spread(len(learnt), SAMPLED_CASES)].tolist()


def _many(rows: list[np.ndarray]) -> np.ndarray:
    """The rows of several cases as one table, letting go of each as it is copied."""
    table = np.empty((sum(map(len, rows)), rows[0].shape[1]), np.float32)
    start = 0
    while rows:
        part = rows.pop(0)
        table[start : start + len(part)] = part
        start += len(part)
    return table


@torch.inference_mode()
def fit_projection(base: BasePlanes, cases: Cases, rng: np.random.Generator) -> None:
    """Principal components of each block, from pixels of evenly spaced cases."""
    if not base.settings.components:
        return
    samples: list[list[np.ndarray]] = [[] for _ in base.settings.blocks]
    for index in sampled_cases(cases):
        image = cases.pictures(index).to(base.runtime.device)
        for place, maps in enumerate(base.features(image)):
            samples[place].append(sampled_rows(maps.float(), rng))
    base.projection.fit([torch.from_numpy(_many(rows)) for rows in samples])


@torch.inference_mode()
def fit_bins(base: BasePlanes, cases: Cases, rng: np.random.Generator) -> Bins:
    """Edges of the base planes, from evenly spaced cases at each grid."""
    rows = []
    for index in sampled_cases(cases):
        for planes in base.planes(cases.pictures(index).to(base.runtime.device)).values():
            rows.append(sampled_rows(planes, rng))
    return Bins.from_sample(_many(rows))


class BaseTables:
    """Codes of the base planes, as mapped files.

    Attributes:
        bins: of the P planes.
        coarse: uint8 N g g x P, every pixel of every case at the coarse grid, case by case; no rows at all if
            there is one stage only, as nothing would read them.
        fine: uint8 R x P, the last stage's chosen pixels.
    """

    def __init__(self, folder: Path) -> None:
        """Raises InputError if a file is missing or damaged."""
        self.bins = Bins.load(folder / BINS)
        self.coarse = open_codes(folder / COARSE)
        self.fine = open_codes(folder / FINE)

    @staticmethod
    def exist(folder: Path) -> bool:
        """Whether they were written whole: the bins are written last."""
        return (folder / BINS).exists()


@torch.inference_mode()
def write_tables(
    folder: Path, base: BasePlanes, cases: Cases, fine: Choice, bins: Bins, progress: Progress
) -> None:
    """Writes what `BaseTables` opens. `fine`: the pixels chosen at the last stage's grid."""
    columns = len(base.names)
    coarse_side = base.settings.coarse if base.settings.contexts else 0
    with (
        CodeWriter(folder / COARSE, len(cases) * coarse_side**2, columns) as coarse,
        CodeWriter(folder / FINE, len(fine.case), columns) as chosen,
    ):
        for batch in cases.batches():
            planes = base.planes(cases.pictures(batch).to(base.runtime.device))
            if coarse_side:
                coarse.write(_encode(bins, planes[coarse_side]))
            for offset, index in enumerate(range(batch.start, batch.stop)):
                rows = (
                    planes[base.settings.grid][offset].flatten(1)[:, torch.from_numpy(fine.pixels[index])].T
                )
                chosen.write(bins.encode(rows).cpu().numpy())
            progress(batch.stop, len(cases))
    bins.save(folder / BINS)


def _encode(bins: Bins, planes: Tensor) -> np.ndarray:
    return bins.encode(as_rows(planes)).cpu().numpy()
