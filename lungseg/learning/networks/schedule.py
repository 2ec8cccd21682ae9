"""The schedule of a training: learning rate, image size and batches of each step."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from lungseg.learning.networks.settings import TrainingSettings
from lungseg.system import distributed
from lungseg.system.errors import InputError


def compute_learning_rate_factor(step: int, steps: int, settings: TrainingSettings) -> float:
    """Compute the learning rate as a share of the highest one: linear warm-up, then half a cosine.

    Cosine decay: Loshchilov and Hutter 2017. `step` and `steps`, those of the whole training, are in units of
    work (`count_work`).
    """
    if settings.schedule == "constant":
        return 1.0
    warmup = max(1, round(settings.warmup_share * steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def count_small_epochs(settings: TrainingSettings) -> int:
    """Count the epochs at `small_size`, which come first; at least one epoch has the full `size`."""
    if settings.small_size >= settings.size:
        return 0
    return min(round(settings.small_share * settings.epochs), settings.epochs - 1)


def find_working_size(epoch: int, settings: TrainingSettings) -> int:
    """Return the image size, in pixels a side, of an epoch (from 0) and of its validation."""
    return settings.small_size if epoch < count_small_epochs(settings) else settings.size


def count_work(epoch: int, step: int, steps: int, settings: TrainingSettings) -> int:
    """Count the work of whole epochs of `steps` steps each, and of `step` steps of the next one.

    A step's work is proportional to the pixels of its images; at the smallest image size it is 1.
    """
    small = count_small_epochs(settings)
    if epoch < small:
        return epoch * steps + step
    factor = (settings.size / find_working_size(0, settings)) ** 2
    return small * steps + round(((epoch - small) * steps + step) * factor)


def draw_batches(count: int, batch_size: int, seed: int, epoch: int) -> list[Tensor]:
    """Draw the batches of an epoch: a random order of int64 indices, split into nearly equal batches."""
    generator = torch.Generator().manual_seed(derive_seed(seed, epoch))
    order = torch.randperm(count, generator=generator)
    return list(torch.tensor_split(order, count_batches(count, batch_size)))


def count_batches(count: int, batch_size: int) -> int:
    """Count the batches of an epoch: as few as hold all images, and none with a single image.

    With an odd count in batches of two this is impossible; one batch then has three images.
    """
    return max(1, min(math.ceil(count / batch_size), count // 2))


def require_two_images(count: int) -> None:
    """Raise InputError if there are fewer than two training images, the smallest batch for a batch norm."""
    if count < 2:
        raise InputError(f"training a network needs two images at least, the split has {count}")


def limit_parts(parts: int, images: int, settings: TrainingSettings) -> int:
    """Return the parts, at most `parts`, into which a process may split its images of a batch.

    Batch norms that aren't frozen need two images in a part: of one, pooled to a single value, there is no
    variance. Several processes share these norms, so there one image each is enough.
    """
    least = 1 if settings.freeze_norms or distributed.world_size() > 1 else 2
    return max(1, min(parts, images // least))


def derive_seed(*numbers: int) -> int:
    """Derive a seed of 63 bits from numbers of at least 0, such as the seed, the epoch and the step."""
    # The count comes first, because a SeedSequence ignores trailing zeros.
    return int(np.random.SeedSequence((len(numbers), *numbers)).generate_state(1, np.uint64)[0] >> 1)
