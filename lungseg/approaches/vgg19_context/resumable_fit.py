"""A fit of `vgg19-context`, step by step. The result of each step is stored, so that a cut fit can go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from lungseg.approaches.vgg19_context.augmented_images import VALIDATION, assign_folds, read_augmented_images
from lungseg.approaches.vgg19_context.code_tables import (
    CodeTables,
    choose_pixels,
    fit_bins,
    fit_projection,
    write_tables,
)
from lungseg.approaches.vgg19_context.image_planes import ImagePlanes
from lungseg.approaches.vgg19_context.parallel_fits import fit_models
from lungseg.approaches.vgg19_context.separable_filters import resample
from lungseg.approaches.vgg19_context.settings import Vgg19ContextSettings
from lungseg.approaches.vgg19_context.shape_prior import MASK_SIDE, ShapePrior, describe_images
from lungseg.approaches.vgg19_context.stage_models import StageModel, make_stage_model
from lungseg.approaches.vgg19_context.stage_training import (
    StageRows,
    choose_training_cases,
    make_stage_rows,
    measure_losses,
    predict_out_of_fold,
)
from lungseg.learning.fit import FitContext
from lungseg.learning.model_files import write_tensors
from lungseg.system.files import make_folder, remove
from lungseg.system.runtime import Runtime
from lungseg.system.stored import DamagedError, read_record, read_sealed, seal_folder, write_record

IMAGE_PLANES, SHAPE_MAPS = "base.safetensors", "shape-maps.safetensors"  # beside the tables
MAPS, SPENT = "maps.safetensors", "spent.json"


class ResumableFit:
    """The steps of a fit, and what they have made so far."""

    def __init__(self, settings: Vgg19ContextSettings, runtime: Runtime, fit_context: FitContext) -> None:
        self.settings, self.runtime, self.fit_context = settings, runtime, fit_context
        self.grids = settings.stage_grids
        # Out-of-fold maps float32 N x 1 x g x g of all cases, stage by stage; the shape prior's first.
        self.earlier: list[Tensor] = []
        self.rows_passed = 0  # through training; a row counts for every model that learnt from it
        self._folder = fit_context.checkpoints
        self._begun = time.perf_counter()
        # What former sessions took for the steps that they finished.
        self.seconds_before = 0.0
        with suppress(DamagedError):
            self.seconds_before = (read_record(self._folder / SPENT) or {"seconds": 0.0})["seconds"]

    def read_images(self, train: Sequence[Any], validation: Sequence[Any]) -> None:
        """Read the images and make their changed copies, or open what is stored of them."""
        folder, report = self._folder / "cases", self._make_report("reading images")
        if read_sealed(folder) is None:
            remove(self._folder / "tables")
            self._drop_stages(0)
        self.cases = read_augmented_images(
            folder, train, validation, self.settings, self.fit_context.seed, report
        )

    def make_tables(self, image_planes: ImagePlanes) -> None:
        """Make the tables of codes and the shape prior's maps, or open them; fit or read the image planes."""
        s, seed, tables = self.settings, self.fit_context.seed, self._folder / "tables"
        self._choice = choose_pixels(self.cases, s.grid, s, seed, s.contexts)
        self._fold = assign_folds(self.cases.groups, s.folds, seed)
        if read_sealed(tables) is None:
            self._drop_stages(0)
            make_folder(tables, empty=True)
            rng = np.random.default_rng([seed, 1])
            if s.shape_prior:
                self._fit_shape_prior(image_planes, tables)
            fit_projection(image_planes, self.cases, rng)
            bins = fit_bins(image_planes, self.cases, rng)
            write_tensors(tables / IMAGE_PLANES, image_planes.get_fitted_tensors())
            report = self._make_report("features of images and copies")
            write_tables(tables, image_planes, self.cases, self._choice, bins, report)
            seal_folder(tables, {})
            self._store_seconds()
        image_planes.read(tables / IMAGE_PLANES)
        self._tables = CodeTables(tables)
        if s.shape_prior:
            self.earlier.append(load_file(tables / SHAPE_MAPS)["maps"])

    def _store_seconds(self) -> None:
        seconds = self.seconds_before + time.perf_counter() - self._begun
        write_record(self._folder / SPENT, {"seconds": seconds})

    def _fit_shape_prior(self, image_planes: ImagePlanes, folder: Path) -> None:
        """Fit the prior, and store its maps; the map of a training case is of a fit without its group."""
        self.fit_context.progress(0, 1, "shape prior")
        batches, training = self.cases.list_batches(), self.cases.is_training
        pictures = torch.cat([describe_images(self.cases.read(batch)) for batch in batches])
        masks = torch.cat([resample(self.cases.masks[batch].float(), MASK_SIDE) for batch in batches])
        shape = ShapePrior()
        maps = torch.empty(len(self.cases), 1, MASK_SIDE, MASK_SIDE)
        maps[training] = shape.fit(pictures[training], masks[training], self.cases.groups[training])
        maps[~training] = shape.predict_maps(pictures[~training])
        image_planes.shape = shape.to(self.runtime.device)
        write_tensors(folder / SHAPE_MAPS, {"maps": maps})

    def _make_report(self, text: str) -> Callable[[int, int], None]:
        return lambda done, total: self.fit_context.progress(done, total, text)

    def fit_stage(self, index: int) -> tuple[StageModel, dict[str, float]]:
        """Fit a stage (from 0), or read it if it is stored; return it with its columns of history.csv.

        Unless it is the last, its maps are added to `earlier`.
        """
        folder = self._folder / f"stage-{index + 1}"
        last = index == len(self.grids) - 1
        record = read_sealed(folder)
        if record is None:
            self._drop_stages(index + 1)
            self._fit_and_store(index, make_folder(folder, empty=True), last)
            record = read_sealed(folder)
            self._store_seconds()
        model = make_stage_model(self.settings, self.runtime, last=last)
        model.read(folder)
        if not last:
            self.earlier.append(load_file(folder / MAPS)["maps"])
        self.rows_passed += record.pop("rows")
        return model, record

    def _drop_stages(self, first: int) -> None:
        """Remove stages (from 0) that were fitted to what is made again now."""
        for index in range(first, len(self.grids)):
            remove(self._folder / f"stage-{index + 1}")

    def _fit_and_store(self, index: int, folder: Path, last: bool) -> None:
        grid, seed = self.grids[index], self.fit_context.seed
        choice = self._choice if last else choose_pixels(self.cases, grid, self.settings, seed, index)
        rows = make_stage_rows(self._tables, self.cases, choice, self.earlier, grid, last, seed)
        name = f"stage {index + 1} of {len(self.grids)}"
        training_cases = choose_training_cases(self._fold, only_all=last)
        models = self._fit_models(rows, training_cases, name, last)
        model = models[VALIDATION]
        if not last:
            report, fold = self._make_report(f"{name}: maps"), self._fold.numpy()
            maps = predict_out_of_fold(self._tables, rows, models, fold, self.earlier, grid, report)
            write_tensors(folder / MAPS, {"maps": maps})
        model.save(folder)
        passed = sum(len(rows.select(chosen)) for chosen in training_cases.values())
        seal_folder(folder, {**measure_losses(model, rows, self.cases), "rows": passed})

    def _fit_models(
        self, rows: StageRows, training_cases: dict[int, np.ndarray], name: str, last: bool
    ) -> dict[int, StageModel]:
        """Fit a model to each set of cases (bool N)."""
        models = {fold: make_stage_model(self.settings, self.runtime, last=last) for fold in training_cases}
        held = rows.select(~self.cases.is_training.numpy())

        def fit(fold: int, fit_context: FitContext, threads: int) -> None:
            models[fold].fit(rows.select(training_cases[fold]), held, rows.bins, fit_context, threads)

        parallel = models[VALIDATION].fits_in_parallel
        fit_models(fit, list(models), self._make_stage_context(name), self.runtime, parallel)
        return models

    def _make_stage_context(self, text: str) -> FitContext:
        """Make the context of a stage's models: they move the bar, but write no history."""

        def progress(done: int, total: int, model: str) -> None:
            self.fit_context.progress(done, total, f"{text}: {model}")

        context = self.fit_context
        return FitContext(context.seed, self._folder, lambda **_: None, progress, context.score)
