import math

import numpy as np
import pytest
import torch

from lungseg.learning.networks.losses import segmentation_loss
from lungseg.learning.networks.settings import TrainingSettings


def loss(logits: torch.Tensor, masks: torch.Tensor, name: str, **values) -> float:
    return segmentation_loss(logits, masks, TrainingSettings(loss=name, **values)).item()


def test_losses_worked_by_hand():
    logits, masks = torch.tensor([[[[0.0, 0.0]]]]), torch.tensor([[[[1.0, 0.0]]]])
    assert loss(logits, masks, "cross-entropy") == pytest.approx(math.log(2))
    assert loss(logits, masks, "dice") == pytest.approx(1 - 2 / 3)
    assert loss(logits, masks, "both") == pytest.approx(math.log(2) + 1 / 3)


def test_dice_loss_of_an_image_without_lung_falls_with_what_is_predicted():
    empty = torch.zeros(1, 1, 4, 4)
    much, little = (loss(torch.full((1, 1, 4, 4), value), empty, "dice") for value in (3.0, -3.0))
    assert much > little


@pytest.mark.parametrize("name", ["cross-entropy", "dice", "both"])
def test_the_loss_of_a_batch_is_the_mean_of_its_images(name):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 1, 16, 16, generator=generator)
    masks = (torch.rand(3, 1, 16, 16, generator=generator) > 0.6).float()
    each = [loss(one, mask, name) for one, mask in zip(logits.split(1), masks.split(1), strict=True)]
    assert loss(logits, masks, name) == pytest.approx(np.mean(each), rel=1e-5)
