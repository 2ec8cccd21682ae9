"""The regressor of one stage: learns from codes, predicts from codes while training and from planes after."""

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
from lungseg.learning.regressors.base import PixelTable, Regressor
from lungseg.learning.regressors.boosting import BoostingSettings, HistGradientBoosting, gain_shares
from lungseg.learning.regressors.mlp import Mlp
from lungseg.learning.regressors.ridge import RidgeRegressor
from lungseg.learning.trees.bins import MOST_BINS, Bins
from lungseg.learning.trees.evaluator import Evaluator, evaluator
from lungseg.learning.trees.training import CodedRows, boost, to_feature_values
from lungseg.system.errors import InputError
from lungseg.system.files import write_atomically
from lungseg.system.runtime import Runtime


class StageModel(ABC):
    """Rows of F columns -> the share of lung, not yet clipped to [0, 1].

    Attributes:
        parameters: fitted numbers.
        side_by_side: several can be fitted at once, in threads of one process.
        on_device: `of_rows` computes where the rows are; else they are copied to the host and back.
    """

    parameters: int = 0
    side_by_side: bool = False
    on_device: bool = False

    @abstractmethod
    def fit(self, rows: CodedRows, held: CodedRows, bins: Bins, context: FitContext, threads: int) -> None:
        """`held` is what the regressor may choose by, if it chooses: rows of validation images.

        `threads`: of the CPU that it may take, where it can be told. They have no part in what is fitted.
        """

    @abstractmethod
    def of_codes(self, codes: np.ndarray) -> np.ndarray:
        """Values float32 n of codes uint8 n x F."""

    @abstractmethod
    def of_rows(self, rows: Tensor) -> Tensor:
        """Values float32 n of rows float32 n x F of any strides, on their device."""

    def gain_shares(self) -> np.ndarray | None:
        """As of `Regressor`."""
        return None

    @abstractmethod
    def save(self, directory: Path) -> None: ...

    @abstractmethod
    def read(self, directory: Path) -> None:
        """Reads what `save` wrote. Raises InputError if it is missing or damaged."""


LEAST_COLUMNS = 8  # that a tree may read, however small the share: with one or two it could only add them up


class BoostedStage(StageModel):
    """LightGBM on codes (squared error), evaluated as arrays."""

    FILE = "lightgbm.txt"
    side_by_side = True

    def __init__(self, settings: Vgg19ContextSettings, runtime: Runtime) -> None:
        self.settings, self.runtime = settings.boosting, runtime
        self.text = ""
        self._on_codes: Evaluator | None = None
        self._start = 0.0

    def fit(self, rows: CodedRows, held: CodedRows, bins: Bins, context: FitContext, threads: int) -> None:
        def report(env: lightgbm.callback.CallbackEnv) -> None:
            context.progress(env.iteration + 1, env.end_iteration, "growing trees")

        parameters = self._parameters(context.seed, len(bins), threads)
        booster, self._start = boost(rows, bins, parameters, self.settings.rounds, callbacks=[report])
        text = booster.model_to_string(num_iteration=-1)
        self._on_codes = evaluator(text, threads=self.runtime.threads)
        self.text = to_feature_values(text, bins, self._start)

    def _parameters(self, seed: int, columns: int, threads: int) -> dict[str, object]:
        s = self.settings
        share = max(s.column_share, min(1, LEAST_COLUMNS / columns))
        return {
            "num_leaves": s.leaves,
            "learning_rate": s.learning_rate,
            "min_data_in_leaf": s.min_leaf,
            "feature_fraction": share,
            "bagging_fraction": s.row_share,
            "bagging_freq": 1 if s.row_share < 1 else 0,
            "num_threads": threads,
            "seed": seed,
            "deterministic": True,
            "force_col_wise": True,
        }

    @cached_property
    def _on_values(self) -> Evaluator:
        # Made when first used, as the models of folds never are: it holds threads, or memory of the device.
        return evaluator(self.text, self.runtime.device, self.runtime.threads)

    @property
    def on_device(self) -> bool:
        return self._on_values.engine == "triton"

    @property
    def parameters(self) -> int:
        return len(self._on_values.forest.leaves)

    def of_codes(self, codes: np.ndarray) -> np.ndarray:
        rows = torch.from_numpy(np.ascontiguousarray(codes.T)).float().T
        return (self._on_codes.raw(rows) + self._start).float().numpy()

    def of_rows(self, rows: Tensor) -> Tensor:
        return self._on_values.raw(rows).float()

    def gain_shares(self) -> np.ndarray:
        return gain_shares(lightgbm.Booster(model_str=self.text))

    def save(self, directory: Path) -> None:
        write_atomically(directory / self.FILE, self.text)

    def read(self, directory: Path) -> None:
        path = directory / self.FILE
        try:
            self.text = path.read_text()
            self._on_values  # noqa: B018 (reads it now: a damaged file is found when it is loaded)
        except (OSError, UnicodeDecodeError, lightgbm.basic.LightGBMError, InputError) as error:
            raise InputError(f"{path} is missing or damaged: fit the approach again") from error


class TableStage(StageModel):
    """Any of the plain approach's regressors, on columns replaced by their ranks: codes scaled to [0, 1]."""

    def __init__(self, settings: Vgg19ContextSettings, runtime: Runtime) -> None:
        self.runtime = runtime
        self.kind, self.settings = _regressors(settings)[settings.regressor]
        self.regressor: Regressor | None = None

    def fit(self, rows: CodedRows, held: CodedRows, bins: Bins, context: FitContext, threads: int) -> None:
        self.bins = bins
        self.regressor = self.kind(self.settings, self.runtime)
        self.regressor.fit(_as_table(rows), _as_table(held), context)
        self.parameters = self.regressor.parameters

    def of_codes(self, codes: np.ndarray) -> np.ndarray:
        return self.regressor.predict(_scaled(codes))

    def of_rows(self, rows: Tensor) -> Tensor:
        return self.regressor.predict_tensor(self.bins.encode(rows).float() / (MOST_BINS - 1))

    def save(self, directory: Path) -> None:
        self.bins.save(directory / "bins.npz")
        self.regressor.save(directory)

    def read(self, directory: Path) -> None:
        self.bins = Bins.load(directory / "bins.npz")
        self.regressor = self.kind.load(directory, self.settings, self.runtime)
        self.parameters = self.regressor.parameters


def new_stage(settings: Vgg19ContextSettings, runtime: Runtime, *, last: bool) -> StageModel:
    """An unfitted regressor of the kind that the settings name, for the last stage or one before it."""
    own = settings.model_copy(update={"boosting": settings.boosting_of(last)})
    return (BoostedStage if settings.regressor == "lightgbm" else TableStage)(own, runtime)


def _regressors(settings: Vgg19ContextSettings) -> dict[str, tuple[type[Regressor], object]]:
    boosting = BoostingSettings(
        rounds=settings.boosting.rounds,
        leaves=settings.boosting.leaves,
        learning_rate=settings.boosting.learning_rate,
        min_leaf=settings.boosting.min_leaf,
    )
    return {
        "ridge": (RidgeRegressor, settings.ridge),
        "hist-gradient-boosting": (HistGradientBoosting, boosting),
        "mlp": (Mlp, settings.mlp),
    }


def _as_table(rows: CodedRows) -> PixelTable:
    return PixelTable(_scaled(rows.codes(0, len(rows))), rows.chosen_targets())


def _scaled(codes: np.ndarray) -> np.ndarray:
    return codes.astype(np.float32) / (MOST_BINS - 1)
