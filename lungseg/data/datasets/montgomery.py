"""Montgomery County's 138 chest X-rays as the National Library of Medicine publishes them.

Jaeger et al., Quant Imaging Med Surg 4(6), 2014. One image a person; a mask for each lung.
"""

from __future__ import annotations

from pathlib import Path

from lungseg.data.datasets.clinical import compare_readings, parse_name
from lungseg.data.datasets.layout import find_layout, list_files, require_images
from lungseg.data.files.file_sample import FileSample
from lungseg.data.files.matching import match_by_stem
from lungseg.data.files.raster import read_size
from lungseg.data.sample import Dataset, Inventory
from lungseg.system.errors import InputError

FOLDERS = ("MontgomerySet", "NLM-MontgomeryCXRSet/MontgomerySet", ".")
HOW_TO_GET_IT = (
    "run `lungseg data fetch montgomery`, or unpack NLM-MontgomeryCXRSet.zip of the National Library of "
    "Medicine in the folder that LUNGSEG_DATA names"
)
ORIGINAL_SIZE = {4020, 4892}  # pixels, either way up
ORIGINAL_SPACING = 0.0875  # mm


class MontgomeryDataset(Dataset):
    """`CXR_png/NAME.png` with `ManualMask/leftMask/NAME.png` and `ManualMask/rightMask/NAME.png`."""

    public = True

    def inventory(self) -> Inventory:
        """Find and match the files. Raises InputError if the set isn't there, and says how to get it."""
        root = find_layout(
            "montgomery",
            self.data_root,
            FOLDERS,
            lambda folder: (folder / "CXR_png").is_dir() and (folder / "ManualMask").is_dir(),
            "no 'CXR_png' and 'ManualMask'",
            HOW_TO_GET_IT,
        )
        images = list_files(root / "CXR_png")
        require_images(images, root / "CXR_png", "image", "montgomery")
        sides = [list_files(root / "ManualMask" / side) for side in ("leftMask", "rightMask")]
        found = match_by_stem(images, sides, lambda stem: stem)
        samples = []
        for stem, image, masks in found.pairs:
            named = parse_name(stem, "MCUCXR")
            if named is None:
                found.ambiguous.append(f"{image} isn't named MCUCXR_0001_0 as this set is: move it away")
            else:
                samples.append(FileSample(stem, "montgomery", *named, image, masks, _find_spacing(image)))
        notes = compare_readings(root / "ClinicalReadings", {each.id: each.label for each in samples})
        alone = found.images_without_mask, found.masks_without_image
        return Inventory(root, samples, *alone, found.ambiguous, notes)


def _find_spacing(image: Path) -> tuple[float, float] | None:
    """The distance of pixels that the set's README states, if an image still has its original size."""
    try:
        original = set(read_size(image)) == ORIGINAL_SIZE
    except InputError:  # a damaged file, which is named where images are read
        return None
    return (ORIGINAL_SPACING, ORIGINAL_SPACING) if original else None
