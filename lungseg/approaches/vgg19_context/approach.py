"""Approach A with context: frozen VGG19 features at many scales, and trees that read earlier maps.

Nothing is trained by back-propagation. A kernel regression of the whole mask gives the first map; then come
stages of boosted trees, each of which sees the same frozen features and the maps before it (auto-context, Tu
and Bai 2010). A stage learns from maps of models that never saw the image they are of.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lungseg.approaches import base as protocol
from lungseg.approaches.base import Approach
from lungseg.approaches.vgg19_context.base import BasePlanes
from lungseg.approaches.vgg19_context.cascade import (
    Shared,
    Stage,
    believed_names,
    run_cascade,
    stage_grids,
)
from lungseg.approaches.vgg19_context.fitting import BASE, Fitting
from lungseg.approaches.vgg19_context.separable import resample
from lungseg.approaches.vgg19_context.settings import Vgg19ContextSettings
from lungseg.approaches.vgg19_context.stage_models import new_stage
from lungseg.learning.fit import FitContext, FitReport
from lungseg.learning.images.resize import to_batch
from lungseg.learning.weights import WeightsInfo, find_weights, weights_info, write_tensors
from lungseg.system.errors import InputError
from lungseg.system.files import make_folder
from lungseg.system.runtime import Runtime

IMAGES_A_BATCH = 8
# For the estimate alone, measured on one machine: values that trees are grown on, values of other regressors
# and nodes visited, all a second and CPU thread; and what reading and coding add to the planes' time.
NOMINAL_TREES, NOMINAL_OTHERS, NOMINAL_VISITS, CODING = 1.2e8, 1e7, 1.5e10, 1.7
CONTEXT_COLUMNS = 100


class Vgg19Context(Approach):
    """Frozen VGG19 features at several scales, a shape prior, and stages of boosted trees with context."""

    Settings = Vgg19ContextSettings

    def __init__(self, settings: Vgg19ContextSettings, runtime: Runtime) -> None:
        super().__init__(settings, runtime)
        self.base: BasePlanes | None = None
        self.cascade: list[Stage] = []

    def weights(self) -> WeightsInfo | None:
        if not self.settings.blocks:
            return None
        self._new_base()  # read now: a damaged file must not end a benchmark in its last hour
        return weights_info("vgg19", find_weights("vgg19", self.settings.weights))

    def _new_base(self) -> BasePlanes:
        return BasePlanes(self.settings, self.runtime).to(self.runtime.device).eval()

    def estimate(self, train: int, validation: int) -> float:
        """Seconds: planes by timing two images, the regressors by their nominal speed a CPU thread."""
        s = self.settings
        base = self._new_base()
        noise = torch.rand(2, 1, s.size, s.size, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            base.planes(noise.to(self.runtime.device))
            start = time.perf_counter()
            base.planes(noise.to(self.runtime.device))[s.grid].cpu()
        each = (time.perf_counter() - start) / 2
        cases = train * (1 + s.copies) + validation
        # A stage before the last is fitted without each fold and on all: `folds` times its rows together.
        coarse = s.contexts * s.folds * self._rows(train, s.coarse)
        early, last = s.boosting_of(last=False), s.boosting_of(last=True)
        columns, fine = len(base.names) + CONTEXT_COLUMNS, self._rows(train, s.grid)
        grown = coarse * early.rounds * early.column_share + fine * last.rounds * last.column_share
        other = {"ridge": 1, "mlp": s.mlp.epochs}.get(s.regressor)
        passed = grown / NOMINAL_TREES if other is None else (coarse + fine) * other / NOMINAL_OTHERS
        regressors = passed * columns
        visits = cases * s.contexts * s.coarse**2 * early.rounds * early.leaves
        return CODING * each * cases + (regressors + visits / NOMINAL_VISITS) / self.runtime.threads

    def _rows(self, train: int, grid: int) -> int:
        s = self.settings
        return train * (min(s.pixels_per_image, grid**2) + s.copies * min(s.pixels_per_copy, grid**2))

    def require(self, train: Sequence[Any]) -> None:
        if self.settings.contexts and len({sample.patient for sample in train}) < 2:
            raise InputError(
                "vgg19-context needs training images of two patients for its folds: give more, "
                "or set contexts = 0"
            )

    def fit(self, train: Sequence[Any], validation: Sequence[Any], context: FitContext) -> FitReport:
        self.require(train)
        self.cascade = []
        self.base = self._new_base()
        fitting = Fitting(self.settings, self.runtime, context)
        fitting.read(train, validation)
        fitting.extract(self.base)
        for index, grid in enumerate(fitting.grids):
            model, record = fitting.stage(index)
            self.cascade.append(Stage(grid, model))
            if index < len(fitting.grids) - 1:
                maps = self._at_own_size(fitting.earlier[-1][~fitting.cases.learnt], validation)
            else:
                maps = self._predictions(validation)
            context.history(unit="stage", step=index + 1, **record, validation_dice=context.score(maps))
        parameters = sum(stage.model.parameters for stage in self.cascade)
        return FitReport("rows", fitting.rows_passed, parameters, seconds_before=fitting.seconds_before)

    def _at_own_size(self, maps: Tensor, samples: Sequence[Any]) -> Iterator[np.ndarray]:
        """Maps at the samples' own sizes, one at a time."""
        for index, sample in enumerate(samples):
            yield from self.finish(maps[index : index + 1], [sample.mask().shape])

    def _predictions(self, samples: Sequence[Any]) -> Iterator[np.ndarray]:
        for start in range(0, len(samples), IMAGES_A_BATCH):
            yield from self.predict([sample.image() for sample in samples[start : start + IMAGES_A_BATCH]])

    def prepare(self, images: Sequence[np.ndarray]) -> Tensor:
        return to_batch(images, self.settings.size, self.runtime.device)

    def stages(self) -> list[protocol.Stage]:
        on_host = self.runtime.device.type == "cpu"
        leaving = not on_host and not all(stage.model.on_device for stage in self.cascade)
        return [
            protocol.Stage("features", self._features),
            protocol.Stage("trees", self._trees, copies=leaving),
        ]

    def _features(self, batch: Tensor) -> Shared:
        return self.base(batch)

    @torch.inference_mode()
    def _trees(self, shared: Shared) -> Tensor:
        return run_cascade(self.cascade, shared)

    @torch.inference_mode()
    def feature_maps(self, image: np.ndarray) -> np.ndarray:
        """The planes of the last stage's grid, then the shape prior's map if there is one."""
        shared = self._features(self.prepare([image]))
        maps = [shared.planes[self.settings.grid][:, : shared.own]]
        maps += [] if shared.prior is None else [resample(shared.prior, self.settings.grid)]
        return torch.cat(maps, 1)[0].cpu().numpy()

    def importance(self) -> list[tuple[str, str, float]]:
        """Gain of each stage's trees; "map 1" is what stage 1 predicted."""
        earlier = ["shape prior"] if self.settings.shape_prior else []
        rows: list[tuple[str, str, float]] = []
        for number, stage in enumerate(self.cascade, start=1):
            shares = stage.model.gain_shares()
            if shares is None:
                return []
            names = [*self.base.names, *believed_names(earlier, stage.grid)]
            rows += [(f"stage {number}", name, float(s)) for name, s in zip(names, shares, strict=True)]
            earlier.append(f"map {number}")
        return rows

    def save(self, directory: Path) -> None:
        write_tensors(directory / BASE, self.base.fitted())
        for index, stage in enumerate(self.cascade):
            stage.model.save(make_folder(directory / f"stage-{index + 1}"))

    @classmethod
    def load(cls, directory: Path, settings: Vgg19ContextSettings, runtime: Runtime) -> Vgg19Context:
        approach = cls(settings, runtime)
        approach.base = approach._new_base()
        approach.base.read(directory / BASE)
        grids = stage_grids(settings)
        for index, grid in enumerate(grids):
            model = new_stage(settings, runtime, last=index == len(grids) - 1)
            model.read(directory / f"stage-{index + 1}")
            approach.cascade.append(Stage(grid, model))
        return approach
