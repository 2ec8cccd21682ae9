"""Keep generated samples in memory, because making them again costs more than reading a file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from lungseg.data.sample import Sample

BUDGET_BYTES = 1 << 29


class RememberedSample(Sample):
    """A sample whose image and mask are made once, by the `original` sample, and then kept."""

    def __init__(self, sample: Sample) -> None:
        self.original = sample
        self.id, self.source, self.patient = sample.id, sample.source, sample.patient
        self.label, self.spacing = sample.label, sample.spacing

    @cached_property
    def _pair(self) -> tuple[np.ndarray, np.ndarray]:
        pair = self.original.image(), self.original.mask()
        for array in pair:
            array.setflags(write=False)
        return pair

    def image(self) -> np.ndarray:
        """Return the image as `Sample.image` does; read-only, since all approaches share the array."""
        return self._pair[0]

    def mask(self) -> np.ndarray:
        """Return the mask as `Sample.mask` does; read-only likewise."""
        return self._pair[1]

    def content(self) -> bytes:
        """Return the content of the original."""
        return self.original.content()


def remember(samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples (at least one) wrapped so that they stay in memory once made.

    They are returned unwrapped if all together, each as large as the first, would take more than half a GiB.
    """
    first = samples[0].image()
    each = first.nbytes + first.size  # a mask takes a byte a pixel
    fits = each * len(samples) <= BUDGET_BYTES
    return [RememberedSample(sample) if fits else sample for sample in samples]
