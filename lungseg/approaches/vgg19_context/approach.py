"""Approach A with context: frozen VGG19 features at several scales, and trees that read earlier maps.

Nothing is trained by back-propagation. A kernel regression of the whole mask gives the first map. Then come
stages of boosted trees. Each reads the same frozen features and the maps before it (auto-context, Tu and Bai
2010). A stage learns from maps of models that never saw the image.

A map is a prediction N x 1 x G x G. A plane is one input number per pixel, and planes are N x P x G x G.
Where things are in this package:

- Planes: `image_planes` (all that is known from the image) from `projection` and `grey_planes`;
  `context_planes` (from earlier maps); `separable_filters` resizes and smooths.
- Prediction: `cascade` runs the stages, `stage_models` has their regressors, `shape_prior` the first map.
- Training: `resumable_fit` has all steps, from `augmented_images` and `code_tables` to `stage_training` and
  `parallel_fits`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lungseg.approaches.base import Approach, Stage
from lungseg.approaches.recorded_stages import RecordedStages
from lungseg.approaches.vgg19_context.cascade import CascadeStage, run_cascade
from lungseg.approaches.vgg19_context.context_planes import list_context_plane_names
from lungseg.approaches.vgg19_context.image_planes import ImagePlanes, SharedPlanes
from lungseg.approaches.vgg19_context.resumable_fit import IMAGE_PLANES, ResumableFit
from lungseg.approaches.vgg19_context.separable_filters import resample
from lungseg.approaches.vgg19_context.settings import Vgg19ContextSettings
from lungseg.approaches.vgg19_context.stage_models import make_stage_model
from lungseg.learning.fit import FitContext, FitReport
from lungseg.learning.images.resize import to_batch
from lungseg.learning.model_files import write_tensors
from lungseg.learning.regressors.registry import list_fit_facts, list_regressor_hints
from lungseg.learning.vgg19.features import describe_precision
from lungseg.learning.weights import WeightsInfo, describe_weights, find_weights
from lungseg.system.errors import InputError
from lungseg.system.files import make_folder
from lungseg.system.runtime import Runtime

IMAGES_A_BATCH = 8
# Only for the estimate, measured on one machine: values that trees are grown on, values of other regressors
# and nodes visited, all per second and CPU thread; and the factor that reading and coding add to the planes'
# time.
NOMINAL_TREES, NOMINAL_OTHERS, NOMINAL_VISITS, CODING = 1.2e8, 1e7, 1.5e10, 1.7
CONTEXT_COLUMNS = 100


class Vgg19Context(Approach):
    """Frozen VGG19 features at several scales, a shape prior, and stages of boosted trees with context."""

    Settings = Vgg19ContextSettings

    def __init__(self, settings: Vgg19ContextSettings, runtime: Runtime) -> None:
        super().__init__(settings, runtime)
        self.image_planes: ImagePlanes | None = None
        self.cascade: list[CascadeStage] = []
        self.counted = False  # whether operations are counted, without recorded graphs
        self.recorded = RecordedStages(runtime)

    @classmethod
    def hints(cls, settings: Vgg19ContextSettings, runtime: Runtime) -> list[str]:
        """List what a user should know before a fit on a GPU, a sentence each."""
        precision = describe_precision(runtime) if settings.blocks else []
        return precision + list_regressor_hints(settings.regressor, runtime.device)

    @classmethod
    def fit_facts(cls, settings: Vgg19ContextSettings, runtime: Runtime) -> dict[str, str]:
        """Return what grows the trees, since those of a GPU have other last digits."""
        return list_fit_facts(settings.regressor, runtime.device)

    def weights(self) -> WeightsInfo | None:
        if not self.settings.blocks:
            return None
        self._make_image_planes()  # reads the weights, so that a damaged file is found before any fit
        return describe_weights("vgg19", find_weights("vgg19", self.settings.weights))

    def _make_image_planes(self) -> ImagePlanes:
        return ImagePlanes(self.settings, self.runtime).to(self.runtime.device).eval()

    def estimate(self, train: int, validation: int) -> float | None:
        """Estimate seconds: planes by timing two images, the regressors by their nominal speed."""
        s = self.settings
        if s.regressor not in ("lightgbm", "ridge", "mlp"):
            return None
        image_planes = self._make_image_planes()
        noise = torch.rand(2, 1, s.size, s.size, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            image_planes.compute_planes(noise.to(self.runtime.device))
            start = time.perf_counter()
            image_planes.compute_planes(noise.to(self.runtime.device))[s.grid].cpu()
        each = (time.perf_counter() - start) / 2
        cases = train * (1 + s.copies) + validation
        # A stage before the last is fitted without each fold and on all: together on `folds` times its rows.
        coarse = s.contexts * s.folds * self._count_rows(train, s.coarse)
        early, last = s.get_boosting(last=False), s.get_boosting(last=True)
        columns, fine = len(image_planes.names) + CONTEXT_COLUMNS, self._count_rows(train, s.grid)
        grown = coarse * early.rounds * early.column_share + fine * last.rounds * last.column_share
        other = {"ridge": 1, "mlp": s.mlp.epochs}.get(s.regressor)
        passed = grown / NOMINAL_TREES if other is None else (coarse + fine) * other / NOMINAL_OTHERS
        regressors = passed * columns
        visits = cases * s.contexts * s.coarse**2 * early.rounds * early.leaves
        return CODING * each * cases + (regressors + visits / NOMINAL_VISITS) / self.runtime.threads

    def _count_rows(self, train: int, grid: int) -> int:
        s = self.settings
        return train * (min(s.pixels_per_image, grid**2) + s.copies * min(s.pixels_per_copy, grid**2))

    def require(self, train: Sequence[Any]) -> None:
        if self.settings.contexts and len({sample.patient for sample in train}) < 2:
            raise InputError(
                "vgg19-context needs training images of two patients for its folds: give more, "
                "or set contexts = 0"
            )
        if self.settings.regressor != "lightgbm":
            regressor_class, own = self.settings.resolve_regressor()
            regressor_class(own, self.runtime).require(CONTEXT_COLUMNS)

    def fit(self, train: Sequence[Any], validation: Sequence[Any], context: FitContext) -> FitReport:
        self.require(train)
        self.cascade, self.recorded = [], RecordedStages(self.runtime)
        self.image_planes = self._make_image_planes()
        fit = ResumableFit(self.settings, self.runtime, context)
        fit.read_images(train, validation)
        fit.make_tables(self.image_planes)
        for index, grid in enumerate(fit.grids):
            model, record = fit.fit_stage(index)
            self.cascade.append(CascadeStage(grid, model))
            if index < len(fit.grids) - 1:
                maps = self._resize_maps(fit.earlier[-1][~fit.cases.is_training], validation)
            else:
                maps = self._predict_samples(validation)
            context.history(unit="stage", step=index + 1, **record, validation_dice=context.score(maps))
        counts = [stage.model.parameters for stage in self.cascade]
        parameters = None if None in counts else sum(counts)
        return FitReport("rows", fit.rows_passed, parameters, seconds_before=fit.seconds_before)

    def _resize_maps(self, maps: Tensor, samples: Sequence[Any]) -> Iterator[np.ndarray]:
        """Resize maps to the samples' own sizes, one at a time."""
        for index, sample in enumerate(samples):
            yield from self.finish(maps[index : index + 1], [sample.mask().shape])

    def _predict_samples(self, samples: Sequence[Any]) -> Iterator[np.ndarray]:
        for start in range(0, len(samples), IMAGES_A_BATCH):
            yield from self.predict([sample.image() for sample in samples[start : start + IMAGES_A_BATCH]])

    def prepare(self, images: Sequence[np.ndarray]) -> Tensor:
        return to_batch(images, self.settings.size, self.runtime.device)

    def stages(self) -> list[Stage]:
        on_host = self.runtime.device.type == "cpu"
        copies = not on_host and not all(stage.model.on_device for stage in self.cascade)
        return [Stage("features", self._compute_planes), Stage("trees", self._run_cascade, copies=copies)]

    def execution_facts(self) -> dict[str, str]:
        """Return how predictions ran: "graph" as `RecordedStages.describe` has it, and "folded" norms."""
        return {"graph": self.recorded.describe(), "folded": "no"}

    def drop_graphs(self) -> None:
        self.recorded.drop()

    @torch.inference_mode()
    def _compute_planes(self, batch: Tensor) -> SharedPlanes:
        if self.counted:
            return self.image_planes(batch)
        return self.recorded.run("features", self.image_planes, batch)

    @torch.inference_mode()
    def _run_cascade(self, shared: SharedPlanes) -> Tensor:
        if self.counted:
            return self._predict_maps(shared)
        recordable = all(stage.model.can_be_recorded for stage in self.cascade)
        return self.recorded.run("trees", self._predict_maps, shared, last=True, recordable=recordable)

    def _predict_maps(self, shared: SharedPlanes) -> Tensor:
        return run_cascade(self.cascade, shared)[-1]

    @torch.inference_mode()
    def feature_maps(self, image: np.ndarray) -> np.ndarray:
        """Compute the image planes at the last stage's grid, then the shape prior's map if there is one."""
        shared = self._compute_planes(self.prepare([image]))
        maps = [shared.planes[self.settings.grid][:, : shared.image_count]]
        maps += [] if shared.prior is None else [resample(shared.prior, self.settings.grid)]
        return torch.cat(maps, 1)[0].cpu().numpy()

    @torch.inference_mode()
    def stage_maps(self, image: np.ndarray) -> list[tuple[str, np.ndarray]]:
        """Predict the shape prior's map, if there is one, then that of each stage at its own grid."""
        maps = run_cascade(self.cascade, self._compute_planes(self.prepare([image])))
        titles = ["shape prior"] if self.settings.shape_prior else []
        titles += [f"stage {number}" for number in range(1, len(self.cascade) + 1)]
        if len(maps) == 1:
            return []
        return [(title, each[0, 0].cpu().numpy()) for title, each in zip(titles, maps, strict=True)]

    def importance(self) -> list[tuple[str, str, float]]:
        """List the gain shares of each stage's trees; "map 1" is what stage 1 predicted."""
        earlier = ["shape prior"] if self.settings.shape_prior else []
        rows: list[tuple[str, str, float]] = []
        for number, stage in enumerate(self.cascade, start=1):
            shares = stage.model.compute_gain_shares()
            if shares is None:
                return []
            names = [*self.image_planes.names, *list_context_plane_names(earlier, stage.grid)]
            rows += [(f"stage {number}", name, float(s)) for name, s in zip(names, shares, strict=True)]
            earlier.append(f"map {number}")
        return rows

    def save(self, directory: Path) -> None:
        write_tensors(directory / IMAGE_PLANES, self.image_planes.get_fitted_tensors())
        for index, stage in enumerate(self.cascade):
            stage.model.save(make_folder(directory / f"stage-{index + 1}"))

    @classmethod
    def load(cls, directory: Path, settings: Vgg19ContextSettings, runtime: Runtime) -> Vgg19Context:
        approach = cls(settings, runtime)
        approach.image_planes = approach._make_image_planes()
        approach.image_planes.read(directory / IMAGE_PLANES)
        grids = settings.stage_grids
        for index, grid in enumerate(grids):
            model = make_stage_model(settings, runtime, last=index == len(grids) - 1)
            model.read(directory / f"stage-{index + 1}")
            approach.cascade.append(CascadeStage(grid, model))
        return approach
