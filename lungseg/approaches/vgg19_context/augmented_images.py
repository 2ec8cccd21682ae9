"""The images of a fit at the working size: training images, changed copies of them, and validation images.

They are in a memory-mapped file, so that a large dataset needs disk space and not memory.
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

from lungseg.approaches.vgg19_context.grey_planes import normalise
from lungseg.approaches.vgg19_context.settings import Vgg19ContextSettings
from lungseg.learning.images.augmentation import Augmentation
from lungseg.learning.images.resize import shrink_maps, shrink_mask, to_batch
from lungseg.learning.model_files import write_tensors
from lungseg.system.files import explain_write_error, make_folder
from lungseg.system.stored import read_sealed, seal_folder

VALIDATION = -1  # the group, and the fold, of validation images
IMAGES, REST = "images.npy", "cases.safetensors"


@dataclass(frozen=True)
class AugmentedImages:
    """N cases: training images, then their changed copies, then validation images.

    The images are normalised to [0, 1], in a memory-mapped file. A prediction reads float32 instead of
    float16, so a pixel's code there may differ by one, as if its grey value differed by up to 0.0003.
    """

    images: np.ndarray  # float16 N x 1 x S x S
    masks: Tensor  # float16 N x 1 x G x G, the share of lung
    groups: Tensor  # int64 N, a number for each training patient; -1 for validation images
    is_copy: Tensor  # bool N, whether a case is a changed copy

    def __len__(self) -> int:
        return len(self.images)

    @property
    def is_training(self) -> Tensor:
        """Return bool N: whether a case is learnt from."""
        return self.groups != VALIDATION

    def read(self, which: slice | int) -> Tensor:
        """Read one or some of the images into memory, float32 n x 1 x S x S."""
        chosen = slice(which, which + 1) if isinstance(which, int) else which
        return torch.from_numpy(self.images[chosen].astype(np.float32))

    def list_batches(self, size: int = 8) -> list[slice]:
        """List slices of at most `size` cases."""
        return [slice(start, min(start + size, len(self))) for start in range(0, len(self), size)]


def read_augmented_images(
    folder: Path,
    train: Sequence[Any],
    validation: Sequence[Any],
    settings: Vgg19ContextSettings,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> AugmentedImages:
    """Read samples and make `settings.copies` changed copies of each training image, or open what is stored.

    They are stored in the folder. The seed and an image's index in `train` determine how its copies are
    changed. `progress` is called with the samples that are done, and all. Raises InputError if an image can't
    be read, the disk is full, or the place can't be written.
    """
    if read_sealed(folder) is None:
        _write(make_folder(folder, empty=True), train, validation, settings, seed, progress)
    rest = load_file(folder / REST)
    images = np.load(folder / IMAGES, mmap_mode="r", allow_pickle=False)
    return AugmentedImages(images, rest["masks"], rest["groups"], rest["copied"].bool())


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
    groups = torch.cat([own, own.repeat_interleave(copies), torch.full((len(validation),), VALIDATION)])
    is_copy = torch.zeros(len(groups), dtype=torch.uint8)
    is_copy[len(train) : len(train) * (1 + copies)] = 1
    masks = torch.empty(len(groups), 1, grid, grid, dtype=torch.float16)
    change = Augmentation(settings.augmentation)
    images = _create_file(folder / IMAGES, (len(groups), 1, size, size))
    for index, sample in enumerate([*train, *validation]):
        image = to_batch([sample.image()], size)
        mask = torch.from_numpy(shrink_mask(sample.mask(), size))[None, None]
        in_training = index < len(train)
        place = index if in_training else index + len(train) * copies
        images[place], masks[place] = normalise(image)[0].numpy(), shrink_maps(mask, grid)[0]
        if in_training and copies:
            generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
            many = image.expand(copies, -1, -1, -1), mask.expand(copies, -1, -1, -1)
            changed, moved = change(*many, generator)
            at = slice(len(train) + index * copies, len(train) + (index + 1) * copies)
            images[at], masks[at] = normalise(changed).numpy(), shrink_maps(moved, grid).half()
        progress(index + 1, len(train) + len(validation))
    images.flush()
    write_tensors(folder / REST, {"masks": masks, "groups": groups, "copied": is_copy})
    seal_folder(folder, {})


def _create_file(path: Path, shape: tuple[int, ...]) -> np.memmap:
    try:
        images = np.lib.format.open_memmap(path, "w+", np.float16, shape)
        # Reserve the space now: if the disk is full later, writing to a mapped file kills the process.
        if hasattr(os, "posix_fallocate"):
            with open(path, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        return images
    except OSError as error:
        raise explain_write_error(path, error) from error


def assign_folds(groups: Tensor, folds: int, seed: int) -> Tensor:
    """Assign each case to a fold, int64 N: 0 to folds - 1, or -1 for validation images.

    All cases of a group are in the same fold.
    """
    count = int(groups.max()) + 1
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    fold = torch.empty(count, dtype=torch.int64)
    fold[order] = torch.arange(count) % folds
    return torch.where(groups == VALIDATION, VALIDATION, fold[groups.clamp_min(0)])
