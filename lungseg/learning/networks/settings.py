"""Keys in a spec that all trained networks have."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from lungseg.learning.images.augmentation import AugmentationSettings
from lungseg.learning.weights import WeightsChoice
from lungseg.system.plugins import Settings, add_recipe


class TrainingSettings(Settings):
    """Keys of a network's training and prediction."""

    RECIPES: ClassVar[dict[str, dict[str, Any]]] = {
        "gpu": {},
        "cpu": {"size": 256, "epochs": 12, "small_share": 0.67},  # eight epochs at 128 pixels, four at 256
    }
    recipe: Literal["gpu", "cpu"] = "gpu"
    """Sets the defaults of the other keys. "cpu" is for a few cores: smaller and shorter."""
    size: Annotated[int, Field(ge=32, le=4096)] = 512
    """Images become size x size pixels, in training and in prediction."""
    weights: WeightsChoice = "auto"
    """What the backbone starts from."""
    epochs: Annotated[int, Field(ge=1, le=100_000)] = 60
    """Passes over the training images. The one at full `size` with the best validation Dice is kept."""
    # Progressive resizing: Howard 2018 (ImageNet in DAWNBench), Tan and Le 2021. Its effect here is in
    # docs/deeplab.md.
    small_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the epochs, at the start, with images of `small_size`. The last epoch always has `size`."""
    small_size: Annotated[int, Field(ge=32, le=4096)] = 128
    """Side of the small images in pixels."""
    # None has a single image: batch norm of one pooled pixel has no variance.
    batch_size: Annotated[int, Field(ge=2, le=4096)] = 8
    """Most images a step, over all processes. All batches of an epoch have nearly this size."""
    optimiser: Literal["adamw", "adam"] = "adamw"
    """The optimiser. "adam" is that of the original recipe."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """The highest rate of the head."""
    backbone_factor: Annotated[float, Field(ge=0)] = 0.3
    """The backbone's rate is this share of the head's."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Of AdamW, for the weights of convolutions only."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """How the rate changes. "cosine" is a warm-up, then half a cosine down to 0."""
    # A step's work is proportional to its pixels, so with `small_share` the warm-up takes more epochs.
    warmup_share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the work in which the rate rises."""
    loss: Literal["cross-entropy", "dice", "both"] = "both"
    """The cross-entropy of pixels, soft Dice, or the sum of both."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Of the exponential moving average of the weights, which is validated and kept. 0 takes no average."""
    freeze_norms: bool = False
    """Batch norms keep the statistics that they start with."""
    augment: bool = True
    """False trains on the images as they are."""
    augmentation: AugmentationSettings = AugmentationSettings()
    """How training images are changed."""
    test_time: Literal["none", "flip"] = "none"
    """How to predict. "flip" takes the mean with the prediction of the mirror image."""

    @model_validator(mode="before")
    @classmethod
    def _add_recipe(cls, values: Any) -> Any:
        """Add the recipe's values of the keys that are not given."""
        return add_recipe(cls.RECIPES, values)
