"""Ridge regression: how far a linear model of the features goes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from safetensors.torch import load_file
from sklearn.linear_model import Ridge
from torch import nn

from lungseg.learning.fit import FitContext
from lungseg.learning.model_files import explain_damage, write_tensors
from lungseg.learning.regressors.base import PixelTable, Regressor, compute_column_moments, record_single_step
from lungseg.system.plugins import Settings
from lungseg.system.runtime import Runtime


class RidgeSettings(Settings):
    """Keys of linear regression with an L2 penalty on standardised features."""

    alpha: Annotated[float, Field(ge=0)] = 1.0
    """Strength of the penalty."""


class RidgeRegressor(Regressor):
    """Ridge regression on standardised features: fitted in one step, nothing random."""

    FILE = "ridge.safetensors"
    Settings = RidgeSettings

    def __init__(self, settings: RidgeSettings, runtime: Runtime) -> None:
        self.settings = settings
        self.weights = np.zeros(0, np.float32)
        self.intercept = np.float32(0)

    @classmethod
    def depends_on_seed(cls, settings: RidgeSettings) -> bool:
        return False

    def fit(self, train: PixelTable, validation: PixelTable, context: FitContext) -> None:
        mean, sd = compute_column_moments(train.features)
        rows = train.features - mean.astype(np.float32)
        rows /= sd.astype(np.float32)
        ridge = Ridge(alpha=self.settings.alpha, solver="cholesky", copy_X=False).fit(rows, train.targets)
        # Standardisation is linear too: it becomes part of the weights.
        weights = ridge.coef_.astype(np.float64) / sd
        self.weights = weights.astype(np.float32)
        self.intercept = np.float32(float(ridge.intercept_) - mean @ weights)
        record_single_step(self, train, validation, context)
        self.best_step, self.parameters = 1, len(self.weights) + 1

    def predict(self, features: np.ndarray) -> np.ndarray:
        return features @ self.weights + self.intercept

    def to_module(self) -> nn.Module:
        layer = nn.Linear(len(self.weights), 1)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(self.weights))
            layer.bias.fill_(float(self.intercept))
        return nn.Sequential(layer, nn.Flatten(0))

    def save(self, directory: Path) -> None:
        tensors = {"weights": torch.from_numpy(self.weights), "intercept": torch.tensor(self.intercept)}
        write_tensors(directory / self.FILE, tensors)

    @classmethod
    def load(cls, directory: Path, settings: RidgeSettings, runtime: Runtime) -> RidgeRegressor:
        path = directory / cls.FILE
        regressor = cls(settings, runtime)
        with explain_damage(path):
            tensors = load_file(path)
            regressor.weights = tensors["weights"].numpy()
            regressor.intercept = np.float32(tensors["intercept"].item())
            regressor.parameters = len(regressor.weights) + 1
        return regressor
