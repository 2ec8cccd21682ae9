"""Training images, their changed copies and their masks, at the working size and in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lungseg.approaches.augmentation import Augmentation
from lungseg.approaches.resize import shrink_mask, to_batch
from lungseg.approaches.vgg19_context.planes import normalise
from lungseg.approaches.vgg19_context.pyramid import shrink
from lungseg.approaches.vgg19_context.settings import Vgg19ContextSettings

HELD = -1  # the group of a case that nothing is learnt from


@dataclass(frozen=True)
class Cases:
    """Training images, then their changed copies, then validation images.

    Attributes:
        images: float16 N x 1 x S x S, normalised to [0, 1].
        masks: float16 N x 1 x G x G, the share of lung.
        groups: int64 N, the training image that a case is or was made from; -1 for one to validate on.
        copied: bool N, whether it is a changed copy.
    """

    images: Tensor
    masks: Tensor
    groups: Tensor
    copied: Tensor

    def __len__(self) -> int:
        return len(self.images)

    @property
    def learnt(self) -> Tensor:
        """Bool N: a case that is learnt from."""
        return self.groups != HELD

    def batches(self, size: int = 8) -> list[slice]:
        return [slice(start, min(start + size, len(self))) for start in range(0, len(self), size)]


def read_cases(
    train: Sequence[Any],
    validation: Sequence[Any],
    settings: Vgg19ContextSettings,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Cases:
    """Reads samples, and makes `settings.copies` copies of each training image.

    Args:
        train, validation: with `image()` and `mask()`.
        seed: with an image's place among `train`, fixes how its copies are changed.
    """
    size, grid, copies = settings.size, settings.grid, settings.copies
    own = torch.arange(len(train))
    groups = torch.cat([own, own.repeat_interleave(copies), torch.full((len(validation),), HELD)])
    images = torch.empty(len(groups), 1, size, size, dtype=torch.float16)
    masks = torch.empty(len(groups), 1, grid, grid, dtype=torch.float16)
    copied = torch.zeros(len(groups), dtype=torch.bool)
    copied[len(train) : len(train) * (1 + copies)] = True
    change = Augmentation(settings.augmentation)
    for index, sample in enumerate([*train, *validation]):
        image = to_batch([sample.image()], size)
        mask = torch.from_numpy(shrink_mask(sample.mask(), size))[None, None]
        learnt = index < len(train)
        place = index if learnt else index + len(train) * copies
        images[place], masks[place] = normalise(image)[0], shrink(mask, grid)[0]
        if learnt and copies:
            generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
            many = image.expand(copies, -1, -1, -1), mask.expand(copies, -1, -1, -1)
            changed, moved = change(*many, generator)
            at = slice(len(train) + index * copies, len(train) + (index + 1) * copies)
            images[at], masks[at] = normalise(changed).half(), shrink(moved, grid).half()
        progress(index + 1, len(train) + len(validation))
    return Cases(images, masks, groups, copied)


def folds_of(groups: Tensor, folds: int, seed: int) -> Tensor:
    """The fold, int64 N, of each case: 0 to folds - 1, a group in one fold; -1 for one to validate on."""
    count = int(groups.max()) + 1
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    fold = torch.empty(count, dtype=torch.int64)
    fold[order] = torch.arange(count) % folds
    return torch.where(groups == HELD, HELD, fold[groups.clamp_min(0)])
