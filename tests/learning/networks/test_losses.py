import math

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation, binary_erosion

from lungseg.learning.networks.losses import segmentation_loss
from lungseg.learning.networks.settings import TrainingSettings


def loss(logits: torch.Tensor, masks: torch.Tensor, kind: str, **values) -> float:
    return segmentation_loss(logits, masks, TrainingSettings(loss=kind, **values)).item()


def test_losses_worked_by_hand():
    logits, masks = torch.tensor([[[[0.0, 0.0]]]]), torch.tensor([[[[1.0, 0.0]]]])
    assert loss(logits, masks, "cross-entropy") == pytest.approx(math.log(2))
    assert loss(logits, masks, "dice") == pytest.approx(1 - 2 / 3)
    assert loss(logits, masks, "both") == pytest.approx(math.log(2) + 1 / 3)


def test_dice_loss_of_an_image_without_lung_falls_with_what_is_predicted():
    empty = torch.zeros(1, 1, 4, 4)
    much, little = (loss(torch.full((1, 1, 4, 4), value), empty, "dice") for value in (3.0, -3.0))
    assert much > little


def test_pixels_near_the_border_weigh_more_and_the_mean_weight_is_one():
    masks = torch.zeros(1, 1, 20, 20)
    masks[..., 5:15, 4:12] = 1
    logits = torch.randn(1, 1, 20, 20, generator=torch.Generator().manual_seed(0))
    found = loss(logits, masks, "boundary", boundary_weight=5, boundary_width=0.1)
    lung, box = masks[0, 0].numpy() > 0.5, np.ones((5, 5), bool)  # two pixels to each side
    near = binary_dilation(lung, box) & ~binary_erosion(lung, box, border_value=1)
    weights = np.where(near, 5.0, 1.0)
    probability = torch.sigmoid(logits[0, 0]).double().numpy()
    pixels = -np.where(lung, np.log(probability), np.log(1 - probability))
    dice = 1 - (2 * (probability * lung).sum() + 1) / (probability.sum() + lung.sum() + 1)
    assert found == pytest.approx((pixels * weights).sum() / weights.sum() + dice, rel=1e-5)


@pytest.mark.parametrize("kind", ["cross-entropy", "dice", "both", "boundary"])
def test_the_loss_of_a_batch_is_the_mean_of_its_images(kind):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 1, 16, 16, generator=generator)
    masks = (torch.rand(3, 1, 16, 16, generator=generator) > 0.6).float()
    each = [loss(one, mask, kind) for one, mask in zip(logits.split(1), masks.split(1), strict=True)]
    assert loss(logits, masks, kind) == pytest.approx(np.mean(each), rel=1e-5)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_mask_without_a_border_has_a_loss(value):
    masks = torch.full((1, 1, 16, 16), value)
    plain = loss(torch.zeros(1, 1, 16, 16), masks, "both")
    assert loss(torch.zeros(1, 1, 16, 16), masks, "boundary") == pytest.approx(plain)
