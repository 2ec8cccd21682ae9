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
    """Keys of a network's training and prediction.

    Attributes:
        recipe: defaults of all other keys: "gpu", or "cpu" for a few cores, which is smaller and shorter and
            begins with small images.
        size: images are trained and predicted at size x size pixels.
        weights: of the backbone: "imagenet", "random" or "auto" (ImageNet's if they are on this machine).
        epochs: passes over the training images. The epoch with the best validation Dice is kept, among those
            at `size`.
        small_share: share of the epochs, at the start, in which images have `small_size` x `small_size`
            pixels, if that is less than `size`. The last epoch has `size` in any case. Progressive resizing:
            Howard 2018 (ImageNet in DAWNBench), Tan and Le 2021. Its effect here is in docs/deeplab.md.
        small_size: see `small_share`.
        batch_size: most images per step, over all processes. Batches of an epoch have nearly equal sizes, and
            none has a single image (batch norm of one pooled pixel has no variance).
        optimiser: "adamw", or "adam" as in the original recipe.
        learning_rate: highest rate of the head in the schedule.
        backbone_factor: the backbone's learning rate is this share of the head's.
        weight_decay: of AdamW, for the weights of convolutions only.
        schedule: "cosine": a warm-up, then half a cosine down to 0; or "constant".
        warmup_share: share of the training in which the learning rate rises. It is a share of the work, and a
            step's work is proportional to the pixels of its images. So with `small_share` the warm-up takes a
            larger share of the epochs.
        loss: pixel cross-entropy, soft Dice, or the sum of both.
        ema_decay: of the exponential moving average of the weights, which is validated and kept; 0 keeps the
            weights themselves.
        freeze_norms: batch norms keep the statistics that they start with.
        augment: false trains on the images as they are.
        augmentation: strengths of the changes.
        test_time: "flip" averages the predictions of the image and of its mirror image; "none" doesn't.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    recipe: Literal["gpu", "cpu"] = "gpu"
    size: Annotated[int, Field(ge=32, le=4096)] = 512
    weights: WeightsChoice = "auto"
    epochs: Annotated[int, Field(ge=1)] = 60
    small_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    small_size: Annotated[int, Field(ge=32, le=4096)] = 128
    batch_size: Annotated[int, Field(ge=2)] = 8
    optimiser: Literal["adamw", "adam"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    backbone_factor: Annotated[float, Field(ge=0)] = 0.3
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    loss: Literal["cross-entropy", "dice", "both"] = "both"
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    freeze_norms: bool = False
    augment: bool = True
    augmentation: AugmentationSettings = AugmentationSettings()
    test_time: Literal["none", "flip"] = "none"

    @model_validator(mode="before")
    @classmethod
    def _add_recipe(cls, values: Any) -> Any:
        """Add the recipe's values of the keys that are not given."""
        named = values.get("recipe") if isinstance(values, dict) else None
        chosen = RECIPES.get(named) if isinstance(named, str) else None
        return {**chosen, **values} if chosen else values
