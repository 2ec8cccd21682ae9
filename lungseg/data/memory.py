"""Keeps generated samples in memory: making them again for each approach costs more than reading a file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lungseg.data.sample import Sample

BUDGET_BYTES = 1 << 29


class RememberedSample(Sample):
    """A sample whose image and mask are made once.

    Attributes:
        original: what makes them.
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
                array.setflags(write=False)  # one array serves all approaches
        return self._pair

    def image(self) -> np.ndarray:
        return self._made()[0]

    def mask(self) -> np.ndarray:
        return self._made()[1]

    def content(self) -> bytes:
        return self.original.content()


def remember(samples: Sequence[Sample]) -> list[Sample]:
    """The samples, kept in memory once made; as they are if all together would take more than half a GiB."""
    if not samples:
        return []
    first = samples[0].image()
    each = first.nbytes + first.size
    return (
        [RememberedSample(sample) for sample in samples]
        if each * len(samples) <= BUDGET_BYTES
        else list(samples)
    )
