"""Validation of a network: loss, accuracy and Dice of images that it isn't trained on.

A GPU that holds the true masks counts overlaps itself, and the host reads them once at the end. Else the host
gets each map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from lungseg.learning.images.resize import resize_on_device
from lungseg.learning.networks.image_cache import RESIDENT_SHARE, Images
from lungseg.learning.networks.losses import segmentation_loss
from lungseg.learning.networks.settings import TrainingSettings

THRESHOLD = 0.5  # of the probability: pixels at or above it count as lung


class DeviceMasks:
    """True masks at their own sizes, held on a device as bits."""

    def __init__(self, masks: Iterable[np.ndarray], device: torch.device) -> None:
        """Copy masks, bool H x W of any sizes, to a device."""
        self.shapes: list[tuple[int, int]] = []
        self._bits: list[Tensor] = []
        for mask in masks:
            self.shapes.append(mask.shape)
            self._bits.append(torch.from_numpy(np.packbits(mask)).to(device))
        self._places = torch.arange(
            7, -1, -1, dtype=torch.uint8, device=device
        )  # numpy's first bit is the highest

    @staticmethod
    def fit_on(shapes: Iterable[tuple[int, int]], device: torch.device) -> bool:
        """Return whether masks H x W fit into a twentieth of a GPU's free memory; False for a CPU."""
        if device.type != "cuda":
            return False
        size = sum(height * width / 8 for height, width in shapes)
        return size <= RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]

    def count_overlap(self, index: int, probability: Tensor) -> Tensor:
        """Count pixels of a map 1 x h x w, resized to a mask's size, and of that mask.

        Returns int64 2 on the device: the lung pixels that both have, and the sum of those of each.
        """
        height, width = self.shapes[index]
        found = resize_on_device(probability[None], (height, width))[0] >= THRESHOLD
        bits = (self._bits[index][:, None] >> self._places) & 1
        truth = bits.flatten()[: height * width].view(height, width) > 0
        return torch.stack([(found & truth).sum(), found.sum() + truth.sum()])


class HostValidation:
    """Validation by maps that the host compares with the masks.

    Attributes:
        losses, accuracies: of the images whose maps were predicted, in their order.
    """

    def __init__(
        self,
        predict_logits: Callable[[Tensor], Tensor],
        held: Images,
        own: range,
        shapes: list[tuple[int, int]],
        settings: TrainingSettings,
        device: torch.device,
    ) -> None:
        """Prepare to predict the images `own` of all that are held; `shapes` are (H, W) of all masks."""
        self._predict_logits, self._held, self._own = predict_logits, held, own
        self._shapes, self._settings, self._device = shapes, settings, device
        self.losses: list[float] = []
        self.accuracies: list[float] = []

    @torch.inference_mode()
    def predict_maps(
        self, finish: Callable[[Tensor, Sequence[tuple[int, int]]], list[np.ndarray]]
    ) -> Iterator[np.ndarray]:
        """Predict each image's map; `finish` resizes the maps of a batch to their shapes.

        One batch at a time: all maps at their own sizes together could fill the memory.
        """
        for chosen in _split(self._own, self._settings.batch_size):
            images, masks = (each.to(self._device) for each in self._held.read_batch(chosen))
            logits = self._predict_logits(images)
            for logit, mask in zip(logits.split(1), masks.split(1), strict=True):
                self.losses.append(float(segmentation_loss(logit, mask, self._settings)))
                self.accuracies.append(float(((logit >= 0) == (mask >= 0.5)).float().mean()))
            yield from finish(logits.sigmoid(), self._shapes[chosen.start : chosen.stop])


@torch.inference_mode()
def validate_on_device(
    predict_logits: Callable[[Tensor], Tensor],
    held: Images,
    own: range,
    masks: DeviceMasks,
    settings: TrainingSettings,
    device: torch.device,
) -> tuple[list[float], list[float], list[float]]:
    """Compute loss, accuracy and Dice of the images `own` of all that are held; nothing waits before the end.

    Each of an image's batch gets the batch's mean loss, so that the mean over all images is what it would be
    image by image. Raises InputError if an image can't be read.
    """
    if held.fits_on(device):
        held.keep_on(device)
    rows = []
    for chosen in _split(own, settings.batch_size):
        images, truths = _read(held, chosen, device)
        logits = predict_logits(images)
        loss = segmentation_loss(logits, truths, settings).expand(len(chosen), 1)
        right = ((logits >= 0) == (truths >= 0.5)).float().mean((1, 2, 3))
        maps = logits.sigmoid()
        overlaps = [masks.count_overlap(*pair) for pair in zip(chosen, maps, strict=True)]
        rows.append(torch.cat([loss.double(), right[:, None].double(), torch.stack(overlaps).double()], 1))
    if not rows:
        return [], [], []
    losses, accuracies, shared, both = torch.cat(rows).T.tolist()
    # Two empty masks agree, as everywhere in the scores.
    return losses, accuracies, [2 * s / b if b else 1.0 for s, b in zip(shared, both, strict=True)]


def _split(own: range, batch_size: int) -> list[range]:
    return [own[start : start + batch_size] for start in range(0, len(own), batch_size)]


def _read(held: Images, chosen: range, device: torch.device) -> tuple[Tensor, Tensor]:
    if held.is_resident:
        return held.gather(torch.arange(chosen.start, chosen.stop, device=device))
    images, masks = (each.to(device) for each in held.read_batch(chosen))
    return images, masks
