"""Approach A: each pixel of the mask from 64 feature maps of a frozen VGG19, by a regressor."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from lungseg.approaches.base import Approach, Stage
from lungseg.approaches.vgg19_pixels.sampling import build_table
from lungseg.learning.fit import FitContext, FitReport
from lungseg.learning.images.resize import to_batch
from lungseg.learning.regressors.base import PixelTable, Regressor, as_rows
from lungseg.learning.regressors.boosting import BoostingSettings, HistGradientBoosting, LightGBM
from lungseg.learning.regressors.mlp import Mlp, MlpSettings
from lungseg.learning.regressors.ridge import RidgeRegressor, RidgeSettings
from lungseg.learning.vgg19.features import PixelFeatures, extract
from lungseg.learning.weights import WeightsInfo, find_weights, weights_info
from lungseg.system.plugins import Settings
from lungseg.system.runtime import Runtime

REGRESSORS: dict[str, type[Regressor]] = {
    "lightgbm": LightGBM,
    "ridge": RidgeRegressor,
    "hist-gradient-boosting": HistGradientBoosting,
    "mlp": Mlp,
}
# Rows x passes (trees, epochs) a second and CPU thread, measured on one machine: for the estimate alone.
NOMINAL_ROWS = {"lightgbm": 2.4e6, "hist-gradient-boosting": 1.2e6, "ridge": 5e5, "mlp": 1.5e5}


class Vgg19PixelsSettings(Settings):
    """Keys of `vgg19-pixels`.

    Attributes:
        size: images are worked on at size x size pixels; 48 is the original's.
        pixels_per_image: rows sampled from each image, all of them if it has no more.
        weights: "imagenet", "random" or "auto" (ImageNet's if they are on this machine, else random).
        regressor: which one; `boosting` is read by "lightgbm" and "hist-gradient-boosting".
    """

    size: Annotated[int, Field(ge=8, le=4096)] = 48
    pixels_per_image: Annotated[int, Field(ge=16)] = 2304
    weights: Literal["imagenet", "random", "auto"] = "auto"
    regressor: Literal["lightgbm", "ridge", "hist-gradient-boosting", "mlp"] = "lightgbm"
    boosting: BoostingSettings = BoostingSettings()
    ridge: RidgeSettings = RidgeSettings()
    mlp: MlpSettings = MlpSettings()

    @property
    def of_regressor(self) -> Settings:
        return {"ridge": self.ridge, "mlp": self.mlp}.get(self.regressor, self.boosting)


class Vgg19Pixels(Approach):
    """Frozen VGG19 up to `relu1_2`, one row of 64 numbers a pixel, a regressor of the share of lung."""

    Settings = Vgg19PixelsSettings

    def __init__(self, settings: Vgg19PixelsSettings, runtime: Runtime) -> None:
        super().__init__(settings, runtime)
        self.network = PixelFeatures(settings.weights).to(runtime.device).eval()
        self.network.to(memory_format=runtime.memory_format)
        self.regressor: Regressor | None = None

    @classmethod
    def depends_on_seed(cls, settings: Vgg19PixelsSettings) -> bool:
        """Ridge regression on every pixel has nothing random in it."""
        return settings.regressor != "ridge" or settings.pixels_per_image < settings.size**2

    def weights(self) -> WeightsInfo:
        return weights_info("vgg19", find_weights("vgg19", self.settings.weights))

    def estimate(self, train: int, validation: int) -> float:
        """Seconds: features by timing two images, the regressor by its nominal speed a CPU thread."""
        s = self.settings
        noise = torch.rand(2, 1, s.size, s.size, generator=torch.Generator().manual_seed(0))
        extract(self.network, noise.to(self.runtime.device), self.runtime)
        start = time.perf_counter()
        extract(self.network, noise.to(self.runtime.device), self.runtime)
        each = (time.perf_counter() - start) / 2
        rows = train * min(s.pixels_per_image, s.size**2)
        passes = {"mlp": s.mlp.epochs, "ridge": 1}.get(s.regressor, s.boosting.rounds)
        return each * (train + validation) + rows * passes / NOMINAL_ROWS[s.regressor] / self.runtime.threads

    def fit(self, train: Sequence[Any], validation: Sequence[Any], context: FitContext) -> FitReport:
        rows = self._table(train, context, "train")
        held = self._table(validation, context, "validation")
        regressor = REGRESSORS[self.settings.regressor](self.settings.of_regressor, self.runtime)
        regressor.fit(rows, held, context)
        self.regressor = regressor
        passes = self.settings.mlp.epochs if self.settings.regressor == "mlp" else 1
        return FitReport("rows", len(rows.targets) * passes, regressor.parameters, regressor.best_step)

    def _table(self, samples: Sequence[Any], context: FitContext, side: str) -> PixelTable:
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
        return [
            Stage("features", lambda batch: extract(self.network, batch, self.runtime)),
            Stage("regression", self._regress, copies=copies),
        ]

    def _regress(self, maps: Tensor) -> Tensor:
        count, _, height, width = maps.shape
        values = self.regressor.predict_tensor(as_rows(maps))
        return values.view(count, 1, height, width).clamp(0, 1)

    def feature_maps(self, image: np.ndarray) -> np.ndarray:
        return extract(self.network, self.prepare([image]), self.runtime)[0].cpu().numpy()

    def importance(self) -> list[tuple[str, str, float]]:
        shares = self.regressor.gain_shares()
        if shares is None:
            return []
        return [("regression", f"relu1_2:{index}", float(share)) for index, share in enumerate(shares)]

    def save(self, directory: Path) -> None:
        self.regressor.save(directory)

    @classmethod
    def load(cls, directory: Path, settings: Vgg19PixelsSettings, runtime: Runtime) -> Vgg19Pixels:
        approach = cls(settings, runtime)
        kind = REGRESSORS[settings.regressor]
        approach.regressor = kind.load(directory, settings.of_regressor, runtime)
        return approach
