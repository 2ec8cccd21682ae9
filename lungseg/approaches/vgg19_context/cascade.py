"""Prediction by the stages: each reads the image planes and the maps of the stages before it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lungseg.approaches.vgg19_context.context_planes import count_context_planes, fill_context_planes
from lungseg.approaches.vgg19_context.image_planes import SharedPlanes
from lungseg.approaches.vgg19_context.stage_models import StageModel
from lungseg.learning.regressors.base import as_rows


@dataclass(frozen=True)
class CascadeStage:
    """A fitted stage."""

    grid: int  # pixels a side of the map that it predicts
    model: StageModel


def predict_map(stage: CascadeStage, shared: SharedPlanes, earlier: list[Tensor]) -> Tensor:
    """Predict a stage's map float32 N x 1 x G x G in [0, 1]; free planes of `shared` are overwritten.

    The earlier maps N x 1 x g x g are those of the stages before, the shape prior's first.
    """
    planes = shared.planes[stage.grid]
    columns = planes[:, : shared.image_count + count_context_planes(len(earlier), stage.grid)]
    if earlier:
        fill_context_planes(columns[:, shared.image_count :], earlier)
    values = stage.model.predict_rows(as_rows(columns))
    return values.view(len(columns), 1, stage.grid, stage.grid).clamp(0, 1)


def run_cascade(stages: list[CascadeStage], shared: SharedPlanes) -> list[Tensor]:
    """Predict each stage's map N x 1 x G x G in [0, 1]; the free planes of `shared` are overwritten.

    The shape prior's map, if there is one, is the first of the list.
    """
    maps = [] if shared.prior is None else [shared.prior]
    for stage in stages:
        maps.append(predict_map(stage, shared, maps))
    return maps
