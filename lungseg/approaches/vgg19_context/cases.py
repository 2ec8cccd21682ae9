"""Training images, their changed copies and their masks, at the working size.

The pictures lie in a mapped file, so that a large dataset needs disk and not memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from lungseg.approaches.vgg19_context.planes import normalise
from lungseg.approaches.vgg19_context.settings import Vgg19ContextSettings
from lungseg.learning.images.augmentation import Augmentation
from lungseg.learning.images.resize import shrink_mask, to_batch
from lungseg.learning.vgg19.pyramid import shrink
from lungseg.learning.weights import write_tensors
from lungseg.system.files import make_folder, unwritable

HELD = -1  # the group of a case that nothing is learnt from
IMAGES, REST = "images.npy", "cases.safetensors"


@dataclass(frozen=True)
class Cases:
    """Training images, then their changed copies, then validation images.

    Attributes:
        images: float16 N x 1 x S x S, normalised to [0, 1]; a mapped file. A prediction reads float32, so a
            pixel's codes may be the next ones there, as if its grey value were up to 0.0003 another.
        masks: float16 N x 1 x G x G, the share of lung.
        groups: int64 N, a number for each patient that is learnt from; -1 for one to validate on.
        copied: bool N, whether it is a changed copy.
    """

    images: np.ndarray
    masks: Tensor
    groups: Tensor
    copied: Tensor

    def __len__(self) -> int:
        return len(self.images)

    @property
    def learnt(self) -> Tensor:
        """Bool N: a case that is learnt from."""
        return self.groups != HELD

    def pictures(self, which: slice | int) -> Tensor:
        """Some of the images, float32 n x 1 x S x S in memory."""
        chosen = slice(which, which + 1) if isinstance(which, int) else which
        return torch.from_numpy(self.images[chosen].astype(np.float32))

    def batches(self, size: int = 8) -> list[slice]:
        return [slice(start, min(start + size, len(self))) for start in range(0, len(self), size)]


def read_cases(
    folder: Path,
    train: Sequence[Any],
    validation: Sequence[Any],
    settings: Vgg19ContextSettings,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Cases:
    """Reads samples and makes `settings.copies` copies of each training image, or opens what is stored.

    Args:
        folder: where images and masks are kept; what a former call stored there whole is taken as it is.
        train, validation: with `patient`, `image()` and `mask()`.
        seed: with an image's place among `train`, fixes how its copies are changed.

    Raises:
        InputError: an image can't be read, the disk is full, or the place can't be written.
    """
    if not (folder / REST).exists():
        _write(make_folder(folder), train, validation, settings, seed, progress)
    rest = load_file(folder / REST)
    images = np.load(folder / IMAGES, mmap_mode="r", allow_pickle=False)
    return Cases(images, rest["masks"], rest["groups"], rest["copied"].bool())


def _write(
    folder: Path,
    train: Sequence[Any],
    validation: Sequence[Any],
    settings: Vgg19ContextSettings,
    seed: int,
    progress: Callable[[int, int], None],
) -> None:
    size, grid, copies = settings.size, settings.grid, settings.copies
    patients = {patient: number for number, patient in enumerate(dict.fromkeys(s.patient for s in train))}
    own = torch.tensor([patients[sample.patient] for sample in train])
    groups = torch.cat([own, own.repeat_interleave(copies), torch.full((len(validation),), HELD)])
    copied = torch.zeros(len(groups), dtype=torch.uint8)
    copied[len(train) : len(train) * (1 + copies)] = 1
    masks = torch.empty(len(groups), 1, grid, grid, dtype=torch.float16)
    change = Augmentation(settings.augmentation)
    images = _new_file(folder / IMAGES, (len(groups), 1, size, size))
    for index, sample in enumerate([*train, *validation]):
        image = to_batch([sample.image()], size)
        mask = torch.from_numpy(shrink_mask(sample.mask(), size))[None, None]
        learnt = index < len(train)
        place = index if learnt else index + len(train) * copies
        images[place], masks[place] = normalise(image)[0].numpy(), shrink(mask, grid)[0]
        if learnt and copies:
            generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
            many = image.expand(copies, -1, -1, -1), mask.expand(copies, -1, -1, -1)
            changed, moved = change(*many, generator)
            at = slice(len(train) + index * copies, len(train) + (index + 1) * copies)
            images[at], masks[at] = normalise(changed).numpy(), shrink(moved, grid).half()
        progress(index + 1, len(train) + len(validation))
    images.flush()
    # Last: it is what makes the cases complete.
    write_tensors(folder / REST, {"masks": masks, "groups": groups, "copied": copied})


def _new_file(path: Path, shape: tuple[int, ...]) -> np.memmap:
    try:
        images = np.lib.format.open_memmap(path, "w+", np.float16, shape)
        # Takes the room now: a mapped file that meets a full disk later ends the process without a word.
        if hasattr(os, "posix_fallocate"):
            with open(path, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        return images
    except OSError as error:
        raise unwritable(path, error) from error


def folds_of(groups: Tensor, folds: int, seed: int) -> Tensor:
    """The fold, int64 N, of each case: 0 to folds - 1, a group in one fold; -1 for one to validate on."""
    count = int(groups.max()) + 1
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    fold = torch.empty(count, dtype=torch.int64)
    fold[order] = torch.arange(count) % folds
    return torch.where(groups == HELD, HELD, fold[groups.clamp_min(0)])
