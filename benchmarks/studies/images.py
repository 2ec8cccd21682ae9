"""The images that scripts measure on: chest X-rays in the folder LUNGSEG_DATA, or without it phantoms."""

from __future__ import annotations

from lungseg.data.loading import find_data_root, find_dataset
from lungseg.data.sample import Sample
from lungseg.data.splits import Split, SplitOptions, make_splits

REAL, PHANTOM = "cxr704", "phantom"
RULES = {REAL: "published:cxr704-ovcharenko", PHANTOM: "every-14th"}


def find_images(phantoms: int, size: int) -> tuple[str, list[Sample]]:
    """Return the dataset's name and its samples; without data, so many phantoms of size x size pixels.

    Raises:
        InputError: LUNGSEG_DATA names no folder of that dataset.
    """
    root = find_data_root()
    if root is None:
        return PHANTOM, find_dataset(PHANTOM, {"count": phantoms, "size": size}, None).samples()
    return REAL, find_dataset(REAL, {}, root).samples()


def make_split(name: str, samples: list[Sample]) -> Split:
    """Return the dataset's own split of ids into training, validation and test images."""
    return make_splits(RULES[name], samples, SplitOptions())[0]
