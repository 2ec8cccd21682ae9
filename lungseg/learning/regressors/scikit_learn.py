"""Regressors of scikit-learn, or with its interface, as regressors of pixels."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field
from sklearn.base import BaseEstimator, is_regressor

from lungseg.learning.fit import FitContext
from lungseg.learning.model_files import explain_damage
from lungseg.learning.regressors.base import PixelTable, Regressor, record_single_step
from lungseg.system.errors import InputError
from lungseg.system.files import write_atomically
from lungseg.system.plugins import Settings, load_class
from lungseg.system.runtime import Runtime

# Types of scikit-learn (arrays of trees and the like) that skops loads only if they are listed as trusted.
TRUSTED = (
    "sklearn._loss._loss.CyHalfSquaredError",
    "sklearn._loss.link.IdentityLink",
    "sklearn._loss.link.Interval",
    "sklearn._loss.loss.HalfSquaredError",
    "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.tree._tree.Tree",
)
PROBE_ROWS = 64


class ScikitLearnSettings(Settings):
    """Which estimator is used, and its parameters."""

    estimator: str
    """A class as "package.module:Class"."""
    # Where it has `random_state` or `n_jobs` and they are not given, they are the seed and the runtime's
    # threads.
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Arguments of its constructor."""


class ScikitLearn(Regressor):
    """A regressor with scikit-learn's `fit` and `predict`, stored by skops."""

    FILE = "estimator.skops"
    Settings = ScikitLearnSettings
    parameters = None  # each class has another attribute for the number of its fitted parameters

    def __init__(self, settings: ScikitLearnSettings, runtime: Runtime) -> None:
        """Make the estimator. Raises InputError if it is no regressor or doesn't take the parameters."""
        self.settings, self.runtime = settings, runtime
        self.model = self._new_model(seed=0)

    @classmethod
    def depends_on_seed(cls, settings: ScikitLearnSettings) -> bool:
        return "random_state" in _list_parameters(settings) and "random_state" not in settings.parameters

    def require(self, columns: int) -> None:
        """Raise InputError if it can't be fitted or safely stored; tries both on a little noise."""
        noise = np.random.default_rng(0).random((PROBE_ROWS, columns + 1), np.float32)
        try:
            model = self._new_model(seed=0).fit(noise[:, :-1], noise[:, -1])
        except Exception as error:  # whatever a class of somebody else raises for its parameters
            raise InputError(
                f"regressor {self.settings.estimator!r} with regressor_settings = {self.settings.parameters} "
                f"can't be fitted ({type(error).__name__}: {error})".splitlines()[0]
            ) from error
        _dump(model, self.settings.estimator)

    def fit(self, train: PixelTable, validation: PixelTable, context: FitContext) -> None:
        """Fit to the training pixels alone; validation pixels are for the record."""
        context.progress(0, 1, f"fitting {self.settings.estimator}")
        self.model = self._new_model(context.seed).fit(train.features, train.targets)
        record_single_step(self, train, validation, context)

    def predict(self, features: np.ndarray) -> np.ndarray:
        return np.asarray(self.model.predict(features), np.float32).reshape(len(features))

    def save(self, directory: Path) -> None:
        write_atomically(directory / self.FILE, _dump(self.model, self.settings.estimator))

    @classmethod
    def load(cls, directory: Path, settings: ScikitLearnSettings, runtime: Runtime) -> ScikitLearn:
        regressor, path = cls(settings, runtime), directory / cls.FILE
        with explain_damage(path, Exception):  # skops raises errors of many kinds
            import skops.io  # not before: it takes most of a second, in each process of the timings

            regressor.model = skops.io.load(path, trusted=list(TRUSTED))
        return regressor

    def _new_model(self, seed: int) -> BaseEstimator:
        name, given = self.settings.estimator, self.settings.parameters
        known = _list_parameters(self.settings)
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise InputError(
                f"regressor_settings: {name} has no {unknown[0]!r}; it has {', '.join(sorted(known))}"
            )
        own = {"random_state": seed, "n_jobs": self.runtime.threads}
        model = _load_estimator(name)(**{key: own[key] for key in own if key in known} | given)
        if not is_regressor(model):
            raise InputError(f"regressor {name!r} is no regressor of scikit-learn's kind: name one")
        return model


def _load_estimator(name: str) -> type[BaseEstimator]:
    return load_class(name, {}, BaseEstimator, "regressor")


def _list_parameters(settings: ScikitLearnSettings) -> list[str]:
    return list(inspect.signature(_load_estimator(settings.estimator)).parameters)


def _dump(model: BaseEstimator, name: str) -> bytes:
    import skops.io  # as in `load`

    data = skops.io.dumps(model)
    unknown = sorted(set(skops.io.get_untrusted_types(data=data)) - set(TRUSTED))
    if unknown:
        raise InputError(
            f"regressor {name!r} can't be stored safely: skops doesn't trust {', '.join(unknown)}. Choose "
            "another one, or derive a class with its own save from lungseg.learning.regressors.base.Regressor"
        )
    return data
