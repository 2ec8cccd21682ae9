"""A stage's regressor, any of `learning.regressors`: learns from codes, predicts from codes or values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path

import lightgbm
import numpy as np
import torch
from torch import Tensor

from lungseg.approaches.vgg19_context.settings import Vgg19ContextSettings
from lungseg.learning.fit import FitContext
from lungseg.learning.model_files import explain_damage
from lungseg.learning.regressors.base import PixelTable, Regressor
from lungseg.learning.regressors.boosting import compute_gain_shares
from lungseg.learning.trees.bins import MOST_BINS, Bins
from lungseg.learning.trees.evaluator import Evaluator, limit_threads, make_evaluator
from lungseg.learning.trees.training import CodedRows, boost, to_feature_values, use_learner, why_not_on_cuda
from lungseg.system.files import write_atomically
from lungseg.system.runtime import Runtime


class StageModel(ABC):
    """A model that predicts the share of lung from rows of F columns; values are not clipped to [0, 1]."""

    parameters: int | None = 0  # fitted numbers; None if it can't tell
    fits_in_parallel: bool = False  # whether several can be fitted at once, in threads of one process
    on_device: bool = False  # whether `predict_rows` computes where the rows are, without copies to the host
    can_be_recorded: bool = False  # whether it does so without waiting for a GPU

    @abstractmethod
    def fit(
        self, rows: CodedRows, held: CodedRows, bins: Bins, fit_context: FitContext, threads: int
    ) -> None:
        """Fit to codes of training images; `held` are of validation images, which may choose a step.

        `threads` of the CPU are used where the regressor can be told. They don't change the result.
        """

    @abstractmethod
    def predict_codes(self, codes: np.ndarray) -> np.ndarray:
        """Predict values float32 n of codes uint8 n x F."""

    @abstractmethod
    def predict_rows(self, rows: Tensor) -> Tensor:
        """Predict values float32 n of rows float32 n x F of any strides, on their device."""

    def compute_gain_shares(self) -> np.ndarray | None:
        """Compute each column's share, float64 F, of the gain of all splits; None without trees."""
        return None

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Write the fitted model, without pickle."""

    @abstractmethod
    def read(self, directory: Path) -> None:
        """Read what `save` wrote. Raises InputError if it is missing or damaged."""


LEAST_COLUMNS = 8  # that a tree may read, whatever `column_share`: with one or two it could only add them up


class BoostedStage(StageModel):
    """LightGBM, trained on codes with the squared error."""

    FILE = "lightgbm.txt"

    def __init__(self, settings: Vgg19ContextSettings, runtime: Runtime) -> None:
        self.settings, self.runtime = settings.boosting, runtime
        self.text = ""
        self._on_codes: Evaluator | None = None
        self._start = 0.0

    def fit(
        self, rows: CodedRows, held: CodedRows, bins: Bins, fit_context: FitContext, threads: int
    ) -> None:
        def report(env: lightgbm.callback.CallbackEnv) -> None:
            fit_context.progress(env.iteration + 1, env.end_iteration, "growing trees")

        parameters = self._make_parameters(fit_context.seed, len(bins), threads)
        parameters = use_learner(parameters, self.runtime.device)
        booster, self._start = boost(rows, bins, parameters, self.settings.rounds, callbacks=[report])
        text = booster.model_to_string(num_iteration=-1)
        self._on_codes = make_evaluator(text, threads=self.runtime.threads)
        self.text = to_feature_values(text, bins, self._start)

    def _make_parameters(self, seed: int, columns: int, threads: int) -> dict[str, object]:
        s = self.settings
        share = max(s.column_share, min(1, LEAST_COLUMNS / columns))
        return {
            "num_leaves": s.leaves,
            "learning_rate": s.learning_rate,
            "min_data_in_leaf": s.min_leaf,
            "feature_fraction": share,
            "bagging_fraction": s.row_share,
            "bagging_freq": 1 if s.row_share < 1 else 0,
            "num_threads": limit_threads(threads),
            "seed": seed,
            "deterministic": True,
            "force_col_wise": True,
        }

    @property
    def fits_in_parallel(self) -> bool:
        return self.runtime.device.type != "cuda" or why_not_on_cuda() is not None

    @cached_property
    def _on_values(self) -> Evaluator:
        # Made when first used, since it needs threads or device memory and the models of folds never use it.
        return make_evaluator(self.text, self.runtime.device, self.runtime.threads)

    @property
    def on_device(self) -> bool:
        return self._on_values.engine == "triton"

    @property
    def can_be_recorded(self) -> bool:
        return self.on_device

    @property
    def parameters(self) -> int:
        return len(self._on_values.forest.leaves)

    def predict_codes(self, codes: np.ndarray) -> np.ndarray:
        rows = torch.from_numpy(np.ascontiguousarray(codes.T)).float().T
        return (self._on_codes.predict_raw(rows) + self._start).float().numpy()

    def predict_rows(self, rows: Tensor) -> Tensor:
        return self._on_values.predict_raw(rows).float()

    def compute_gain_shares(self) -> np.ndarray:
        return compute_gain_shares(lightgbm.Booster(model_str=self.text))

    def save(self, directory: Path) -> None:
        write_atomically(directory / self.FILE, self.text)

    def read(self, directory: Path) -> None:
        path = directory / self.FILE
        with explain_damage(path, lightgbm.basic.LightGBMError):
            self.text = path.read_text()
            self._on_values  # noqa: B018 (parses the text, so that damage is found now)


class RegressorStage(StageModel):
    """Any other `Regressor`, on columns that are replaced by their ranks: codes scaled to [0, 1]."""

    def __init__(self, settings: Vgg19ContextSettings, runtime: Runtime) -> None:
        self.runtime = runtime
        self.regressor_class, self.settings = settings.resolve_regressor()
        self.regressor: Regressor | None = None

    @property
    def on_device(self) -> bool:
        return self.regressor.on_device

    def fit(
        self, rows: CodedRows, held: CodedRows, bins: Bins, fit_context: FitContext, threads: int
    ) -> None:
        self.bins = bins
        self.regressor = self.regressor_class(self.settings, self.runtime)
        self.regressor.fit(_make_table(rows), _make_table(held), fit_context)
        self.parameters = self.regressor.parameters

    def predict_codes(self, codes: np.ndarray) -> np.ndarray:
        return self.regressor.predict(_scale(codes))

    def predict_rows(self, rows: Tensor) -> Tensor:
        return self.regressor.predict_tensor(self.bins.encode(rows).float() / (MOST_BINS - 1))

    def save(self, directory: Path) -> None:
        self.bins.save(directory / "bins.npz")
        self.regressor.save(directory)

    def read(self, directory: Path) -> None:
        self.bins = Bins.load(directory / "bins.npz")
        self.regressor = self.regressor_class.load(directory, self.settings, self.runtime)
        self.parameters = self.regressor.parameters


def make_stage_model(settings: Vgg19ContextSettings, runtime: Runtime, *, last: bool) -> StageModel:
    """Make the unfitted model that the settings ask for, for the last stage or for one before it."""
    own = settings.model_copy(update={"boosting": settings.get_boosting(last)})
    return (BoostedStage if settings.regressor == "lightgbm" else RegressorStage)(own, runtime)


def _make_table(rows: CodedRows) -> PixelTable:
    return PixelTable(_scale(rows.read_codes(0, len(rows))), rows.read_targets())


def _scale(codes: np.ndarray) -> np.ndarray:
    return codes.astype(np.float32) / (MOST_BINS - 1)
