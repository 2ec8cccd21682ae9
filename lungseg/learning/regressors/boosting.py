"""Gradient-boosted trees: LightGBM, and scikit-learn's histogram boosting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import lightgbm
import numpy as np
import skops.io
import torch
from pydantic import Field
from sklearn.ensemble import HistGradientBoostingRegressor
from torch import Tensor

from lungseg.learning.fit import FitContext
from lungseg.learning.regressors.base import PixelTable, Regressor, accuracy
from lungseg.learning.trees.bins import require_finite
from lungseg.learning.trees.evaluator import Evaluator, evaluator
from lungseg.system.errors import InputError
from lungseg.system.files import write_atomically
from lungseg.system.plugins import Settings
from lungseg.system.runtime import Runtime


class BoostingSettings(Settings):
    """Gradient-boosted trees.

    Attributes:
        rounds: trees at most; LightGBM keeps those up to the least validation loss, scikit-learn all it grew.
        leaves: of a tree at most.
        learning_rate: shrinkage of a tree.
        min_leaf: rows in a leaf at least.
        patience: rounds without a better validation loss before it ends.
    """

    rounds: Annotated[int, Field(ge=1)] = 400
    leaves: Annotated[int, Field(ge=2)] = 63
    learning_rate: Annotated[float, Field(gt=0)] = 0.2
    min_leaf: Annotated[int, Field(ge=1)] = 40
    patience: Annotated[int, Field(ge=1)] = 30


def gain_shares(booster: lightgbm.Booster) -> np.ndarray:
    """Each column's share, float64 F, of the gain of all splits of all trees; sums to 1.

    Zeros if no tree has a split.
    """
    gains = booster.feature_importance("gain", iteration=-1)
    return gains / max(gains.sum(), np.finfo(float).tiny)


class LightGBM(Regressor):
    """LightGBM (Ke et al. 2017) on the squared error; deterministic for one thread count.

    Attributes:
        text: the fitted model as LightGBM writes it, up to its best round.
        trees: the same, evaluated on the runtime's device where an engine works there.
    """

    FILE = "lightgbm.txt"

    def __init__(self, settings: BoostingSettings, runtime: Runtime) -> None:
        self.settings, self.runtime = settings, runtime
        self.text = ""
        self.trees: Evaluator | None = None

    def fit(self, train: PixelTable, validation: PixelTable, context: FitContext) -> None:
        """Raises InputError if a feature is NaN or infinite."""
        require_finite(torch.from_numpy(train.features))
        parameters = {
            **boosting_parameters(self.settings, context.seed),
            "objective": "regression",
            "metric": "l2",
            "num_threads": self.runtime.threads,
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
            feval=lambda predicted, data: ("accuracy", accuracy(predicted, data.get_label()), True),
            callbacks=[
                # The first metric is the loss; accuracy is for the record alone.
                _stop_on_validation_loss(self.settings.patience),
                _report_rounds(context, self.settings.rounds),
            ],
        )
        self.best_step = booster.best_iteration or booster.num_trees()
        self._use(booster.model_to_string(num_iteration=self.best_step))

    def _use(self, text: str) -> None:
        self.text = text
        self.trees = evaluator(text, self.runtime.device, self.runtime.threads)
        self.parameters = len(self.trees.forest.leaves)

    @property
    def on_device(self) -> bool:
        return self.trees.device.type == self.runtime.device.type

    def predict_tensor(self, features: Tensor) -> Tensor:
        return self.trees.raw(features).float()

    def predict(self, features: np.ndarray) -> np.ndarray:
        return self.predict_tensor(torch.from_numpy(features)).numpy()

    def gain_shares(self) -> np.ndarray:
        return gain_shares(lightgbm.Booster(model_str=self.text))

    def save(self, directory: Path) -> None:
        write_atomically(directory / self.FILE, self.text)

    @classmethod
    def load(cls, directory: Path, settings: BoostingSettings, runtime: Runtime) -> LightGBM:
        path = directory / cls.FILE
        regressor = cls(settings, runtime)
        try:
            regressor._use(path.read_text())
        except (OSError, UnicodeDecodeError, InputError) as error:
            raise InputError(f"{path} is missing or damaged: fit the approach again") from error
        return regressor


def _stop_on_validation_loss(patience: int) -> Callable:
    best = {"loss": np.inf, "round": 0}

    def callback(env: lightgbm.callback.CallbackEnv) -> None:
        for name, metric, value, _ in env.evaluation_result_list:
            if name != "validation" or metric != "l2":
                continue
            if value < best["loss"]:
                best.update(loss=value, round=env.iteration)
            last = env.iteration + 1 == env.end_iteration
            if last or env.iteration - best["round"] >= patience:
                raise lightgbm.callback.EarlyStopException(best["round"], env.evaluation_result_list)

    callback.order = 30
    return callback


def _report_rounds(context: FitContext, rounds: int) -> Callable:
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


class HistGradientBoosting(Regressor):
    """scikit-learn's histogram gradient boosting on the squared error, stored by skops."""

    FILE = "hist-gradient-boosting.skops"
    TRUSTED = (
        "sklearn._loss.link.IdentityLink",
        "sklearn._loss.link.Interval",
        "sklearn._loss.loss.HalfSquaredError",
        "sklearn._loss._loss.CyHalfSquaredError",
        "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    )
    REPORTED_ROWS = 20_000  # accuracy after each round is that of so many rows: all would take long

    def __init__(self, settings: BoostingSettings, runtime: Runtime) -> None:
        self.settings = settings
        self.model: HistGradientBoostingRegressor | None = None

    def fit(self, train: PixelTable, validation: PixelTable, context: FitContext) -> None:
        self.model = HistGradientBoostingRegressor(
            max_iter=self.settings.rounds,
            max_leaf_nodes=self.settings.leaves,
            learning_rate=self.settings.learning_rate,
            min_samples_leaf=self.settings.min_leaf,
            early_stopping=True,
            n_iter_no_change=self.settings.patience,
            scoring="loss",
            tol=0.0,
            random_state=context.seed,
        )
        context.progress(0, self.settings.rounds, "growing trees")
        self.model.fit(train.features, train.targets, X_val=validation.features, y_val=validation.targets)
        self._report(train, validation, context)
        self.best_step = self.model.n_iter_
        self.parameters = _leaves(self.model)

    def _report(self, train: PixelTable, validation: PixelTable, context: FitContext) -> None:
        def accuracies(table: PixelTable) -> list[float]:
            rows = np.linspace(0, len(table.targets) - 1, min(self.REPORTED_ROWS, len(table.targets))).astype(
                int
            )
            staged = self.model.staged_predict(table.features[rows])
            return [accuracy(predicted, table.targets[rows]) for predicted in staged]

        # scikit-learn's scores are negative halves of the squared error, the first before any tree.
        losses = zip(-2 * self.model.train_score_[1:], -2 * self.model.validation_score_[1:], strict=True)
        shares = zip(accuracies(train), accuracies(validation), strict=True)
        for step, ((train_loss, held_loss), (train_share, held_share)) in enumerate(
            zip(losses, shares, strict=True), start=1
        ):
            context.history(
                unit="round",
                step=step,
                train_loss=train_loss,
                validation_loss=held_loss,
                train_accuracy=train_share,
                validation_accuracy=held_share,
            )

    def predict(self, features: np.ndarray) -> np.ndarray:
        return self.model.predict(features).astype(np.float32)

    def save(self, directory: Path) -> None:
        write_atomically(directory / self.FILE, skops.io.dumps(self.model))

    @classmethod
    def load(cls, directory: Path, settings: BoostingSettings, runtime: Runtime) -> HistGradientBoosting:
        regressor = cls(settings, runtime)
        path = directory / cls.FILE
        try:
            regressor.model = skops.io.load(path, trusted=list(cls.TRUSTED))
            regressor.parameters = _leaves(regressor.model)
        except Exception as error:
            raise InputError(f"{path} is missing or damaged: fit the approach again") from error
        return regressor


def _leaves(model: HistGradientBoostingRegressor) -> int:
    """Of all trees together."""
    return sum(tree.get_n_leaf_nodes() for trees in model._predictors for tree in trees)


def boosting_parameters(settings: BoostingSettings, seed: int) -> dict[str, Any]:
    """LightGBM's parameters of the settings, as the approach itself has them."""
    return {
        "num_leaves": settings.leaves,
        "learning_rate": settings.learning_rate,
        "min_data_in_leaf": settings.min_leaf,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
    }
