"""The loss that a network is trained with."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lungseg.learning.networks.settings import TrainingSettings


def segmentation_loss(logits: Tensor, masks: Tensor, settings: TrainingSettings) -> Tensor:
    """Compute pixel cross-entropy, the soft Dice loss of images (Milletari et al. 2016), or their sum.

    `settings.loss` says which. Logits are N x 1 x H x W of any float dtype, masks float32 in [0, 1]. It is a
    float32 mean over the images of the batch. So the loss of a batch that is split into equal parts is the
    mean of the losses of the parts.
    """
    logits = logits.float()
    loss = logits.new_zeros(())
    if settings.loss != "dice":
        loss = loss + F.binary_cross_entropy_with_logits(logits, masks)
    if settings.loss != "cross-entropy":
        probability = logits.sigmoid()
        both = (probability * masks).sum((1, 2, 3))
        sizes = probability.sum((1, 2, 3)) + masks.sum((1, 2, 3))
        # One pixel is added to both, so that an image without lung also has a loss and a gradient.
        loss = loss + (1 - (2 * both + 1) / (sizes + 1)).mean()
    return loss
