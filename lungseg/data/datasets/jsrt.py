"""JSRT's 247 chest X-rays as they were published, with the masks of SCR.

Images: Shiraishi et al., AJR 174, 2000, one a person: `.IMG` files without header, 2048 x 2048 samples of 16
bits (big-endian, 12 of them used) with a spacing of 0.175 mm. They hold optical densities, so dense is dark,
and are turned over when they are read. Masks: van Ginneken et al., Medical Image Analysis 10, 2006, one GIF
for each lung, drawn at 1024 x 1024. So that the truth stays as drawn, images are halved (the mean of 2 x 2)
and have a spacing of 0.35 mm.
"""

from __future__ import annotations

import re
from pathlib import Path

from lungseg.data.datasets.layout import find_layout, list_files
from lungseg.data.files.file_sample import FileSample
from lungseg.data.files.film import SPACING, SUFFIX
from lungseg.data.files.matching import match_by_stem
from lungseg.data.sample import Dataset, Inventory
from lungseg.system.errors import InputError

FOLDERS = ("JSRT", ".")
IMAGES = (".", "All247images", "Nodule154images", "NonNodule93images")
MASKS = (".", "scratch", "SCR")
LABELS = {"L": "nodule", "N": "no nodule"}
HOW_TO_GET_IT = (
    "get the .IMG files from the Japanese Society of Radiological Technology (db.jsrt.or.jp) and the masks "
    "of the SCR database (fold1 and fold2), and put both in a folder JSRT of the one that LUNGSEG_DATA names"
)

_NAME = re.compile(r"JPC([LN])N\d{3}")


class JsrtDataset(Dataset):
    """`NAME.IMG` with `fold1` or `fold2` `/masks/left lung/NAME.gif` and `/masks/right lung/NAME.gif`."""

    public = True

    def inventory(self) -> Inventory:
        """Find and match the files. Raises InputError if images or masks aren't there, and says how."""
        root = find_layout(
            "jsrt",
            self.data_root,
            FOLDERS,
            lambda folder: bool(_list_images(folder)),
            "no .IMG file",
            HOW_TO_GET_IT,
        )
        images = _list_images(root)
        sides = [_list_masks(root, side) for side in ("left lung", "right lung")]
        if not all(sides):
            raise InputError(
                f"{root} holds {len(images)} .IMG files of dataset jsrt and no 'fold1/masks/left lung' and "
                "'right lung' with GIF files: get the masks of the SCR database and put fold1 and fold2 there"
            )
        found = match_by_stem(images, sides, lambda stem: stem)
        samples = []
        for stem, image, masks in found.pairs:
            named = _NAME.fullmatch(stem)
            if named is None:
                found.ambiguous.append(
                    f"{image} isn't named JPCLN001 or JPCNN001 as this set is: move it away"
                )
            else:
                samples.append(
                    FileSample(stem, "jsrt", stem, LABELS[named[1]], image, masks, (SPACING, SPACING))
                )
        alone = found.images_without_mask, found.masks_without_image
        return Inventory(root, samples, *alone, found.ambiguous)


def _list_images(root: Path) -> list[Path]:
    """The images of a folder, or else of the first folder in it as the archives unpack."""
    lists = [list_files(root / folder, (SUFFIX,)) for folder in IMAGES]
    whole = lists[0] or lists[1]
    return whole or [path for files in lists[2:] for path in files]


def _list_masks(root: Path, side: str) -> list[Path]:
    """The masks of one side in both folds, where the archive was unpacked."""
    lists = ([root / place / fold / "masks" / side for fold in ("fold1", "fold2")] for place in MASKS)
    found = ([path for folder in folders for path in list_files(folder, (".gif",))] for folders in lists)
    return next((files for files in found if files), [])
