"""Keys in a spec that all trained networks have."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from lungseg.learning.images.augmentation import AugmentationSettings
from lungseg.learning.weights import WeightsChoice
from lungseg.system.plugins import Settings

# A recipe's values in place of the defaults below.
RECIPES: dict[str, dict[str, Any]] = {
    "gpu": {},
    "cpu": {"size": 256, "epochs": 12, "small_share": 0.67},  # eight epochs at 128 pixels, four at 256
}


class TrainingSettings(Settings):
    """Keys of a network's training and prediction."""

    model_config = ConfigDict(allow_inf_nan=False)

    # Defaults of all other keys. "cpu" is for a few cores: smaller, shorter, and begins with small images.
    recipe: Literal["gpu", "cpu"] = "gpu"
    size: Annotated[int, Field(ge=32, le=4096)] = 512  # trained and predicted at size x size pixels
    weights: WeightsChoice = "auto"  # of the backbone; "auto": ImageNet's if they are here, else random
    # Passes over the training images. Of those at `size`, the one with the best validation Dice is kept.
    epochs: Annotated[int, Field(ge=1, le=100_000)] = 60
    # Share of the epochs, at the start, in which images have `small_size` x `small_size` pixels, if that is
    # less than `size`. The last epoch has `size` in any case. Progressive resizing: Howard 2018 (ImageNet in
    # DAWNBench), Tan and Le 2021. Its effect here is in docs/deeplab.md.
    small_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    small_size: Annotated[int, Field(ge=32, le=4096)] = 128
    # Most images per step, over all processes. Batches of an epoch have nearly equal sizes, and none has a
    # single image (batch norm of one pooled pixel has no variance).
    batch_size: Annotated[int, Field(ge=2, le=4096)] = 8
    optimiser: Literal["adamw", "adam"] = "adamw"  # "adam" as in the original recipe
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3  # highest rate of the head in the schedule
    backbone_factor: Annotated[float, Field(ge=0)] = 0.3  # the backbone's rate is this share of the head's
    weight_decay: Annotated[float, Field(ge=0)] = 0.01  # of AdamW, for the weights of convolutions only
    schedule: Literal["cosine", "constant"] = "cosine"  # "cosine": a warm-up, then half a cosine down to 0
    # Share of the work in which the learning rate rises. A step's work is proportional to the pixels of its
    # images, so with `small_share` the warm-up takes a larger share of the epochs.
    warmup_share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    loss: Literal["cross-entropy", "dice", "both"] = "both"  # of pixels, soft Dice, or the sum of both
    # Of the exponential moving average of the weights, which is validated and kept; 0: no average.
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    freeze_norms: bool = False  # batch norms keep the statistics that they start with
    augment: bool = True  # false trains on the images as they are
    augmentation: AugmentationSettings = AugmentationSettings()
    test_time: Literal["none", "flip"] = "none"  # "flip": the mean with the prediction of the mirror image

    @model_validator(mode="before")
    @classmethod
    def _add_recipe(cls, values: Any) -> Any:
        """Add the recipe's values of the keys that are not given."""
        named = values.get("recipe") if isinstance(values, dict) else None
        chosen = RECIPES.get(named) if isinstance(named, str) else None
        return {**chosen, **values} if chosen else values
