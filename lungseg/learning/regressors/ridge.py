"""A linear regressor: what the 64 numbers are worth without a tree or a hidden layer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from sklearn.linear_model import Ridge

from lungseg.learning.fit import FitContext
from lungseg.learning.regressors.base import PixelTable, Regressor, column_moments, losses
from lungseg.learning.weights import write_tensors
from lungseg.system.errors import InputError
from lungseg.system.plugins import Settings
from lungseg.system.runtime import Runtime


class RidgeSettings(Settings):
    """Linear regression with an L2 penalty on standardised features.

    Attributes:
        alpha: strength of the penalty.
    """

    alpha: Annotated[float, Field(ge=0)] = 1.0


class RidgeRegressor(Regressor):
    """Ridge regression on standardised features: one step, no random part."""

    FILE = "ridge.safetensors"

    def __init__(self, settings: RidgeSettings, runtime: Runtime) -> None:
        self.settings = settings
        self.weights = np.zeros(0, np.float32)
        self.intercept = np.float32(0)

    def fit(self, train: PixelTable, validation: PixelTable, context: FitContext) -> None:
        mean, sd = column_moments(train.features)
        rows = train.features - mean.astype(np.float32)
        rows /= sd.astype(np.float32)
        ridge = Ridge(alpha=self.settings.alpha, solver="cholesky", copy_X=False).fit(rows, train.targets)
        # Standardising is linear too, so prediction needs one product only.
        weights = ridge.coef_.astype(np.float64) / sd
        self.weights = weights.astype(np.float32)
        self.intercept = np.float32(float(ridge.intercept_) - mean @ weights)
        train_loss, train_accuracy = losses(self, train)
        validation_loss, validation_accuracy = losses(self, validation)
        context.history(
            unit="round",
            step=1,
            train_loss=train_loss,
            validation_loss=validation_loss,
            train_accuracy=train_accuracy,
            validation_accuracy=validation_accuracy,
        )
        self.best_step, self.parameters = 1, len(self.weights) + 1

    def predict(self, features: np.ndarray) -> np.ndarray:
        return features @ self.weights + self.intercept

    def save(self, directory: Path) -> None:
        tensors = {"weights": torch.from_numpy(self.weights), "intercept": torch.tensor(self.intercept)}
        write_tensors(directory / self.FILE, tensors)

    @classmethod
    def load(cls, directory: Path, settings: RidgeSettings, runtime: Runtime) -> RidgeRegressor:
        path = directory / cls.FILE
        regressor = cls(settings, runtime)
        try:
            tensors = load_file(path)
            regressor.weights = tensors["weights"].numpy()
            regressor.intercept = np.float32(tensors["intercept"].item())
            regressor.parameters = len(regressor.weights) + 1
        except (OSError, SafetensorError, KeyError) as error:
            raise InputError(f"{path} is missing or damaged: fit the approach again") from error
        return regressor
