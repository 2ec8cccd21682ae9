"""Two simple approaches that any other must beat: the mean training mask, and thresholds on grey values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor

from lungseg.approaches.base import Approach, Stage
from lungseg.learning.fit import FitContext, FitReport
from lungseg.learning.images.resize import shrink_mask, to_batch
from lungseg.learning.model_files import explain_damage, write_tensors
from lungseg.system.plugins import Settings
from lungseg.system.runtime import Runtime


class BaselineSettings(Settings):
    """Keys of the baselines."""

    size: Annotated[int, Field(ge=8, le=4096)] = 128
    """Images become size x size pixels."""


class Baseline(Approach):
    """What both baselines share: nothing is random, and one tensor is stored."""

    Settings = BaselineSettings
    FILE = "baseline.safetensors"

    def __init__(self, settings: BaselineSettings, runtime: Runtime) -> None:
        super().__init__(settings, runtime)
        self.fitted: Tensor | None = None

    @classmethod
    def depends_on_seed(cls, settings: BaselineSettings) -> bool:
        return False

    def estimate(self, train: int, validation: int) -> float:
        """Estimate seconds: a few milliseconds per image, most of them for reading."""
        return 0.01 * train

    def prepare(self, images: Sequence[np.ndarray]) -> Tensor:
        return to_batch(images, self.settings.size, self.runtime.device)

    def save(self, directory: Path) -> None:
        write_tensors(directory / self.FILE, {"fitted": self.fitted})

    @classmethod
    def load(cls, directory: Path, settings: BaselineSettings, runtime: Runtime) -> Baseline:
        path = directory / cls.FILE
        approach = cls(settings, runtime)
        with explain_damage(path):
            approach.fitted = load_file(path, device=str(runtime.device))["fitted"]
        return approach


class MeanMask(Baseline):
    """The mean of the training masks, whatever the image: it knows only where lungs usually are."""

    def fit(self, train: Sequence[Any], validation: Sequence[Any], context: FitContext) -> FitReport:
        total = np.zeros((self.settings.size, self.settings.size))
        for done, sample in enumerate(train, start=1):
            total += shrink_mask(sample.mask(), self.settings.size)
            context.progress(done, len(train), "masks")
        mean = torch.from_numpy((total / len(train)).astype(np.float32))
        self.fitted = mean[None, None].to(self.runtime.device)
        return FitReport("images", len(train), mean.numel())

    def stages(self) -> list[Stage]:
        return [Stage("repeat", lambda batch: self.fitted.expand(len(batch), -1, -1, -1))]


class Threshold(Baseline):
    """Grey values between two thresholds are lung: darker than tissue, but not as dark as the air outside.

    A grey value is replaced by its rank within the image, so that exposure and gamma don't matter. The two
    thresholds are those with the best Dice over all training pixels together. The map is 1/2 at both and
    higher in between.
    """

    BINS = 256

    def fit(self, train: Sequence[Any], validation: Sequence[Any], context: FitContext) -> FitReport:
        lung, pixels = np.zeros(self.BINS), np.zeros(self.BINS)
        for done, sample in enumerate(train, start=1):
            ranks = self._compute_ranks(self.prepare([sample.image()])).cpu().numpy().ravel()
            bins = np.minimum((ranks * self.BINS).astype(int), self.BINS - 1)
            target = shrink_mask(sample.mask(), self.settings.size).ravel()
            lung += np.bincount(bins, target, self.BINS)
            pixels += np.bincount(bins, minlength=self.BINS)
            context.progress(done, len(train), "grey values")
        low, high = find_best_band(lung, pixels)
        band = [low / self.BINS, high / self.BINS]
        self.fitted = torch.tensor(band, dtype=torch.float32, device=self.runtime.device)
        return FitReport("images", len(train), 2)

    @staticmethod
    def _compute_ranks(batch: Tensor) -> Tensor:
        """Compute each pixel's rank within its image, in [0, 1); equal values are ranked in reading order."""
        flat = batch.flatten(1)
        order = flat.argsort(dim=1, stable=True)
        places = torch.arange(flat.shape[1], device=flat.device, dtype=torch.float32) / flat.shape[1]
        return torch.empty_like(flat).scatter_(1, order, places.expand_as(flat)).view_as(batch)

    def stages(self) -> list[Stage]:
        return [Stage("threshold", self._apply_thresholds)]

    def _apply_thresholds(self, batch: Tensor) -> Tensor:
        ranks = self._compute_ranks(batch)
        inside = torch.minimum(ranks - self.fitted[0], self.fitted[1] - ranks)
        return (0.5 + inside).clamp(0, 1)


def find_best_band(lung: np.ndarray, pixels: np.ndarray) -> tuple[int, int]:
    """Find the bins [low, high) with the best Dice if their pixels are called lung.

    `lung` is the area of lung in each bin, in pixels (no whole numbers), and `pixels` the number of all.
    """
    lung_up_to = np.concatenate([[0.0], np.cumsum(lung)])
    pixels_up_to = np.concatenate([[0.0], np.cumsum(pixels)])
    true = lung_up_to[None, :] - lung_up_to[:, None]  # [low, high]
    called = pixels_up_to[None, :] - pixels_up_to[:, None]
    dice = np.where(called > 0, 2 * true / np.maximum(called + lung.sum(), 1e-12), -1.0)
    low, high = np.unravel_index(np.argmax(dice), dice.shape)
    return int(low), int(high)
