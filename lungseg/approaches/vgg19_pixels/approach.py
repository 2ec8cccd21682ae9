"""Approach A: a regressor predicts each pixel of the mask from 64 feature maps of a frozen VGG19.

`sampling` builds tables of sampled pixels.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from lungseg.approaches.base import Approach, Stage
from lungseg.approaches.recorded_stages import RecordedStages
from lungseg.approaches.vgg19_pixels.sampling import build_table
from lungseg.learning.fit import FitContext, FitReport
from lungseg.learning.images.resize import to_batch
from lungseg.learning.regressors.base import PixelTable, Regressor, as_rows
from lungseg.learning.regressors.boosting import BoostingSettings
from lungseg.learning.regressors.mlp import MlpSettings
from lungseg.learning.regressors.registry import (
    list_fit_facts,
    list_regressor_hints,
    require_known_regressor,
    resolve_regressor,
)
from lungseg.learning.regressors.ridge import RidgeSettings
from lungseg.learning.vgg19.features import CHANNELS, PixelFeatures, describe_precision, extract_features
from lungseg.learning.weights import WeightsChoice, WeightsInfo, describe_weights, find_weights
from lungseg.system.plugins import Settings
from lungseg.system.runtime import Runtime

# Rows x passes (trees, epochs) per second and CPU thread, measured on one machine; only for the estimate.
NOMINAL_ROWS = {"lightgbm": 2.4e6, "ridge": 5e5, "mlp": 1.5e5}


class Vgg19PixelsSettings(Settings):
    """Keys of `vgg19-pixels`."""

    size: Annotated[int, Field(ge=8, le=4096)] = 48
    """Images become size x size pixels. The original has 48."""
    pixels_per_image: Annotated[int, Field(ge=16, le=2**24)] = 2304
    """Pixels that are drawn from each training image. If it has fewer, all are taken."""
    weights: WeightsChoice = "auto"
    """The weights of VGG19."""
    regressor: Annotated[str, AfterValidator(require_known_regressor)] = "lightgbm"
    """The regressor: "lightgbm", "ridge", "mlp", or a class with scikit-learn's interface."""
    regressor_settings: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the constructor of such a class."""
    boosting: BoostingSettings = BoostingSettings()
    """Keys of "lightgbm"."""
    ridge: RidgeSettings = RidgeSettings()
    """Keys of "ridge"."""
    mlp: MlpSettings = MlpSettings()
    """Keys of "mlp"."""

    def resolve_regressor(self) -> tuple[type[Regressor], Settings]:
        """Return the regressor's class and settings. Raises InputError if there is no such class."""
        own = {"lightgbm": self.boosting, "ridge": self.ridge, "mlp": self.mlp}
        return resolve_regressor(self.regressor, own, self.regressor_settings)


