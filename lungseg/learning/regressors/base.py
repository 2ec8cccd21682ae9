"""The protocol of regressors: from a pixel's features to the share of lung in it.

What `fit` reports goes to history.csv: as loss the mean squared error (cross-entropy for the MLP), as
accuracy the share of pixels on the right side of one half.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor, nn

from lungseg.learning.fit import FitContext
from lungseg.system.plugins import Settings
from lungseg.system.runtime import Runtime

ROWS_A_BLOCK = 1 << 18


@dataclass(frozen=True)
class PixelTable:
    """Features and targets of pixels, one row per pixel."""

    features: np.ndarray  # float32 N x F
    targets: np.ndarray  # float32 N in [0, 1], the share of lung in each pixel


class Regressor(ABC):
    """A model that predicts a value from each row of features. Values are not clipped to [0, 1]."""

    Settings: ClassVar[type[BaseModel]] = Settings  # its keys in a spec
    best_step: int | None = None  # the step that was kept, where there are several
    parameters: int | None = 0  # fitted numbers; None if it can't tell
    on_device: bool = False  # whether it predicts on the runtime's device, without copies to the host

    @abstractmethod
    def __init__(self, settings: Any, runtime: Runtime) -> None: ...

    @classmethod
    def depends_on_seed(cls, settings: Any) -> bool:
        """Return whether a fit on the same rows depends on the seed."""
        return True

    def require(self, columns: int) -> None:  # noqa: B027 (most need nothing)
        """Raise InputError for what would end a fit on rows of so many columns; called before any fit."""

    @abstractmethod
    def fit(self, train: PixelTable, validation: PixelTable, context: FitContext) -> None:
        """Fit to `train`, and report each step to `context.history`; `validation` may choose the step."""

    @abstractmethod
    def predict(self, features: np.ndarray) -> np.ndarray:
        """Predict values float32 N of rows float32 N x F."""

    def predict_tensor(self, features: Tensor) -> Tensor:
        """Predict values float32 N of rows float32 N x F of any strides, on their device."""
        return torch.from_numpy(self.predict(features.cpu().contiguous().numpy())).to(features.device)

    def to_module(self) -> nn.Module | None:
        """Return the fitted regressor as a module, from rows float32 N x F to N values; None without one."""
        return None

    def compute_gain_shares(self) -> np.ndarray | None:
        """Compute each column's share, float64 F, of the gain of all splits; None without trees."""
        return None

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Write the fitted regressor, without pickle."""

    @classmethod
    @abstractmethod
    def load(cls, directory: Path, settings: Any, runtime: Runtime) -> Regressor:
        """Read what `save` wrote. Raises InputError if it is missing or damaged."""


def compute_accuracy(predicted: np.ndarray, targets: np.ndarray) -> float:
    """Compute the share of pixels on the right side of one half."""
    return float(np.mean((predicted >= 0.5) == (targets >= 0.5)))


def record_single_step(
    regressor: Regressor, train: PixelTable, validation: PixelTable, context: FitContext
) -> None:
    """Report losses and accuracies of a regressor that is fitted in one step to `context.history`."""
    record = {}
    for side, table in (("train", train), ("validation", validation)):
        predicted = regressor.predict(table.features)
        record[f"{side}_loss"] = float(np.mean((predicted - table.targets) ** 2))
        record[f"{side}_accuracy"] = compute_accuracy(predicted, table.targets)
    context.history(unit="round", step=1, **record)


def as_rows(maps: Tensor) -> Tensor:
    """Return maps N x C x H x W as rows N H W x C; the values of a column are neighbours in memory."""
    return maps.transpose(0, 1).reshape(maps.shape[1], -1).T


def compute_column_moments(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute mean and standard deviation, float64 F, of the columns of a table float32 N x F.

    The deviation of a constant column is given as 1, so that one can divide by it. The whole table is never
    copied to float64.
    """
    total, squares = np.zeros((2, table.shape[1]))
    shift = table[0].astype(np.float64)  # near the mean, so that the difference of squares keeps its digits
    for start in range(0, len(table), ROWS_A_BLOCK):
        block = table[start : start + ROWS_A_BLOCK] - shift
        total += block.sum(axis=0)
        squares += (block**2).sum(axis=0)
    mean = total / len(table)
    sd = np.sqrt(np.maximum(squares / len(table) - mean**2, 0))
    return mean + shift, np.where(sd > 1e-6, sd, 1.0)
