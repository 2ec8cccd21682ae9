import json
from collections.abc import Callable

import numpy as np
import pytest

from lungseg.approaches.vgg19_context.approach import Vgg19Context
from lungseg.approaches.vgg19_context.settings import Vgg19ContextSettings
from lungseg.learning.fit import FitContext
from lungseg.scoring.overlap import mean_dice

FITS: dict[str, tuple[Vgg19Context, FitContext]] = {}


@pytest.fixture
def small() -> Callable[..., Vgg19ContextSettings]:
    """Settings of a fit that takes a moment; keys given replace its own."""

    def make(**values) -> Vgg19ContextSettings:
        chosen = {
            "weights": "random",
            "size": 64,
            "scales": (64, 32),
            "layers": ("relu1_2",),
            "components": 6,
            "contexts": 1,
            "grid": 32,
            "coarse": 16,
            "folds": 2,
            "copies": 1,
            "pixels_per_image": 300,
            "pixels_per_copy": 100,
            "boosting": {
                "rounds": 12,
                "leaves": 15,
                "min_leaf": 10,
                "learning_rate": 0.2,
                "column_share": 0.5,
            },
            "mlp": {"epochs": 8, "hidden": 32, "learning_rate": 0.01, "batch_rows": 128},
            **values,
        }
        return Vgg19ContextSettings(**chosen)

    return make


@pytest.fixture
def fitted(small, runtime, discs, new_fit_context):
    """A fitted approach and the context of its fit, with the `report` of the fit; keys are settings."""

    def make(seed: int = 0, folder: str = "checkpoints", train: int = 6, held: int = 2, **values):
        approach, validation = Vgg19Context(small(**values), runtime), discs(held, seed=9)
        fit_context = new_fit_context(
            seed, folder, lambda maps: mean_dice(maps, (sample.mask() for sample in validation))
        )
        fit_context.report = approach.fit(discs(train), validation, fit_context)
        return approach, fit_context

    return make


@pytest.fixture
def shared(fitted):
    """As `fitted`, but fitted only once for all tests: they must not change it, nor read its checkpoints."""

    def make(**values):
        key = json.dumps(values)
        if key not in FITS:
            FITS[key] = fitted(folder=f"shared-{len(FITS)}", **values)
        return FITS[key]

    return make


@pytest.fixture
def images(discs) -> list[np.ndarray]:
    return [sample.image() for sample in discs(3, seed=5)]
