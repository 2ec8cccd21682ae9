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
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lungseg.approaches import approach as protocol
from lungseg.approaches.approach import Approach, Fitted, Run, Runtime, WeightsInfo
from lungseg.approaches.postprocessing import postprocess
from lungseg.approaches.resize import to_batch
from lungseg.approaches.tensors import write_tensors
from lungseg.approaches.vgg19_context.base import BasePlanes
from lungseg.approaches.vgg19_context.cascade import Stage, run_cascade, stage_grids
from lungseg.approaches.vgg19_context.cases import Cases, folds_of, read_cases
from lungseg.approaches.vgg19_context.planes import resample
from lungseg.approaches.vgg19_context.settings import Vgg19ContextSettings
from lungseg.approaches.vgg19_context.shape import MASK_SIDE, ShapePrior, describe
from lungseg.approaches.vgg19_context.stage_models import new_stage
from lungseg.approaches.vgg19_context.tables import (
    BaseTables,
    Choice,
    choose_pixels,
    fit_bins,
    fit_projection,
    write_tables,
)
from lungseg.approaches.vgg19_context.training import (
    fit_model,
    fold_cases,
    held_out_maps,
    judge,
    stage_rows,
)
from lungseg.approaches.weights import find_weights, weights_info
from lungseg.errors import InputError
from lungseg.storage import make_folder, read_json, write_json

