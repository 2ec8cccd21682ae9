"""Fits the stages one after another, on maps of models that never saw the image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lungseg.approaches.vgg19_context.cascade import believed
from lungseg.approaches.vgg19_context.cases import HELD, Cases
from lungseg.approaches.vgg19_context.stage_models import StageModel
from lungseg.approaches.vgg19_context.tables import BaseTables, Choice, sampled_cases, sampled_rows, spread
from lungseg.learning.regressors.base import as_rows
from lungseg.learning.trees.bins import Bins
from lungseg.learning.trees.training import CodedRows

JUDGED_ROWS = 100_000  # of the rows learnt from, that a stage's training loss is measured on


@dataclass(frozen=True)
class StageRows:
    """What one stage learns from.

    Attributes:
        tables: codes of the base planes, and of the earlier maps around each pixel if there are any.
        bins: of all columns.
        context_bins: of the latter alone.
        choice: which pixels the rows are.
    """

    tables: list[np.ndarray]
    bins: Bins
    context_bins: Bins | None
    choice: Choice

    def of(self, cases: np.ndarray) -> CodedRows:
        """The rows of some cases (bool N)."""
        return CodedRows(self.tables, self.choice.targets, cases[self.choice.case])


@torch.inference_mode()
def stage_rows(
    tables: BaseTables, cases: Cases, choice: Choice, earlier: list[Tensor], grid: int, last: bool, seed: int
) -> StageRows:
    """Codes of the chosen pixels.

    Args:
        choice: `tables.fine` holds its base codes if this is the last stage.
        earlier: maps N x 1 x g x g of all cases, by models that never saw them.
    """
    own = np.asarray(tables.fine) if last else _gather(tables.coarse, choice, grid)
    if not earlier:
        return StageRows([own], tables.bins, None, choice)
    rng = np.random.default_rng([seed, grid, len(earlier)])
    sample = [
        sampled_rows(believed([maps[index : index + 1] for maps in earlier], grid), rng)
        for index in sampled_cases(cases)
    ]
    bins = Bins.from_sample(np.concatenate(sample))
    context = np.empty((len(own), len(bins)), np.uint8)
    for index in range(len(cases)):
        planes = believed([maps[index : index + 1] for maps in earlier], grid)[0].flatten(1)
        context[choice.place(index)] = bins.encode(planes[:, torch.from_numpy(choice.pixels[index])].T)
    return StageRows([own, context], Bins.join([tables.bins, bins]), bins, choice)


def _gather(coarse: np.ndarray, choice: Choice, grid: int) -> np.ndarray:
    rows = np.empty((len(choice.case), coarse.shape[1]), np.uint8)
    for index, pixels in enumerate(choice.pixels):
        block = coarse[index * grid**2 : (index + 1) * grid**2]
        rows[choice.place(index)] = block[pixels]
    return rows


@torch.inference_mode()
def held_out_maps(
    tables: BaseTables,
    rows: StageRows,
    models: dict[int, StageModel],
    fold: np.ndarray,
    earlier: list[Tensor],
    grid: int,
    report: Callable[[int, int], None],
) -> Tensor:
    """Maps float32 N x 1 x grid x grid of all cases, each by the model that its fold names.

    Args:
        models: by fold; -1 is the model for what nothing is learnt from.
        fold: int64 N.
        earlier: maps float32 N x 1 x g x g of the stages before.
    """
    maps = torch.empty(len(fold), 1, grid, grid)
    done = 0
    for name, model in models.items():
        for index in np.flatnonzero(fold == name):
            codes = tables.coarse[index * grid**2 : (index + 1) * grid**2]
            if earlier:
                planes = believed([each[index : index + 1] for each in earlier], grid)
                codes = np.concatenate([codes, rows.context_bins.encode(as_rows(planes)).numpy()], 1)
            maps[index] = torch.from_numpy(model.of_codes(codes)).view(1, grid, grid)
            done += 1
            report(done, len(fold))
    return maps.clamp_(0, 1)


def judge(model: StageModel, rows: StageRows, cases: Cases) -> dict[str, float]:
    """Mean squared error and accuracy of pixels: of rows that were learnt from, and of held ones."""
    learnt = cases.learnt.numpy()[rows.choice.case]
    record = {}
    for side, places in (("train", np.flatnonzero(learnt)), ("validation", np.flatnonzero(~learnt))):
        places = places[spread(len(places), JUDGED_ROWS)]
        chosen = CodedRows(rows.tables, rows.choice.targets, places)
        values, targets = model.of_codes(chosen.codes(0, len(chosen))), chosen.chosen_targets()
        record[f"{side}_loss"] = float(np.mean((values - targets) ** 2))
        record[f"{side}_accuracy"] = float(np.mean((values >= 0.5) == (targets >= 0.5)))
    return record


def fold_cases(fold: Tensor, only_all: bool) -> dict[int, np.ndarray]:
    """Which cases (bool N) each model learns from: of a fold's number, all but that fold; of -1, all."""
    numbers = fold.numpy()
    names = [HELD] if only_all else [*range(int(numbers.max()) + 1), HELD]
    return {name: (numbers != name) & (numbers != HELD) for name in names}
