"""Gradient-boosted trees: LightGBM (Ke et al. 2017) as a regressor of pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import lightgbm
import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from lungseg.learning.fit import FitContext
from lungseg.learning.model_files import explain_damage
from lungseg.learning.regressors.base import PixelTable, Regressor, compute_accuracy
from lungseg.learning.trees.bins import require_finite
from lungseg.learning.trees.evaluator import Evaluator, limit_threads, make_evaluator
from lungseg.learning.trees.training import use_learner
from lungseg.system.files import write_atomically
from lungseg.system.plugins import Settings
from lungseg.system.runtime import Runtime


class BoostingSettings(Settings):
    """Keys of gradient-boosted trees."""

    rounds: Annotated[int, Field(ge=1, le=1_000_000)] = 400
    """Most trees. Those up to the lowest validation loss are kept."""
    leaves: Annotated[int, Field(ge=2, le=100_000)] = 63
    """Most leaves of a tree."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.2
    """Shrinkage of each tree."""
    min_leaf: Annotated[int, Field(ge=1, le=2**30)] = 40
    """Least rows in a leaf."""
    patience: Annotated[int, Field(ge=1, le=1_000_000)] = 30
    """Training ends after this many rounds without a better validation loss."""


def compute_gain_shares(booster: lightgbm.Booster) -> np.ndarray:
    """Compute each column's share, float64 F, of the gain of all splits; zeros if no tree has a split."""
    gains = booster.feature_importance("gain", iteration=-1)
    return gains / max(gains.sum(), np.finfo(float).tiny)


class LightGBM(Regressor):
    """LightGBM trained on the squared error; deterministic for a given number of threads.

    Where the installed build can grow trees on a GPU, it does, and two fits may differ slightly.
    """

    FILE = "lightgbm.txt"
    Settings = BoostingSettings

    def __init__(self, settings: BoostingSettings, runtime: Runtime) -> None:
        self.settings, self.runtime = settings, runtime
        self.text = ""  # the fitted model as LightGBM writes it, up to its best round
        self.trees: Evaluator | None = None  # the same, on the runtime's device if an engine works there

    def fit(self, train: PixelTable, validation: PixelTable, context: FitContext) -> None:
        """Grow trees until the validation loss stops falling. Raises InputError if a feature isn't finite."""
        require_finite(torch.from_numpy(train.features))
        parameters = {
            **use_learner(make_boosting_parameters(self.settings, context.seed), self.runtime.device),
            "objective": "regression",
            "metric": "l2",
            "num_threads": limit_threads(self.runtime.threads),
            "verbosity": -1,
        }
        rows = lightgbm.Dataset(train.features, train.targets, params=parameters, free_raw_data=True)
        held = rows.create_valid(validation.features, validation.targets)
        booster = lightgbm.train(
            parameters,
            rows,
            num_boost_round=self.settings.rounds,
            valid_sets=[rows, held],
            valid_names=["train", "validation"],
            feval=lambda predicted, data: ("accuracy", compute_accuracy(predicted, data.get_label()), True),
            callbacks=[
                # The first metric is the loss; accuracy is for the record alone.
                lightgbm.early_stopping(self.settings.patience, first_metric_only=True, verbose=False),
                _make_history_callback(context, self.settings.rounds),
            ],
        )
        self.best_step = booster.best_iteration or booster.num_trees()
        self._use(booster.model_to_string(num_iteration=self.best_step))

    def _use(self, text: str) -> None:
        self.text = text
        self.trees = make_evaluator(text, self.runtime.device, self.runtime.threads)
        self.parameters = len(self.trees.forest.leaves)

    @property
    def on_device(self) -> bool:
        return self.trees.device.type == self.runtime.device.type

    def predict_tensor(self, features: Tensor) -> Tensor:
        return self.trees.predict_raw(features).float()

    def predict(self, features: np.ndarray) -> np.ndarray:
        return self.predict_tensor(torch.from_numpy(features)).numpy()

    def compute_gain_shares(self) -> np.ndarray:
        return compute_gain_shares(lightgbm.Booster(model_str=self.text))

    def save(self, directory: Path) -> None:
        write_atomically(directory / self.FILE, self.text)

    @classmethod
    def load(cls, directory: Path, settings: BoostingSettings, runtime: Runtime) -> LightGBM:
        path = directory / cls.FILE
        regressor = cls(settings, runtime)
        with explain_damage(path, lightgbm.basic.LightGBMError):
            regressor._use(path.read_text())
        return regressor


def _make_history_callback(context: FitContext, rounds: int) -> Callable:
    def callback(env: lightgbm.callback.CallbackEnv) -> None:
        values = {(name, metric): value for name, metric, value, _ in env.evaluation_result_list}
        context.history(
            unit="round",
            step=env.iteration + 1,
            train_loss=values["train", "l2"],
            validation_loss=values["validation", "l2"],
            train_accuracy=values["train", "accuracy"],
            validation_accuracy=values["validation", "accuracy"],
        )
        context.progress(env.iteration + 1, rounds, f"validation loss {values['validation', 'l2']:.4f}")

    callback.order = 20
    return callback


def make_boosting_parameters(settings: BoostingSettings, seed: int) -> dict[str, Any]:
    """Make LightGBM's parameters from settings; objective, metric and threads are left to the caller."""
    return {
        "num_leaves": settings.leaves,
        "learning_rate": settings.learning_rate,
        "min_data_in_leaf": settings.min_leaf,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
    }