BASE, SHAPE_MAPS, RECORD, MAPS = (
    "base.safetensors",
    "shape-maps.safetensors",
    "stage.json",
    "maps.safetensors",
)
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

    def _new_base(self, cases: int = 0) -> BasePlanes:
        layout = torch.channels_last if self.runtime.channels_last else torch.contiguous_format
        return (
            BasePlanes(self.settings, self.runtime, cases)
            .to(self.runtime.device, memory_format=layout)
            .eval()
        )

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
        s, seed = self.settings, run.seed
        cases = read_cases(train, validation, s, seed, lambda d, t: run.progress(d, t, "reading images"))
        fine = choose_pixels(cases, s.grid, s, seed, s.contexts)
        tables, earlier = self._tables(cases, fine, run)
        fold = folds_of(cases.groups, s.folds, seed)
        sizes = [sample.mask().shape for sample in validation]
        rows_seen = 0
        for index, grid in enumerate(stage_grids(s)):
            stage, maps, record = self._stage(index, grid, cases, tables, fine, fold, earlier, sizes, run)
            self.cascade.append(stage)
            earlier += [maps] if maps is not None else []
            rows_seen += record.pop("rows")
            run.history(unit="stage", step=index + 1, **record)
        return Fitted("rows", rows_seen, sum(stage.model.parameters for stage in self.cascade))

    def _tables(self, cases: Cases, fine: Choice, run: Run) -> tuple[BaseTables, list[Tensor]]:
        """Codes of all cases and the shape prior's maps, of former sittings if they are there."""
        folder, shape_path = run.checkpoints / "tables", run.checkpoints / SHAPE_MAPS
        if not BaseTables.exist(folder) or not shape_path.exists():
            self.base = self._new_base()
            rng = np.random.default_rng([run.seed, 1])
            prior = self._fit_shape(cases) if self.settings.shape_prior else torch.zeros(0)
            fit_projection(self.base, cases, rng)
            bins = fit_bins(self.base, cases, rng)
            write_tables(
                folder,
                self.base,
                cases,
                fine,
                bins,
                lambda done, total: run.progress(done, total, "features of images and copies"),
            )
            write_tensors(run.checkpoints / BASE, self.base.fitted())
            write_tensors(shape_path, {"maps": prior})
        self._read_base(run.checkpoints / BASE)
        return BaseTables(folder), [load_file(shape_path)["maps"]] if self.settings.shape_prior else []

    @torch.inference_mode()
    def _fit_shape(self, cases: Cases) -> Tensor:
        """The shape prior's maps N x 1 x G x G of all cases; of one learnt from, without its own group."""
        grid, learnt = self.settings.grid, cases.learnt
        pictures = torch.cat([describe(cases.images[batch].float()) for batch in cases.batches()])
        masks = torch.cat([resample(cases.masks[batch].float(), MASK_SIDE) for batch in cases.batches()])
        shape = ShapePrior()
        maps = torch.empty(len(cases), 1, MASK_SIDE, MASK_SIDE)
        maps[learnt] = shape.fit(pictures[learnt], masks[learnt], cases.groups[learnt])
        maps[~learnt] = shape.of_pictures(pictures[~learnt])
        self.base.shape = shape.to(self.runtime.device)
        return resample(maps, grid)

    def _stage(
        self,
        index: int,
        grid: int,
        cases: Cases,
        tables: BaseTables,
        fine: Choice,
        fold: Tensor,
        earlier: list[Tensor],
        sizes: list[tuple[int, int]],
        run: Run,
    ) -> tuple[Stage, Tensor | None, dict[str, Any]]:
        """Fits one stage, or reads it: its model, its maps of all cases (none of the last), its record."""
        folder = run.checkpoints / f"stage-{index + 1}"
        last = index == self.settings.contexts
        model = new_stage(self.settings, self.runtime)
        if (folder / RECORD).exists():
            model.read(folder)
            maps = None if last else load_file(folder / MAPS)["maps"]
            return Stage(grid, model), maps, read_json(folder / RECORD)
        make_folder(folder, empty=True)
        choice = fine if last else choose_pixels(cases, grid, self.settings, run.seed, index)
        rows = stage_rows(tables, cases, choice, earlier, grid, last, run.seed)
        held = ~cases.learnt.numpy()
        quiet = Run(run.seed, run.checkpoints, lambda **_: None, lambda *_: None, run.score)
        models = {}
        for name, chosen in fold_cases(fold, only_all=last).items():
            run.progress(len(models), len(models) + 1, f"stage {index + 1}: growing trees")
            models[name] = fit_model(rows, chosen, held, self.settings, self.runtime, quiet)
        model, maps = models[-1], None
        if not last:
            maps = held_out_maps(
                tables,
                rows,
                models,
                fold.numpy(),
                earlier,
                grid,
                lambda done, total: run.progress(done, total, f"stage {index + 1}: maps"),
            )
            write_tensors(folder / MAPS, {"maps": maps})
            scored = self.finish(maps[torch.from_numpy(held)], sizes)
        else:
            self.cascade.append(Stage(grid, model))
            scored = self._predict_cases(cases, held, sizes)
            self.cascade.pop()
        record = {**judge(model, rows, cases), "validation_dice": run.score(scored), "rows": len(choice.case)}
        model.save(folder)
        write_json(folder / RECORD, record)
        return Stage(grid, model), maps, record

    def _predict_cases(
        self, cases: Cases, held: np.ndarray, sizes: list[tuple[int, int]]
    ) -> list[np.ndarray]:
        """Final maps of validation cases at their own sizes."""
        maps = []
        for index, size in zip(np.flatnonzero(held), sizes, strict=True):
            batch = cases.images[index : index + 1].float().to(self.runtime.device)
            for stage in self.stages():
                batch = stage.run(batch)
            maps += self.finish(batch, [size])
        return maps

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

    def save(self, directory: Path) -> None:
        write_tensors(directory / BASE, self.base.fitted())
        for index, stage in enumerate(self.cascade):
            stage.model.save(make_folder(directory / f"stage-{index + 1}"))

    def _read_base(self, path: Path) -> None:
        try:
            tensors = load_file(path)
            self.base = self._new_base(len(tensors["shape.pictures"]))
            self.base.load_state_dict({**self.base.state_dict(), **tensors})
        except (OSError, SafetensorError, KeyError, RuntimeError) as error:
            raise InputError(f"{path} is missing or damaged: fit the approach again") from error

    @classmethod
    def load(cls, directory: Path, settings: Vgg19ContextSettings, runtime: Runtime) -> Vgg19Context:
        approach = cls(settings, runtime)
        approach._read_base(directory / BASE)
        for index, grid in enumerate(stage_grids(settings)):
            model = new_stage(settings, runtime)
            model.read(directory / f"stage-{index + 1}")
            approach.cascade.append(Stage(grid, model))
        return approach
