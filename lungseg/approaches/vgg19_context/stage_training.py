"""What a stage learns from, and its maps for the next stage, by models that never saw the image.

Such maps are called out-of-fold: training cases are split into folds by patient, and the map of a case is
predicted by the model that was fitted to all folds but the case's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lungseg.approaches.vgg19_context.augmented_images import VALIDATION, AugmentedImages
from lungseg.approaches.vgg19_context.code_tables import (
    CodeTables,
    PixelChoice,
    choose_sample_cases,
    sample_rows,
    space_evenly,
)
from lungseg.approaches.vgg19_context.context_planes import compute_context_planes
from lungseg.approaches.vgg19_context.stage_models import StageModel
from lungseg.learning.regressors.base import as_rows
from lungseg.learning.trees.bins import Bins
from lungseg.learning.trees.training import CodedRows

MEASURED_ROWS = 100_000  # most rows that a stage's losses are measured on


@dataclass(frozen=True)
class StageRows:
    """The rows of all cases for one stage."""

    tables: list[np.ndarray]  # codes of the image planes; and of the context planes, if there are any
    bins: Bins  # of all columns
    context_bins: Bins | None  # of the context planes alone
    choice: PixelChoice  # which pixels the rows are

    def select(self, cases: np.ndarray) -> CodedRows:
        """Return the rows of some cases (bool N)."""
        return CodedRows(self.tables, self.choice.targets, cases[self.choice.case])


@torch.inference_mode()
def make_stage_rows(
    tables: CodeTables,
    cases: AugmentedImages,
    choice: PixelChoice,
    earlier: list[Tensor],
    grid: int,
    last: bool,
    seed: int,
) -> StageRows:
    """Make the codes of the chosen pixels, which are those of `tables.fine` if this is the last stage.

    `earlier` are the out-of-fold maps N x 1 x g x g of the stages before. Seed, grid and their number
    determine the sample that bins are found from.
    """
    own = np.asarray(tables.fine) if last else _gather(tables.coarse, choice, grid)
    if not earlier:
        return StageRows([own], tables.bins, None, choice)
    rng = np.random.default_rng([seed, grid, len(earlier)])
    sampled = (_compute_context(earlier, index, grid) for index in choose_sample_cases(cases))
    bins = Bins.from_sample(np.concatenate([sample_rows(planes, rng) for planes in sampled]))
    context = np.empty((len(own), len(bins)), np.uint8)
    for index in range(len(cases)):
        planes = _compute_context(earlier, index, grid)[0].flatten(1)
        context[choice.find_rows(index)] = bins.encode(planes[:, torch.from_numpy(choice.pixels[index])].T)
    return StageRows([own, context], Bins.join([tables.bins, bins]), bins, choice)


def _compute_context(earlier: list[Tensor], case: int, grid: int) -> Tensor:
    return compute_context_planes([maps[case : case + 1] for maps in earlier], grid)


def _gather(coarse: np.ndarray, choice: PixelChoice, grid: int) -> np.ndarray:
    rows = np.empty((len(choice.case), coarse.shape[1]), np.uint8)
    for index, pixels in enumerate(choice.pixels):
        block = coarse[index * grid**2 : (index + 1) * grid**2]
        rows[choice.find_rows(index)] = block[pixels]
    return rows


def choose_training_cases(fold: Tensor, only_all: bool) -> dict[int, np.ndarray]:
    """Choose the cases that each model learns from, as bool N by fold.

    A fold's model learns from all training cases but its own, the model at -1 from all. `fold` is int64 N; -1
    stands for validation images. `only_all` leaves out the models of the folds, because nothing reads the
    last stage's out-of-fold maps.
    """
    numbers = fold.numpy()
    folds = [VALIDATION] if only_all else [*range(int(numbers.max()) + 1), VALIDATION]
    return {each: (numbers != each) & (numbers != VALIDATION) for each in folds}


@torch.inference_mode()
def predict_out_of_fold(
    tables: CodeTables,
    rows: StageRows,
    models: dict[int, StageModel],
    fold: np.ndarray,
    earlier: list[Tensor],
    grid: int,
    report: Callable[[int, int], None],
) -> Tensor:
    """Predict the maps float32 N x 1 x grid x grid in [0, 1] of all cases, each by the model of its fold.

    `models` are by fold; the one at -1 is for validation images. `earlier` are the out-of-fold maps of the
    stages before. `report` is called with the cases that are done, and all.
    """
    maps = torch.empty(len(fold), 1, grid, grid)
    done = 0
    for number, model in models.items():
        for index in np.flatnonzero(fold == number):
            codes = tables.coarse[index * grid**2 : (index + 1) * grid**2]
            if earlier:
                planes = _compute_context(earlier, index, grid)
                codes = np.concatenate([codes, rows.context_bins.encode(as_rows(planes)).numpy()], 1)
            maps[index] = torch.from_numpy(model.predict_codes(codes)).view(1, grid, grid)
            done += 1
            report(done, len(fold))
    return maps.clamp_(0, 1)


def measure_losses(model: StageModel, rows: StageRows, cases: AugmentedImages) -> dict[str, float]:
    """Measure mean squared error and pixel accuracy, on rows of training and of validation images.

    The names are train_loss, train_accuracy, validation_loss and validation_accuracy.
    """
    in_training = cases.is_training.numpy()[rows.choice.case]
    record = {}
    for side, own in (("train", in_training), ("validation", ~in_training)):
        places = np.flatnonzero(own)
        places = places[space_evenly(len(places), MEASURED_ROWS)]
        chosen = CodedRows(rows.tables, rows.choice.targets, places)
        values, targets = model.predict_codes(chosen.read_codes(0, len(chosen))), chosen.read_targets()
        record[f"{side}_loss"] = float(np.mean((values - targets) ** 2))
        record[f"{side}_accuracy"] = float(np.mean((values >= 0.5) == (targets >= 0.5)))
    return record
