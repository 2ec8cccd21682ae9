"""Regressors from a pixel's numbers to the mask's value there.

Each keeps one small protocol, `Regressor`. What `fit` reports goes to history.csv: the
loss is the mean squared error (cross-entropy for the MLP), the accuracy that of pixels at half.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lungseg.learning.fit import FitContext
from lungseg.system.plugins import Settings
from lungseg.system.runtime import Runtime


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
    def fit(self, train: PixelTable, validation: PixelTable, context: FitContext) -> None: ...

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


ROWS_A_BLOCK = 1 << 18


@dataclass(frozen=True)
class PixelTable:
    """One row a pixel: `features` float32 N x F; `targets` float32 N in [0, 1], its share of lung."""

    features: np.ndarray
    targets: np.ndarray


def column_moments(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column, float64, without a float64 copy of the whole table.

    A column that is the same everywhere carries nothing at any scale; its deviation is given as 1.
    """
    total = np.zeros(table.shape[1])
    squares = np.zeros(table.shape[1])
    shift = table[0].astype(np.float64)  # near the mean, so that the difference of squares keeps its digits
    for start in range(0, len(table), ROWS_A_BLOCK):
        block = table[start : start + ROWS_A_BLOCK] - shift
        total += block.sum(axis=0)
        squares += (block**2).sum(axis=0)
    mean = total / len(table)
    sd = np.sqrt(np.maximum(squares / len(table) - mean**2, 0))
    return mean + shift, np.where(sd > 1e-6, sd, 1.0)
