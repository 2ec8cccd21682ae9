"""Keep generated samples in memory, because making them again costs more than reading a file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lungseg.data.sample import Sample

BUDGET_BYTES = 1 << 29


class RememberedSample(Sample):
    """A sample whose image and mask are made once and then kept.

    Attributes:
        original: the sample that makes them.
    """

    def __init__(self, sample: Sample) -> None:
        self.original = sample
        self.id, self.source = sample.id, sample.source
        self.patient, self.label = sample.patient, sample.label
        self.spacing = sample.spacing
        self._pair: tuple[np.ndarray, np.ndarray] | None = None

    def _made(self) -> tuple[np.ndarray, np.ndarray]:
        if self._pair is None:
            self._pair = self.original.image(), self.original.mask()
            for array in self._pair:
                array.setflags(write=False)
        return self._pair

    def image(self) -> np.ndarray:
        """Return the image as `Sample.image` does; read-only, since all approaches share the array."""
        return self._made()[0]

    def mask(self) -> np.ndarray:
        """Return the mask as `Sample.mask` does; read-only likewise."""
        return self._made()[1]

    def content(self) -> bytes:
        """Return the content of the original."""
        return self.original.content()


def remember(samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples wrapped so that they stay in memory once made.

    They are returned unwrapped if all together would take more than half a GiB. All images are taken to be
    as large as the first one.

    Args:
        samples: at least one.
    """
    first = samples[0].image()
    each = first.nbytes + first.size  # a mask takes a byte a pixel
    if each * len(samples) > BUDGET_BYTES:
        return list(samples)
    return [RememberedSample(sample) for sample in samples]
