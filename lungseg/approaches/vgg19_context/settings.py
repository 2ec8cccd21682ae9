"""Keys of the approach `vgg19-context` in a spec."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from lungseg.learning.images.augmentation import AugmentationSettings
from lungseg.learning.regressors.base import Regressor
from lungseg.learning.regressors.mlp import MlpSettings
from lungseg.learning.regressors.registry import require_known_regressor, resolve_regressor
from lungseg.learning.regressors.ridge import RidgeSettings
from lungseg.learning.vgg19.pyramid import Block, Layer, make_blocks
from lungseg.learning.weights import WeightsChoice
from lungseg.system.plugins import Settings, add_recipe


class StageBoostingSettings(Settings):
    """Keys of the gradient-boosted trees of the last stage."""

    rounds: Annotated[int, Field(ge=1, le=1_000_000)] = 2000
    """Trees."""
    leaves: Annotated[int, Field(ge=2, le=256)] = 31
    """Most leaves of a tree."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.025
    """Shrinkage of each tree."""
    min_leaf: Annotated[int, Field(ge=1, le=2**30)] = 100
    """Least rows in a leaf."""
    column_share: Annotated[float, Field(gt=0, le=1)] = 0.15
    """Share of the columns that is drawn for each tree."""
    row_share: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Share of the rows that is drawn for each tree."""


class ContextBoostingSettings(StageBoostingSettings):
    """The same keys for the stages before the last: fewer and larger trees, which find lungs in features."""

    rounds: Annotated[int, Field(ge=1, le=1_000_000)] = 300
    """Trees."""
    leaves: Annotated[int, Field(ge=2, le=256)] = 255
    """Most leaves of a tree."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.065
    """Shrinkage of each tree."""


class Vgg19ContextSettings(Settings):
    """Keys of `vgg19-context`."""

    RECIPES: ClassVar[dict[str, dict[str, Any]]] = {
        "full": {},
        "fast": {
            "size": 128,
            "scales": (128, 64, 32, 16),
            "components": 12,
            "grid": 64,
            "coarse": 32,
            "contexts": 1,
            "folds": 2,
            "copies": 2,
            "boosting": {"rounds": 120, "leaves": 63, "learning_rate": 0.08, "min_leaf": 50},
        },
    }
    recipe: Literal["full", "fast"] = "full"
    """Sets the defaults of the other keys. "fast" trains in a tenth of the time, and is less accurate."""
    weights: WeightsChoice = "auto"
    """The weights of VGG19."""
    size: Annotated[int, Field(ge=32, le=4096)] = 256
    """Images become size x size pixels, which is the largest level of the pyramid. A multiple of 16."""
    scales: tuple[int, ...] = (256, 128, 64, 32, 16)
    """Pixels a side of the pyramid's levels. Each is at least 8 and divides `size`."""
    layers: tuple[Layer, ...] = ("relu1_2", "relu2_2", "relu3_1")
    """Layers of VGG19 that are computed at each level."""
    components: Annotated[int, Field(ge=0, le=4096)] = 24
    """Principal components of each layer at each level. 0 takes all channels."""
    features: bool = True
    """Use VGG19's layers. Without them only grey values and coordinates are left."""
    grey: bool = True
    """Use the grey value and its difference from local means."""
    coordinates: bool = True
    """Use the pixel's place in the image and in the body."""
    shape_prior: bool = True
    """Begin with a kernel regression of the whole mask."""
    contexts: Annotated[int, Field(ge=0, le=8)] = 2
    """Stages before the last one. Each reads the two latest maps. The shape prior's map is the first."""
    grid: Annotated[int, Field(ge=8, le=4096)] = 128
    """Pixels a side of the last stage's map. Divides `size`."""
    coarse: Annotated[int, Field(ge=8, le=4096)] = 64
    """Pixels a side of the earlier stages' maps. Divides `grid`."""
    folds: Annotated[int, Field(ge=2, le=20)] = 3
    """Folds of patients. A training image's maps come from models that were fitted to the other folds."""
    copies: Annotated[int, Field(ge=0, le=50)] = 8
    """Changed copies of each training image to learn from."""
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
    """How the copies are changed."""
    pixels_per_image: Annotated[int, Field(ge=16, le=2**24)] = 1000
    """Pixels of each training image that a stage learns from."""
    pixels_per_copy: Annotated[int, Field(ge=16, le=2**24)] = 150
    """Pixels of each changed copy that a stage learns from."""
    # All but "lightgbm" read the ranks of a column's values. "mlp" chooses an epoch by validation pixels.
    regressor: Annotated[str, AfterValidator(require_known_regressor)] = "lightgbm"
    """The regressor: "lightgbm", "ridge", "mlp", or a class with scikit-learn's interface."""
    regressor_settings: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the constructor of such a class."""
    boosting: StageBoostingSettings = StageBoostingSettings()
    """Keys of "lightgbm" in the last stage."""
    context_boosting: ContextBoostingSettings = ContextBoostingSettings()
    """Keys of "lightgbm" in the other stages. If `boosting` is given alone, its keys count here too."""
    ridge: RidgeSettings = RidgeSettings()
    """Keys of "ridge"."""
    mlp: MlpSettings = MlpSettings()
    """Keys of "mlp"."""

    def resolve_regressor(self) -> tuple[type[Regressor], Settings]:
        """Return class and settings of a regressor other than "lightgbm". Raises InputError if unknown."""
        own = {"ridge": self.ridge, "mlp": self.mlp}
        return resolve_regressor(self.regressor, own, self.regressor_settings)

    def get_boosting(self, last: bool) -> StageBoostingSettings:
        """Return the keys of the trees of the last stage, or of the stages before it."""
        return self.boosting if last else self.context_boosting

    @property
    def stage_grids(self) -> list[int]:
        """Return the pixels a side of each stage's map, in the order of the stages."""
        return [self.coarse] * self.contexts + [self.grid]

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Return what the pyramid computes."""
        return make_blocks(self.layers, self.scales) if self.features else ()

    @model_validator(mode="before")
    @classmethod
    def _use_boosting_for_all_stages(cls, given: Any) -> Any:
        given = add_recipe(cls.RECIPES, given)
        if not isinstance(given, dict) or "boosting" not in given:
            return given
        keys = given["boosting"]
        if isinstance(keys, StageBoostingSettings):
            keys = keys.model_dump()
        return {"context_boosting": keys, **given}

    @model_validator(mode="after")
    def _check_sizes(self) -> Vgg19ContextSettings:
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
        for grid in [self.grid, self.coarse] if self.contexts else [self.grid]:
            odd = [block for block in self.blocks if not _is_multiple_either_way(block.side, grid)]
            if odd:
                raise ValueError(
                    f"the maps of {odd[0].name} have {odd[0].side} pixels a side, which must divide "
                    f"the grid's {grid} or be a multiple of it"
                )
            if self.shape_prior and (self.size % 32 or not _is_multiple_either_way(64, grid)):
                raise ValueError(
                    f"with shape_prior size {self.size} must be a multiple of 32, "
                    f"and grid {grid} divide 64 or be a multiple of it"
                )
        if not (self.blocks or self.grey or self.coordinates):
            raise ValueError("nothing is left to predict from: set features, grey or coordinates")
        return self


def _is_multiple_either_way(side: int, grid: int) -> bool:
    return side % grid == 0 or grid % side == 0