class Vgg19Pixels(Approach):
    """Frozen VGG19 up to `relu1_2`: a regressor predicts a pixel's share of lung from 64 features."""

    Settings = Vgg19PixelsSettings

    def __init__(self, settings: Vgg19PixelsSettings, runtime: Runtime) -> None:
        super().__init__(settings, runtime)
        self.network = PixelFeatures(settings.weights).to(runtime.device).eval()
        self.network.to(memory_format=runtime.memory_format)
        regressor_class, own = settings.resolve_regressor()
        self.regressor = regressor_class(own, runtime)
        self.counted = False  # whether operations are counted, without recorded graphs
        self.recorded = RecordedStages(runtime)

    @classmethod
    def hints(cls, settings: Vgg19PixelsSettings, runtime: Runtime) -> list[str]:
        """List what a user should know before a fit on a GPU, a sentence each."""
        return describe_precision(runtime) + list_regressor_hints(settings.regressor, runtime.device)

    @classmethod
    def fit_facts(cls, settings: Vgg19PixelsSettings, runtime: Runtime) -> dict[str, str]:
        """Return what grows the trees, since those of a GPU have other last digits."""
        return list_fit_facts(settings.regressor, runtime.device)

    @classmethod
    def depends_on_seed(cls, settings: Vgg19PixelsSettings) -> bool:
        """Return whether the regressor, or the choice of its training pixels, is random."""
        regressor_class, own = settings.resolve_regressor()
        return regressor_class.depends_on_seed(own) or settings.pixels_per_image < settings.size**2

    def weights(self) -> WeightsInfo:
        return describe_weights("vgg19", find_weights("vgg19", self.settings.weights))

    def require(self, train: Sequence[Any]) -> None:
        self.regressor.require(CHANNELS)

    def estimate(self, train: int, validation: int) -> float | None:
        """Estimate seconds: features by timing two images, the regressor by its nominal speed."""
        s = self.settings
        if s.regressor not in NOMINAL_ROWS:
            return None
        noise = torch.rand(2, 1, s.size, s.size, generator=torch.Generator().manual_seed(0))
        extract_features(self.network, noise.to(self.runtime.device), self.runtime)
        start = time.perf_counter()
        extract_features(self.network, noise.to(self.runtime.device), self.runtime)
        each = (time.perf_counter() - start) / 2
        rows = train * min(s.pixels_per_image, s.size**2)
        passes = {"mlp": s.mlp.epochs, "ridge": 1}.get(s.regressor, s.boosting.rounds)
        return each * (train + validation) + rows * passes / NOMINAL_ROWS[s.regressor] / self.runtime.threads

    def fit(self, train: Sequence[Any], validation: Sequence[Any], context: FitContext) -> FitReport:
        self.recorded = RecordedStages(self.runtime)
        rows = self._build_table(train, context, "train")
        held = self._build_table(validation, context, "validation")
        regressor = self.regressor
        regressor.fit(rows, held, context)
        passes = self.settings.mlp.epochs if self.settings.regressor == "mlp" else 1
        return FitReport("rows", len(rows.targets) * passes, regressor.parameters, regressor.best_step)

    def _build_table(self, samples: Sequence[Any], context: FitContext, side: str) -> PixelTable:
        return build_table(
            samples,
            self.network,
            self.runtime,
            self.settings.size,
            self.settings.pixels_per_image,
            context.seed,
            lambda done, total: context.progress(done, total, f"features of {side} images"),
        )

    def prepare(self, images: Sequence[np.ndarray]) -> Tensor:
        return to_batch(images, self.settings.size, self.runtime.device)

    def stages(self) -> list[Stage]:
        copies = self.runtime.device.type != "cpu" and not self.regressor.on_device
        return [Stage("features", self._extract), Stage("regression", self._regress, copies=copies)]

    def execution_facts(self) -> dict[str, str]:
        """Return how predictions ran: "graph" as `RecordedStages.describe` has it, and "folded" norms."""
        return {"graph": self.recorded.describe(), "folded": "no"}

    def drop_graphs(self) -> None:
        self.recorded.drop()

    @torch.inference_mode()
    def _extract(self, batch: Tensor) -> Tensor:
        def extract(images: Tensor) -> Tensor:
            return extract_features(self.network, images, self.runtime)

        return extract(batch) if self.counted else self.recorded.run("features", extract, batch)

    @torch.inference_mode()
    def _regress(self, maps: Tensor) -> Tensor:
        if self.counted:
            return self._predict_maps(maps)
        recordable = self.regressor.on_device
        return self.recorded.run("regression", self._predict_maps, maps, last=True, recordable=recordable)

    def _predict_maps(self, maps: Tensor) -> Tensor:
        count, _, height, width = maps.shape
        values = self.regressor.predict_tensor(as_rows(maps))
        return values.view(count, 1, height, width).clamp(0, 1)

    def to_module(self) -> nn.Module | None:
        rows = self.regressor.to_module()
        return None if rows is None else _PixelByPixel(self.network, rows)

    def feature_maps(self, image: np.ndarray) -> np.ndarray:
        return extract_features(self.network, self.prepare([image]), self.runtime)[0].cpu().numpy()

    def importance(self) -> list[tuple[str, str, float]]:
        shares = self.regressor.compute_gain_shares()
        if shares is None:
            return []
        return [("regression", f"relu1_2:{index}", float(share)) for index, share in enumerate(shares)]

    def save(self, directory: Path) -> None:
        self.regressor.save(directory)

    @classmethod
    def load(cls, directory: Path, settings: Vgg19PixelsSettings, runtime: Runtime) -> Vgg19Pixels:
        approach = cls(settings, runtime)
        regressor_class, own = settings.resolve_regressor()
        approach.regressor = regressor_class.load(directory, own, runtime)
        return approach


class _PixelByPixel(nn.Module):
    """The features of a batch N x 1 x s x s, and a module of rows that predicts each pixel from them."""

    def __init__(self, features: PixelFeatures, rows: nn.Module) -> None:
        super().__init__()
        self.features, self.rows = features, rows

    def forward(self, images: Tensor) -> Tensor:
        maps = self.features.compute_maps(images)
        values = self.rows(maps.permute(0, 2, 3, 1).flatten(0, 2))
        return values.view(images.shape).clamp(0, 1)
