"""What any approach must beat: the mean of the training masks, and a threshold on the grey value."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lungseg.approaches.base import Approach, Stage
from lungseg.learning.fit import FitContext, FitReport
from lungseg.learning.images.resize import shrink_mask, to_batch
from lungseg.learning.weights import write_tensors
from lungseg.system.errors import InputError
from lungseg.system.plugins import Settings
from lungseg.system.runtime import Runtime


class BaselineSettings(Settings):
    """Keys of the baselines.

    Attributes:
        size: they work at size x size pixels.
    """

    size: Annotated[int, Field(ge=8, le=4096)] = 128


class Baseline(Approach):
    """What both share: no random part, one tensor to store."""

    Settings = BaselineSettings
    stochastic = False
    FILE = "baseline.safetensors"

    def __init__(self, settings: BaselineSettings, runtime: Runtime) -> None:
        super().__init__(settings, runtime)
        self.fitted: Tensor | None = None

    def estimate(self, train: int, validation: int) -> float:
        """Seconds: a few milliseconds an image, most of it reading."""
        return 0.01 * train

    def prepare(self, images: Sequence[np.ndarray]) -> Tensor:
        return to_batch(images, self.settings.size, self.runtime.device)

    def save(self, directory: Path) -> None:
        write_tensors(directory / self.FILE, {"fitted": self.fitted})

    @classmethod
    def load(cls, directory: Path, settings: BaselineSettings, runtime: Runtime) -> Baseline:
        path = directory / cls.FILE
        approach = cls(settings, runtime)
        try:
            approach.fitted = load_file(path, device=str(runtime.device))["fitted"]
        except (OSError, SafetensorError, KeyError) as error:
            raise InputError(f"{path} is missing or damaged: fit the approach again") from error
        return approach


class MeanMask(Baseline):
    """The mean of the training masks, whatever the image: how far the place of the lungs alone goes."""

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

    A value is its rank among the image's own, so that exposure and gamma don't matter. The two ranks are the
    ones with the best Dice over all training pixels taken together. The map is 1/2 at both and rises inside.
    """

    BINS = 256

    def fit(self, train: Sequence[Any], validation: Sequence[Any], context: FitContext) -> FitReport:
        lung, pixels = np.zeros(self.BINS), np.zeros(self.BINS)
        for done, sample in enumerate(train, start=1):
            ranks = self._ranks(self.prepare([sample.image()])).cpu().numpy().ravel()
            bins = np.minimum((ranks * self.BINS).astype(int), self.BINS - 1)
            target = shrink_mask(sample.mask(), self.settings.size).ravel()
            lung += np.bincount(bins, target, self.BINS)
            pixels += np.bincount(bins, minlength=self.BINS)
            context.progress(done, len(train), "grey values")
        low, high = best_band(lung, pixels)
        band = [low / self.BINS, high / self.BINS]
        self.fitted = torch.tensor(band, dtype=torch.float32, device=self.runtime.device)
        return FitReport("images", len(train), 2)

    @staticmethod
    def _ranks(batch: Tensor) -> Tensor:
        """Rank of each pixel among its image's, in [0, 1), N x 1 x h x w; equal values keep reading order."""
        flat = batch.flatten(1)
        order = flat.argsort(dim=1, stable=True)
        places = torch.arange(flat.shape[1], device=flat.device, dtype=torch.float32) / flat.shape[1]
        return torch.empty_like(flat).scatter_(1, order, places.expand_as(flat)).view_as(batch)

    def stages(self) -> list[Stage]:
        return [Stage("threshold", self._between)]

    def _between(self, batch: Tensor) -> Tensor:
        ranks = self._ranks(batch)
        inside = torch.minimum(ranks - self.fitted[0], self.fitted[1] - ranks)
        return (0.5 + inside).clamp(0, 1)


def best_band(lung: np.ndarray, pixels: np.ndarray) -> tuple[int, int]:
    """The bins [low, high) that, called lung, have the best Dice.

    Args:
        lung: lung pixels in each bin (their area, so not whole numbers).
        pixels: all pixels in each bin.
    """
    lung_up_to = np.concatenate([[0.0], np.cumsum(lung)])
    pixels_up_to = np.concatenate([[0.0], np.cumsum(pixels)])
    true = lung_up_to[None, :] - lung_up_to[:, None]  # [low, high]
    called = pixels_up_to[None, :] - pixels_up_to[:, None]
    dice = np.where(called > 0, 2 * true / np.maximum(called + lung.sum(), 1e-12), -1.0)
    low, high = np.unravel_index(np.argmax(dice), dice.shape)
    return int(low), int(high)
