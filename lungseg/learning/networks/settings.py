"""Keys that every trained network has in a spec."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from lungseg.learning.images.augmentation import AugmentationSettings
from lungseg.system.plugins import Settings

# What a recipe has in place of the defaults below.
RECIPES: dict[str, dict[str, Any]] = {
    "gpu": {},
    "cpu": {"size": 256, "epochs": 12, "small_share": 0.67},  # eight epochs at 128 pixels, four at 256
}


class TrainingSettings(Settings):
    """The training of a network, and how it predicts.

    Attributes:
        recipe: what all other keys are where a spec doesn't give them: "gpu", or "cpu", which is smaller
            and shorter and begins with small images, for a few cores.
        size: images are trained and predicted at size x size pixels.
        weights: of the backbone: "imagenet", "random" or "auto" (ImageNet's if they are on this machine).
        epochs: passes over the training images; the epoch with the best validation Dice is kept, of those
            at `size`.
        small_share: share of the epochs, at the start, in which images have `small_size` x `small_size`
            pixels, as far as that is less than `size`; the last epoch has `size` in any case. Progressive
            resizing (Howard 2018 for ImageNet in DAWNBench, Tan and Le 2021); docs/deeplab.md has what it
            brought here.
        small_size: see `small_share`.
        batch_size: images a step at most, over all processes; an epoch is cut into batches of nearly equal
            size, so that none has a single image (batch norm over one pooled pixel has no spread).
        optimiser: "adamw", or "adam" as the original recipe had it.
        learning_rate: of the head at the top of the schedule.
        backbone_factor: the backbone's learning rate is this share of the head's.
        weight_decay: of AdamW, on weights of convolutions alone.
        warmup_share: share of all steps with a rising learning rate, then a half cosine down to 0;
            `schedule = "constant"` has neither. A step counts by the pixels of its images, so with
            `small_share` the warm-up is a larger share of the epochs than of the work.
        loss: pixel cross-entropy, soft Dice, the sum of both, or that sum with the pixels near the lungs'
            border counted `boundary_weight` times.
        boundary_weight: of pixels within `boundary_width` of a border, for the loss "boundary".
        boundary_width: share of the image's side.
        ema_decay: of the running mean of weights that is validated and kept; 0 keeps the weights themselves.
        ema_restart: the running mean starts anew from the weights at the change of size (see `small_share`):
            older weights are of a network for small images.
        freeze_norms: batch norms keep the statistics that they start with.
        augment: false trains on the images as they are.
        augmentation: strengths.
        test_time: what is averaged over at prediction: "none", or "flip", the image and its mirror image.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    recipe: Literal["gpu", "cpu"] = "gpu"
    size: Annotated[int, Field(ge=32, le=4096)] = 512
    weights: Literal["imagenet", "random", "auto"] = "auto"
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
    loss: Literal["cross-entropy", "dice", "both", "boundary"] = "both"
    boundary_weight: Annotated[float, Field(ge=1)] = 4.0
    boundary_width: Annotated[float, Field(gt=0, lt=0.5)] = 0.02
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    ema_restart: bool = False
    freeze_norms: bool = False
    augment: bool = True
    augmentation: AugmentationSettings = AugmentationSettings()
    test_time: Literal["none", "flip"] = "none"

    @model_validator(mode="before")
    @classmethod
    def _with_recipe(cls, values: Any) -> Any:
        """What is given goes before the recipe, key by key."""
        named = values.get("recipe") if isinstance(values, dict) else None
        chosen = RECIPES.get(named) if isinstance(named, str) else None
        return {**chosen, **values} if chosen else values
