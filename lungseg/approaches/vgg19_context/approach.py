"""Approach A taken to its limit: frozen VGG19 features at many scales, and trees that read earlier maps.

Nothing is trained by back-propagation. A kernel regression of the whole mask gives the first map; then come
stages of boosted trees, each of which sees the same frozen features and the maps before it (auto-context, Tu
and Bai 2010). A stage learns from maps of models that never saw the image they are of.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lungseg.approaches import approach as protocol
from lungseg.approaches.approach import Approach, Fitted, Run, Runtime, WeightsInfo
from lungseg.approaches.postprocessing import postprocess
from lungseg.approaches.resize import to_batch
from lungseg.approaches.tensors import write_tensors
from lungseg.approaches.vgg19_context.base import BasePlanes
from lungseg.approaches.vgg19_context.cascade import Stage, believed_names, run_cascade, stage_grids
from lungseg.approaches.vgg19_context.cases import read_cases
from lungseg.approaches.vgg19_context.fitting import BASE, Fitting
from lungseg.approaches.vgg19_context.planes import resample
from lungseg.approaches.vgg19_context.settings import Vgg19ContextSettings
from lungseg.approaches.vgg19_context.stage_models import new_stage
from lungseg.approaches.weights import find_weights, weights_info
from lungseg.errors import InputError
from lungseg.storage import make_folder

# Rows x trees a second and CPU thread, measured on one machine with 400 columns: for the estimate alone.
NOMINAL_ROWS = 1.5e6


class Vgg19Context(Approach):
    """Frozen VGG19 features at several scales, a shape prior, and stages of boosted trees with context."""

    Settings = Vgg19ContextSettings
    built_on = ("lungseg.approaches.vgg19_pixels",)

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
        layout = torch.channels_last if self.runtime.channels_last else torch.contiguous_format
        return BasePlanes(self.settings, self.runtime).to(self.runtime.device, memory_format=layout).eval()

    def estimate(self, train: int, validation: int) -> float:
        """Seconds: planes by timing two images, the trees by their nominal speed a CPU thread."""
        s = self.settings
        base = self._new_base()
        noise = torch.rand(2, 1, s.size, s.size, generator=torch.Generator().manual_seed(0))
        noise = noise.to(self.runtime.device)
        with torch.inference_mode():
            base.planes(noise)
            start = time.perf_counter()
            base.planes(noise)
        each = (time.perf_counter() - start) / 2
        rows = train * (s.pixels_per_image + s.copies * s.pixels_per_copy)
        fits = s.contexts * s.folds + 1  # folds less one of the rows each, and all of them once
        passes = rows * s.boosting.rounds * fits
        return each * (train * (1 + s.copies) + validation) + passes / NOMINAL_ROWS / self.runtime.threads

    def fit(self, train: Sequence[Any], validation: Sequence[Any], run: Run) -> Fitted:
        self.cascade = []
        if self.settings.contexts and len(train) < 2:
            raise InputError(
                "vgg19-context needs two training images for its folds: give more, or set contexts = 0"
            )
        cases = read_cases(
            train, validation, self.settings, run.seed, lambda d, t: run.progress(d, t, "reading images")
        )
        self.base = self._new_base()
        fitting = Fitting(self.settings, self.runtime, run, cases, self.base)
        sizes = [sample.mask().shape for sample in validation]
        for index, grid in enumerate(fitting.grids):
            model, record = fitting.stage(index)
            self.cascade.append(Stage(grid, model))
            if index < len(fitting.grids) - 1:
                maps = self.finish(fitting.earlier[-1][~cases.learnt], sizes)
            else:
                maps = self.predict([sample.image() for sample in validation])
            run.history(unit="stage", step=index + 1, **record, validation_dice=run.score(maps))
        rows = int(cases.learnt[fitting.choice.case].sum()) * len(self.cascade)
        parameters = sum(stage.model.parameters for stage in self.cascade)
        return Fitted("rows", rows, parameters, seconds_before=fitting.seconds_before)

    def prepare(self, images: Sequence[np.ndarray]) -> Tensor:
        return to_batch(images, self.settings.size, self.runtime.device)

    def stages(self) -> list[protocol.Stage]:
        elsewhere = self.runtime.device.type != "cpu"
        return [
            protocol.Stage("features", self._features),
            protocol.Stage("trees", self._trees, copies=elsewhere),
            protocol.Stage(
                "post-processing",
                lambda maps: postprocess(maps, self.settings.postprocessing),
                copies=elsewhere,
            ),
        ]

    @torch.inference_mode()
    def _features(self, batch: Tensor) -> Tensor:
        """Planes N x P x G x G, the shape prior's maps as the last of them if there are any."""
        planes, prior = self.base(batch)
        return planes if prior is None else torch.cat([planes, resample(prior, planes.shape[-1])], 1)

    def _trees(self, planes: Tensor) -> Tensor:
        if not self.settings.shape_prior:
            return run_cascade(self.cascade, planes, None)
        return run_cascade(self.cascade, planes[:, :-1], planes[:, -1:])

    def feature_maps(self, image: np.ndarray) -> np.ndarray:
        return self._features(self.prepare([image]))[0].cpu().numpy()

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
        for index, grid in enumerate(stage_grids(settings)):
            model = new_stage(settings, runtime)
            model.read(directory / f"stage-{index + 1}")
            approach.cascade.append(Stage(grid, model))
        return approach
