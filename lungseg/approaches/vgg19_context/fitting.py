"""One fit of `vgg19-context`, step by step; what a step made is stored, so a cut fit goes on after it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from lungseg.approaches.vgg19_context.base import BasePlanes
from lungseg.approaches.vgg19_context.cascade import stage_grids
from lungseg.approaches.vgg19_context.cases import HELD, folds_of, read_cases
from lungseg.approaches.vgg19_context.separable import resample
from lungseg.approaches.vgg19_context.settings import Vgg19ContextSettings
from lungseg.approaches.vgg19_context.shape import MASK_SIDE, ShapePrior, describe
from lungseg.approaches.vgg19_context.side_by_side import fit_models
from lungseg.approaches.vgg19_context.stage_models import StageModel, new_stage
from lungseg.approaches.vgg19_context.tables import (
    BaseTables,
    choose_pixels,
    fit_bins,
    fit_projection,
    write_tables,
)
from lungseg.approaches.vgg19_context.training import (
    StageRows,
    fold_cases,
    held_out_maps,
    judge,
    stage_rows,
)
from lungseg.learning.fit import FitContext
from lungseg.learning.weights import write_tensors
from lungseg.system.files import make_folder, read_json, write_json
from lungseg.system.runtime import Runtime

BASE, SHAPE_MAPS = "base.safetensors", "shape-maps.safetensors"
RECORD, MAPS, SPENT = "stage.json", "maps.safetensors", "spent.json"


class Fitting:
    """The tables that all stages share, and the maps so far.

    Attributes:
        cases: what is learnt from and validated on.
        grids: pixels a side of each stage's map.
        earlier: maps float32 N x 1 x g x g of all cases, stage by stage; the shape prior's first, if it is
            used. Those of a case to learn from are by models that never saw its group.
        seconds_before: spent by former sittings on the steps that they finished.
        rows_passed: rows that went through training, counted for every model that they were in.
    """

    def __init__(self, settings: Vgg19ContextSettings, runtime: Runtime, context: FitContext) -> None:
        self.settings, self.runtime, self.context = settings, runtime, context
        self.grids = stage_grids(settings)
        self.earlier: list[Tensor] = []
        self.rows_passed = 0
        self._folder = context.checkpoints
        self._begun = time.perf_counter()
        spent = self._folder / SPENT
        self.seconds_before = read_json(spent)["seconds"] if spent.exists() else 0.0

    def read(self, train: Sequence[Any], validation: Sequence[Any]) -> None:
        """Reads the images and makes their copies, or opens what is stored of them."""
        folder, report = self._folder / "cases", self._report("reading images")
        self.cases = read_cases(folder, train, validation, self.settings, self.context.seed, report)

    def extract(self, base: BasePlanes) -> None:
        """Makes the tables and the shape prior's maps, or opens them.

        Args:
            base: unfitted; it is fitted here, or read if a former sitting got so far.
        """
        seed, tables = self.context.seed, self._folder / "tables"
        self._choice = choose_pixels(
            self.cases, self.settings.grid, self.settings, seed, self.settings.contexts
        )
        self._fold = folds_of(self.cases.groups, self.settings.folds, seed)
        if not BaseTables.exist(tables):
            rng = np.random.default_rng([seed, 1])
            if self.settings.shape_prior:
                self._fit_shape(base)
            fit_projection(base, self.cases, rng)
            bins = fit_bins(base, self.cases, rng)
            write_tensors(self._folder / BASE, base.fitted())
            report = self._report("features of images and copies")
            write_tables(tables, base, self.cases, self._choice, bins, report)
            self._note_time()
        base.read(self._folder / BASE)
        self._tables = BaseTables(tables)
        if self.settings.shape_prior:
            self.earlier.append(load_file(self._folder / SHAPE_MAPS)["maps"])

    def _note_time(self) -> None:
        seconds = self.seconds_before + time.perf_counter() - self._begun
        write_json(self._folder / SPENT, {"seconds": seconds})

    def _fit_shape(self, base: BasePlanes) -> None:
        """Stores the prior's maps N x 1 x 64 x 64 of all cases; of one learnt from, without its own group."""
        self.context.progress(0, 1, "shape prior")
        batches, learnt = self.cases.batches(), self.cases.learnt
        pictures = torch.cat([describe(self.cases.pictures(batch)) for batch in batches])
        masks = torch.cat([resample(self.cases.masks[batch].float(), MASK_SIDE) for batch in batches])
        shape = ShapePrior()
        maps = torch.empty(len(self.cases), 1, MASK_SIDE, MASK_SIDE)
        maps[learnt] = shape.fit(pictures[learnt], masks[learnt], self.cases.groups[learnt])
        maps[~learnt] = shape.of_pictures(pictures[~learnt])
        base.shape = shape.to(self.runtime.device)
        write_tensors(self._folder / SHAPE_MAPS, {"maps": maps})

    def _report(self, text: str) -> Callable[[int, int], None]:
        return lambda done, total: self.context.progress(done, total, text)

    def stage(self, index: int) -> tuple[StageModel, dict[str, float]]:
        """Fits a stage, or reads it; unless it is the last its maps join `earlier`.

        Returns:
            The model, and its losses and accuracies for history.csv.
        """
        folder = self._folder / f"stage-{index + 1}"
        last = index == len(self.grids) - 1
        if not (folder / RECORD).exists():
            self._fit_stage(index, make_folder(folder, empty=True), last)
            self._note_time()
        model = new_stage(self.settings, self.runtime, last=last)
        model.read(folder)
        if not last:
            self.earlier.append(load_file(folder / MAPS)["maps"])
        record = read_json(folder / RECORD)
        self.rows_passed += record.pop("rows")
        return model, record

    def _fit_stage(self, index: int, folder: Path, last: bool) -> None:
        grid, seed = self.grids[index], self.context.seed
        choice = self._choice if last else choose_pixels(self.cases, grid, self.settings, seed, index)
        rows = stage_rows(self._tables, self.cases, choice, self.earlier, grid, last, seed)
        name = f"stage {index + 1} of {len(self.grids)}"
        learners = fold_cases(self._fold, only_all=last)
        models = self._fit_models(rows, learners, name, last)
        model = models[HELD]
        if not last:
            report, fold = self._report(f"{name}: maps"), self._fold.numpy()
            maps = held_out_maps(self._tables, rows, models, fold, self.earlier, grid, report)
            write_tensors(folder / MAPS, {"maps": maps})
        model.save(folder)
        passed = sum(len(rows.of(chosen)) for chosen in learners.values())
        # Last: it is what makes the stage done.
        write_json(folder / RECORD, {**judge(model, rows, self.cases), "rows": passed})

    def _fit_models(
        self, rows: StageRows, learners: dict[int, np.ndarray], name: str, last: bool
    ) -> dict[int, StageModel]:
        """A model on each set of cases (bool N)."""
        models = {fold: new_stage(self.settings, self.runtime, last=last) for fold in learners}
        held = rows.of(~self.cases.learnt.numpy())

        def fit(fold: int, context: FitContext, threads: int) -> None:
            models[fold].fit(rows.of(learners[fold]), held, rows.bins, context, threads)

        fit_models(fit, list(models), self._quiet(name), self.runtime, models[HELD].side_by_side)
        return models

    def _quiet(self, text: str) -> FitContext:
        """The run for a stage's models: they move the bar, but a history of them all nobody could read."""

        def progress(done: int, total: int, model: str) -> None:
            self.context.progress(done, total, f"{text}: {model}")

        return FitContext(self.context.seed, self._folder, lambda **_: None, progress, self.context.score)
