"""The score by which a fit chooses an epoch or a setting: Dice of maps of validation images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from lungseg.scoring.overlap import image_dice, mean_dice


class HasMask(Protocol):
    """Any object with a mask: bool, H x W."""

    def mask(self) -> np.ndarray: ...


class ValidationScore:
    """Dice of maps against the masks of samples, which are decoded when first asked for and kept as bits."""

    def __init__(self, samples: Sequence[HasMask]) -> None:
        self._samples = samples
        self._packed: dict[int, tuple[tuple[int, int], np.ndarray]] = {}

    def mean(self, maps: Iterable[np.ndarray]) -> float:
        """Return the mean Dice of an image from all maps (float, H x W), in the order of the samples."""
        return mean_dice(maps, map(self._mask, range(len(self._samples))))

    def each(self, maps: Iterable[np.ndarray], chosen: Sequence[int]) -> list[float]:
        """Return the Dice of each map (float, H x W); `chosen` has the indices of their samples."""
        return image_dice(maps, map(self._mask, chosen))

    def _mask(self, index: int) -> np.ndarray:
        if index not in self._packed:
            mask = self._samples[index].mask()
            self._packed[index] = mask.shape, np.packbits(mask)
        shape, bits = self._packed[index]
        return np.unpackbits(bits, count=shape[0] * shape[1]).view(bool).reshape(shape)
