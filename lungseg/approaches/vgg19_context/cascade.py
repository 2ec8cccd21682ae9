"""The stages one after another: each reads the shared planes and the maps of those before it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lungseg.approaches.vgg19_context.context import (
    FRAME_NAMES,
    context_names,
    context_planes,
    frame_planes,
)
from lungseg.approaches.vgg19_context.planes import resample
from lungseg.approaches.vgg19_context.settings import Vgg19ContextSettings
from lungseg.approaches.vgg19_context.stage_models import StageModel
from lungseg.approaches.vgg19_pixels.regressors import as_rows

REMEMBERED = 2  # earlier maps that a stage reads, the latest ones


@dataclass(frozen=True)
class Stage:
    """One fitted regressor, and the pixels a side of the map that it predicts."""

    grid: int
    model: StageModel


def stage_grids(settings: Vgg19ContextSettings) -> list[int]:
    """Pixels a side of each stage's map, in their order."""
    return [settings.coarse] * settings.contexts + [settings.grid]


def believed(earlier: list[Tensor], grid: int) -> Tensor | None:
    """Planes N x C x G x G of the latest of the maps N x 1 x g x g so far; None if there are none."""
    latest = [resample(maps, grid) for maps in earlier[-REMEMBERED:]]
    if not latest:
        return None
    return torch.cat([*map(context_planes, latest), frame_planes(latest[-1])], 1)


def believed_names(earlier: list[str], grid: int) -> list[str]:
    """Names of the planes of `believed`, after maps of these names."""
    names = [f"{source}: {name}" for source in earlier[-REMEMBERED:] for name in context_names(grid)]
    return names + [f"{source}: {name}" for source in earlier[-1:] for name in FRAME_NAMES]


def predict_map(stage: Stage, planes: Tensor, earlier: list[Tensor]) -> Tensor:
    """The stage's map N x 1 x g x g in [0, 1] of planes N x P x G x G and the maps so far."""
    context = believed(earlier, stage.grid)
    own = resample(planes, stage.grid)
    columns = own if context is None else torch.cat([own, context], 1)
    values = stage.model.of_rows(as_rows(columns))
    return values.view(len(columns), 1, stage.grid, stage.grid).clamp(0, 1)


def run_cascade(stages: list[Stage], planes: Tensor, prior: Tensor | None) -> Tensor:
    """Planes N x P x G x G, and the shape prior's maps if there are any -> the last stage's N x 1 x G x G."""
    earlier = [] if prior is None else [prior]
    coarse = {stage.grid: resample(planes, stage.grid) for stage in stages}
    for stage in stages:
        earlier.append(predict_map(stage, coarse[stage.grid], earlier))
    return earlier[-1]
