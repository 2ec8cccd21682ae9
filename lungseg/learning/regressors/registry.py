"""Regressors that a spec names by a short name, or as "package.module:Class".

A new one with a short name is a class that derives from `Regressor`, a line in REGRESSORS, and a field for
its settings in the approaches that offer it. The line is code of theirs: their fits are made again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from lungseg.learning.regressors.base import Regressor
from lungseg.learning.regressors.boosting import LightGBM
from lungseg.learning.regressors.mlp import Mlp
from lungseg.learning.regressors.ridge import RidgeRegressor
from lungseg.learning.regressors.scikit_learn import ScikitLearn
from lungseg.learning.trees.training import describe_learner, name_learner
from lungseg.system.plugins import CLASS_NAME, Settings, load_class, validate

REGRESSORS: dict[str, type[Regressor]] = {"lightgbm": LightGBM, "ridge": RidgeRegressor, "mlp": Mlp}


def require_known_regressor(name: str) -> str:
    """Return the name if it can be resolved (a validator of settings). Raises ValueError for any other."""
    if name in REGRESSORS or CLASS_NAME.fullmatch(name):
        return name
    raise ValueError(
        f"choose one of {', '.join(REGRESSORS)}, or name a class such as "
        "'sklearn.ensemble:RandomForestRegressor'"
    )


def list_regressor_hints(name: str, device: torch.device) -> list[str]:
    """Say what a user should know of a fit of the named regressor on a device, a sentence each."""
    return describe_learner(device) if name == "lightgbm" else []


def list_fit_facts(name: str, device: torch.device) -> dict[str, str]:
    """Return what the bits of a fit of the named regressor depend on here, besides its settings."""
    return {"learner": name_learner(device)} if name == "lightgbm" else {}


def resolve_regressor(
    name: str, own: Mapping[str, Settings], parameters: Mapping[str, Any]
) -> tuple[type[Regressor], Settings]:
    """Find the class of a regressor and its validated settings.

    Args:
        name: a key of `REGRESSORS`; or a class that derives from `Regressor`, or one of scikit-learn's kind.
        own: settings of each of `REGRESSORS`, by name.
        parameters: `regressor_settings` of a spec, for a class that is named.

    Raises:
        InputError: no such class, or it doesn't take the parameters.
    """
    if name in REGRESSORS:
        return REGRESSORS[name], own[name]
    found = load_class(name, {}, object, "regressor")
    if issubclass(found, Regressor):
        return found, validate(found.Settings, parameters, f"regressor_settings of {name}")
    return ScikitLearn, ScikitLearn.Settings(estimator=name, parameters=dict(parameters))
