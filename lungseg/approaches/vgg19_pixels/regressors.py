"""Regressors from a pixel's numbers to the mask's value there.

Each keeps one small protocol, `Regressor`. What `fit` reports goes to history.csv: the
loss is the mean squared error (cross-entropy for the MLP), the accuracy that of pixels at half.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lungseg.approaches.approach import Run, Runtime, Settings
from lungseg.approaches.vgg19_pixels.sampling import PixelTable


def accuracy(predicted: np.ndarray, targets: np.ndarray) -> float:
    """Share of pixels on the right side of one half."""
    return float(np.mean((predicted >= 0.5) == (targets >= 0.5)))


def losses(regressor: Regressor, table: PixelTable) -> tuple[float, float]:
    """Mean squared error and accuracy of pixels."""
    predicted = regressor.predict(table.features)
    return float(np.mean((predicted - table.targets) ** 2)), accuracy(predicted, table.targets)


def as_rows(maps: Tensor) -> Tensor:
    """Maps N x C x H x W as rows N H W x C, a column's values side by side in memory."""
    return maps.transpose(0, 1).reshape(maps.shape[1], -1).T


class Regressor(ABC):
    """Rows float32 N x F -> values float32 N (not yet clipped to [0, 1]).

    Attributes:
        best_step: the step that was kept, where there are several.
        parameters: fitted numbers.
        on_device: a fitted one's `predict_tensor` stays on the runtime's device, and copies nothing.
    """

    best_step: int | None = None
    parameters: int = 0
    on_device: bool = False

    @abstractmethod
    def fit(self, train: PixelTable, validation: PixelTable, run: Run) -> None: ...

    @abstractmethod
    def predict(self, features: np.ndarray) -> np.ndarray: ...

    def predict_tensor(self, features: Tensor) -> Tensor:
        """The same of rows of any strides, on their device."""
        return torch.from_numpy(self.predict(features.cpu().contiguous().numpy())).to(features.device)

    def gain_shares(self) -> np.ndarray | None:
        """Each column's share, float64 F, of what all splits of a fitted one gained; None without trees."""
        return None

    @abstractmethod
    def save(self, directory: Path) -> None: ...

    @classmethod
    @abstractmethod
    def load(cls, directory: Path, settings: Settings, runtime: Runtime) -> Regressor: ...
