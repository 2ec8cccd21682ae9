"""One fit of `vgg19-context`, step by step; what a step made is stored, so a cut fit goes on after it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from lungseg.approaches.approach import Run, Runtime
from lungseg.approaches.tensors import write_tensors
from lungseg.approaches.vgg19_context.base import BasePlanes
from lungseg.approaches.vgg19_context.cascade import stage_grids
from lungseg.approaches.vgg19_context.cases import Cases, folds_of
from lungseg.approaches.vgg19_context.planes import resample
from lungseg.approaches.vgg19_context.settings import Vgg19ContextSettings
from lungseg.approaches.vgg19_context.shape import MASK_SIDE, ShapePrior, describe
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
from lungseg.storage import make_folder, read_json, write_json

BASE, SHAPE_MAPS = "base.safetensors", "shape-maps.safetensors"
RECORD, MAPS, SPENT = "stage.json", "maps.safetensors", "spent.json"


class Fitting:
    """The tables that all stages share, and the maps so far.

    Attributes:
        earlier: maps float32 N x 1 x g x g of all cases, stage by stage; the shape prior's first, if it is
            used. Those of a case to learn from are by models that never saw its group.
        choice: the pixels that the last stage learns from.
        seconds_before: spent by former sittings on the steps that they finished.
    """

    def __init__(
        self, settings: Vgg19ContextSettings, runtime: Runtime, run: Run, cases: Cases, base: BasePlanes
    ) -> None:
        """`base`: unfitted; it is fitted here, or read if a former sitting got so far."""
        self._begun = time.perf_counter()
        spent = run.checkpoints / SPENT
        self.seconds_before = read_json(spent)["seconds"] if spent.exists() else 0.0
        self.settings, self.runtime, self.run, self.cases = settings, runtime, run, cases
        self.grids = stage_grids(settings)
        self.choice = choose_pixels(cases, settings.grid, settings, run.seed, settings.contexts)
        self._fold = folds_of(cases.groups, settings.folds, run.seed)
        self._folder = run.checkpoints
        tables = self._folder / "tables"
        self.earlier = [self._shape_maps(base)] if settings.shape_prior else []
        if not BaseTables.exist(tables):
            self._extract(base, tables)
            self._note_time()
        base.read(self._folder / BASE)
        self._tables = BaseTables(tables)

    def _note_time(self) -> None:
        seconds = self.seconds_before + time.perf_counter() - self._begun
        write_json(self._folder / SPENT, {"seconds": seconds})

    def _shape_maps(self, base: BasePlanes) -> Tensor:
        """The shape prior's maps N x 1 x G x G of all cases; of one learnt from, without its own group."""
        path, learnt = self._folder / SHAPE_MAPS, self.cases.learnt
        self.run.progress(0, 1, "shape prior")
        batches = self.cases.batches()
        pictures = torch.cat([describe(self.cases.images[batch].float()) for batch in batches])
        masks = torch.cat([resample(self.cases.masks[batch].float(), MASK_SIDE) for batch in batches])
        shape = ShapePrior()
        maps = torch.empty(len(self.cases), 1, MASK_SIDE, MASK_SIDE)
        maps[learnt] = shape.fit(pictures[learnt], masks[learnt], self.cases.groups[learnt])
        maps[~learnt] = shape.of_pictures(pictures[~learnt])
        base.shape = shape.to(self.runtime.device)
        # At the last grid, since at prediction the prior travels among the planes.
        write_tensors(path, {"maps": resample(maps, self.settings.grid)})
        return load_file(path)["maps"]

    def _extract(self, base: BasePlanes, folder: Path) -> None:
        rng = np.random.default_rng([self.run.seed, 1])
        fit_projection(base, self.cases, rng)
        bins = fit_bins(base, self.cases, rng)
        write_tensors(self._folder / BASE, base.fitted())
        write_tables(
            folder, base, self.cases, self.choice, bins, self._report("features of images and copies")
        )

    def _report(self, text: str) -> Callable[[int, int], None]:
        return lambda done, total: self.run.progress(done, total, text)

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
        model = new_stage(self.settings, self.runtime)
        model.read(folder)
        if not last:
            self.earlier.append(load_file(folder / MAPS)["maps"])
        return model, read_json(folder / RECORD)

    def _fit_stage(self, index: int, folder: Path, last: bool) -> None:
        grid, seed = self.grids[index], self.run.seed
        choice = self.choice if last else choose_pixels(self.cases, grid, self.settings, seed, index)
        rows = stage_rows(self._tables, self.cases, choice, self.earlier, grid, last, seed)
        name = f"stage {index + 1} of {len(self.grids)}"
        models = self._fit_models(rows, name, last)
        model = models[-1]
        if not last:
            maps = held_out_maps(
                self._tables,
                rows,
                models,
                self._fold.numpy(),
                self.earlier,
                grid,
                self._report(f"{name}: maps"),
            )
            write_tensors(folder / MAPS, {"maps": maps})
        model.save(folder)
        write_json(folder / RECORD, judge(model, rows, self.cases))  # last: it is what makes the stage done

    def _fit_models(self, rows: StageRows, name: str, last: bool) -> dict[int, StageModel]:
        """A model without each fold, unless this is the last stage; and as -1 one of all cases."""
        # Rounds of every model of every stage would be a history that nobody can read.
        quiet = Run(self.run.seed, self._folder, lambda **_: None, lambda *_: None, self.run.score)
        held = ~self.cases.learnt.numpy()
        wanted = fold_cases(self._fold, only_all=last)
        models = {}
        for fold, chosen in wanted.items():
            self.run.progress(len(models), len(wanted), f"{name}: growing trees")
            models[fold] = new_stage(self.settings, self.runtime)
            models[fold].fit(rows.of(chosen), rows.of(held), rows.bins, quiet)
        return models
