"""Keys of `vgg19-context` in a spec."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from lungseg.learning.images.augmentation import AugmentationSettings
from lungseg.learning.regressors.mlp import MlpSettings
from lungseg.learning.regressors.ridge import RidgeSettings
from lungseg.learning.vgg19.pyramid import Block, Layer, blocks_of
from lungseg.system.plugins import Settings


class StageBoostingSettings(Settings):
    """Gradient-boosted trees of one stage.

    Attributes:
        rounds: trees.
        leaves: of a tree at most.
        learning_rate: shrinkage of a tree.
        min_leaf: rows in a leaf at least.
        column_share: share of the columns that a tree may read, drawn anew for each.
        row_share: share of the rows that a tree learns from, drawn anew for each.
    """

    rounds: Annotated[int, Field(ge=1)] = 2000
    leaves: Annotated[int, Field(ge=2, le=256)] = 31
    learning_rate: Annotated[float, Field(gt=0)] = 0.025
    min_leaf: Annotated[int, Field(ge=1)] = 100
    column_share: Annotated[float, Field(gt=0, le=1)] = 0.15
    row_share: Annotated[float, Field(gt=0, le=1)] = 0.7


class ContextBoostingSettings(StageBoostingSettings):
    """The same of a stage before the last one, whose trees are larger: it finds lungs in features."""

    rounds: Annotated[int, Field(ge=1)] = 300
    leaves: Annotated[int, Field(ge=2, le=256)] = 255
    learning_rate: Annotated[float, Field(gt=0)] = 0.065


class Vgg19ContextSettings(Settings):
    """Keys of `vgg19-context`.

    Attributes:
        weights: "imagenet", "random" or "auto" (ImageNet's if they are on this machine, else random).
        size: images are worked on at size x size pixels, the top of the pyramid.
        scales: the pyramid's levels whose features are used, in pixels; each divides `size`.
        layers: of VGG19, computed at each level.
        components: principal components that each layer at each level is reduced to; 0 keeps all channels.
        features: use the layers at all; without, only grey values and coordinates (if asked for) are left.
        grey: use the grey value and its difference from local means.
        coordinates: use the pixel's place in the image and in the body.
        shape_prior: begin with a kernel regression of the whole mask.
        contexts: stages before the last one; each reads the two latest maps (the shape prior's is the first).
        grid: pixels a side of the last stage's map. It divides `size`.
        coarse: pixels a side of the earlier stages' maps. It divides `grid`.
        folds: of patients; a training image's maps come from models fitted on the other folds.
        copies: changed copies of each training image to learn from.
        augmentation: how a copy is changed.
        pixels_per_image, pixels_per_copy: rows that a stage learns from.
        regressor: of every stage. All but "lightgbm" read the ranks of the columns' values instead of them;
            "hist-gradient-boosting" and "mlp" choose a round or an epoch by validation pixels.
        boosting: of "lightgbm" and "hist-gradient-boosting"; the latter draws no columns or rows.
        context_boosting: the same of the stages before the last one. Keys that a spec gives in `boosting`
            alone are meant for all stages.
    """

    weights: Literal["imagenet", "random", "auto"] = "auto"
    size: Annotated[int, Field(ge=32, le=4096)] = 256
    scales: tuple[int, ...] = (256, 128, 64, 32, 16)
    layers: tuple[Layer, ...] = ("relu1_2", "relu2_2", "relu3_1")
    components: Annotated[int, Field(ge=0)] = 24
    features: bool = True
    grey: bool = True
    coordinates: bool = True
    shape_prior: bool = True
    contexts: Annotated[int, Field(ge=0, le=8)] = 2
    grid: Annotated[int, Field(ge=8)] = 128
    coarse: Annotated[int, Field(ge=8)] = 64
    folds: Annotated[int, Field(ge=2, le=20)] = 3
    copies: Annotated[int, Field(ge=0, le=50)] = 8
    augmentation: AugmentationSettings = AugmentationSettings(
        rotation=8,
        scale=(0.6, 1.3),  # some pictures fill a quarter of their plate
        stretch=0.12,
        shift=0.08,
        padding="either",
        gamma=(0.67, 1.5),
        contrast=0,  # changes of grey values that `normalise` undoes
        brightness=0,
        noise=0,
    )
    pixels_per_image: Annotated[int, Field(ge=16)] = 1000
    pixels_per_copy: Annotated[int, Field(ge=16)] = 150
    regressor: Literal["lightgbm", "ridge", "hist-gradient-boosting", "mlp"] = "lightgbm"
    boosting: StageBoostingSettings = StageBoostingSettings()
    context_boosting: ContextBoostingSettings = ContextBoostingSettings()
    ridge: RidgeSettings = RidgeSettings()
    mlp: MlpSettings = MlpSettings()

    def boosting_of(self, last: bool) -> StageBoostingSettings:
        """Of the last stage, or of those before it."""
        return self.boosting if last else self.context_boosting

    @property
    def blocks(self) -> tuple[Block, ...]:
        """What the pyramid computes."""
        return blocks_of(self.layers, self.scales) if self.features else ()

    @model_validator(mode="before")
    @classmethod
    def _same_trees(cls, given: Any) -> Any:
        if not isinstance(given, dict) or "boosting" not in given:
            return given
        keys = given["boosting"]
        if isinstance(keys, StageBoostingSettings):
            keys = keys.model_dump()
        return {"context_boosting": keys, **given}

    @model_validator(mode="after")
    def _fit_together(self) -> Vgg19ContextSettings:
        if self.size % self.grid or self.grid % self.coarse:
            raise ValueError(
                f"grid {self.grid} must divide size {self.size}, and coarse {self.coarse} the grid"
            )
        if self.size % 16:
            raise ValueError(f"size {self.size} must be a multiple of 16")
        if self.features and (not self.blocks or len(set(self.scales)) < len(self.scales)):
            raise ValueError("scales and layers must name at least one map, and no scale twice")
        wrong = [scale for scale in self.scales if scale < 8 or self.size % scale]
        if wrong:
            raise ValueError(f"scale {wrong[0]} must divide size {self.size} and be at least 8")
        grids = [self.grid, self.coarse] if self.contexts else [self.grid]
        for grid in grids:
            odd = [block for block in self.blocks if not _meets(block.side, grid)]
            if odd:
                raise ValueError(
                    f"the maps of {odd[0].name} have {odd[0].side} pixels a side, which must divide "
                    f"the grid's {grid} or be a multiple of it"
                )
            if self.shape_prior and (self.size % 32 or not _meets(64, grid)):
                raise ValueError(
                    f"with shape_prior size {self.size} must be a multiple of 32, "
                    f"and grid {grid} divide 64 or be a multiple of it"
                )
        if not (self.blocks or self.grey or self.coordinates):
            raise ValueError("nothing is left to predict from: set features, grey or coordinates")
        return self


def _meets(side: int, grid: int) -> bool:
    return side % grid == 0 or grid % side == 0
