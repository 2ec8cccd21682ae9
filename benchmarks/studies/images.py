"""The images that scripts measure on: chest X-rays where LUNGSEG_DATA names a folder of them, or phantoms."""

from __future__ import annotations

from lungseg.data.loading import data_root, find_dataset
from lungseg.data.sample import Sample
from lungseg.data.splits import Split, SplitOptions, make_splits

REAL, PHANTOM = "cxr704", "phantom"
RULES = {REAL: "published:cxr704-ovcharenko", PHANTOM: "every-14th"}


def all_images(phantoms: int, size: int) -> tuple[str, list[Sample]]:
    """The dataset's name and its samples; without data, so many phantoms of size x size pixels.

    Raises InputError if LUNGSEG_DATA names no folder of that dataset.
    """
    root = data_root()
    if root is None:
        return PHANTOM, find_dataset(PHANTOM, {"count": phantoms, "size": size}, None).samples()
    return REAL, find_dataset(REAL, {}, root).samples()


def split_of(name: str, samples: list[Sample]) -> Split:
    """The dataset's own split of ids into training, validation and test images."""
    return make_splits(RULES[name], samples, SplitOptions())[0]
