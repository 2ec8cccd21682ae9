"""The stages one after another: each reads the shared planes and the maps of those before it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lungseg.approaches.vgg19_context.context import (
    FRAME_NAMES,
    context_names,
    fill_context,
    frame_planes,
)
from lungseg.approaches.vgg19_context.separable import resample
from lungseg.approaches.vgg19_context.settings import Vgg19ContextSettings
from lungseg.approaches.vgg19_context.stage_models import StageModel
from lungseg.learning.regressors.base import as_rows

REMEMBERED = 2  # earlier maps that a stage reads, the latest ones


@dataclass(frozen=True)
class Stage:
    """One fitted regressor, and the pixels a side of the map that it predicts."""

    grid: int
    model: StageModel


def stage_grids(settings: Vgg19ContextSettings) -> list[int]:
    """Pixels a side of each stage's map, in their order."""
    return [settings.coarse] * settings.contexts + [settings.grid]


@dataclass(frozen=True)
class Shared:
    """What all stages read, computed once.

    Attributes:
        planes: by pixels a side: float32 N x (P + room) x G x G. The first P planes are known before any
            prediction; the rest is room for what earlier maps say, so that no stage copies the others.
        own: P.
        prior: the shape prior's maps N x 1 x g x g, if there are any.
    """

    planes: dict[int, Tensor]
    own: int
    prior: Tensor | None


def room(maps: int, grid: int) -> int:
    """How many planes `believed` has after so many maps."""
    count = min(maps, REMEMBERED) * len(context_names(grid))
    return count + len(FRAME_NAMES) if maps else 0


def believed(earlier: list[Tensor], grid: int) -> Tensor | None:
    """Planes N x C x G x G of the latest of the maps N x 1 x g x g so far; None if there are none."""
    if not earlier:
        return None
    out = earlier[-1].new_empty(room(len(earlier), grid), len(earlier[-1]), grid, grid).transpose(0, 1)
    _fill_believed(out, earlier)
    return out


def _fill_believed(out: Tensor, earlier: list[Tensor]) -> None:
    grid, start = out.shape[-1], 0
    latest = [resample(maps, grid) for maps in earlier[-REMEMBERED:]]
    for maps in latest:
        stop = start + len(context_names(grid))
        fill_context(out[:, start:stop], maps)
        start = stop
    out[:, start:] = frame_planes(latest[-1])


def believed_names(earlier: list[str], grid: int) -> list[str]:
    """Names of the planes of `believed`, after maps of these names."""
    names = [f"{source}: {name}" for source in earlier[-REMEMBERED:] for name in context_names(grid)]
    return names + [f"{source}: {name}" for source in earlier[-1:] for name in FRAME_NAMES]


def predict_map(stage: Stage, shared: Shared, earlier: list[Tensor]) -> Tensor:
    """The stage's map N x 1 x G x G in [0, 1], of the shared planes and the maps so far."""
    planes = shared.planes[stage.grid]
    columns = planes[:, : shared.own + room(len(earlier), stage.grid)]
    if earlier:
        _fill_believed(columns[:, shared.own :], earlier)
    values = stage.model.of_rows(as_rows(columns))
    return values.view(len(columns), 1, stage.grid, stage.grid).clamp(0, 1)


def run_cascade(stages: list[Stage], shared: Shared) -> Tensor:
    """The last stage's map N x 1 x G x G. The room behind the shared planes is written over."""
    earlier = [] if shared.prior is None else [shared.prior]
    for stage in stages:
        earlier.append(predict_map(stage, shared, earlier))
    return earlier[-1]
