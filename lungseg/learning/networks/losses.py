"""What a network is trained to make small."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lungseg.learning.networks.settings import TrainingSettings


def segmentation_loss(logits: Tensor, masks: Tensor, settings: TrainingSettings) -> Tensor:
    """Cross-entropy of pixels, soft Dice loss of images (Milletari et al. 2016), or their sum; a scalar.

    The mean over the batch's images: that of a batch cut into equal parts is the mean of the parts'.

    Args:
        logits: N x 1 x H x W, any float dtype.
        masks: float32 N x 1 x H x W in [0, 1].
        settings: `loss` and what belongs to it.
    """
    logits, kind = logits.float(), settings.loss
    loss = logits.new_zeros(())
    if kind != "dice":
        weights = _boundary_weights(masks, settings) if kind == "boundary" else None
        loss = loss + F.binary_cross_entropy_with_logits(logits, masks, weights)
    if kind != "cross-entropy":
        probability = logits.sigmoid()
        both = (probability * masks).sum((1, 2, 3))
        sizes = probability.sum((1, 2, 3)) + masks.sum((1, 2, 3))
        # One pixel is added to both so that an image without lung has a loss, and a gradient, too.
        loss = loss + (1 - (2 * both + 1) / (sizes + 1)).mean()
    return loss


def _boundary_weights(masks: Tensor, settings: TrainingSettings) -> Tensor:
    """N x 1 x H x W with a mean of 1 in each image: pixels near a border of its mask weigh more."""
    reach = max(1, round(settings.boundary_width * masks.shape[-1]))
    lung = (masks >= 0.5).float()
    window = 2 * reach + 1
    grown = F.max_pool2d(lung, window, 1, reach)
    shrunk = -F.max_pool2d(-lung, window, 1, reach)
    weights = torch.where(grown > shrunk, settings.boundary_weight, 1.0)
    return weights / weights.mean((1, 2, 3), keepdim=True)
