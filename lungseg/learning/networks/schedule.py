"""How fast a network learns at each step, from which images, and of what size."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from lungseg.learning.networks.settings import TrainingSettings


def learning_rate_factor(step: int, steps: int, settings: TrainingSettings) -> float:
    """Share of the top rate after `step` of `steps`: linear warm-up, then half a cosine (Loshchilov 2017).

    Both are counted as `cost` counts, so a step at the full size is several.
    """
    if settings.schedule == "constant":
        return 1.0
    warmup = max(1, round(settings.warmup_share * steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def small_epochs(settings: TrainingSettings) -> int:
    """Epochs at `small_size`, before those at `size`, of which there is one at least."""
    if settings.small_size >= settings.size:
        return 0
    return min(round(settings.small_share * settings.epochs), settings.epochs - 1)


def working_size(epoch: int, settings: TrainingSettings) -> int:
    """Pixels a side of the images of an epoch, counted from 0, and of those that it is validated on."""
    return settings.small_size if epoch < small_epochs(settings) else settings.size


def cost(epoch: int, step: int, steps: int, settings: TrainingSettings) -> int:
    """Work up to a step of an epoch of so many, in steps of the smallest images: it goes by their pixels."""
    small = small_epochs(settings)
    if epoch < small:
        return epoch * steps + step
    factor = (settings.size / working_size(0, settings)) ** 2
    return small * steps + round(((epoch - small) * steps + step) * factor)


def batches(count: int, batch_size: int, seed: int, epoch: int) -> list[Tensor]:
    """A random order of `count` images in `batch_count` batches, whose sizes differ by one at most."""
    generator = torch.Generator().manual_seed(number_of(seed, epoch))
    order = torch.randperm(count, generator=generator)
    return list(torch.tensor_split(order, batch_count(count, batch_size)))


def batch_count(count: int, batch_size: int) -> int:
    """Batches of an epoch: as few as hold all images, but none with a single one.

    Only an odd count in batches of two can't be both, and then one batch has three.
    """
    return max(1, min(math.ceil(count / batch_size), count // 2))


def number_of(*words: int) -> int:
    """A seed of 63 bits from several numbers of at least 0, such as the seed, the epoch and the step."""
    # The count comes first: a seed sequence takes words that end in zeros for those without them.
    return int(np.random.SeedSequence((len(words), *words)).generate_state(1, np.uint64)[0] >> 1)
