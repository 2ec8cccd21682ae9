"""Shenzhen's 662 chest X-rays as the National Library of Medicine publishes them, with masks from elsewhere.

Images: Jaeger et al., Quant Imaging Med Surg 4(6), 2014, one a person. Masks of 566 of them: Stirenko et al.,
2018, published apart (CC BY-NC-SA 4.0).
"""

from __future__ import annotations

from pathlib import Path

from lungseg.data.datasets.clinical import compare_readings, parse_name
from lungseg.data.datasets.layout import find_layout, list_files, require_images
from lungseg.data.files.file_sample import FileSample
from lungseg.data.files.matching import match_by_stem
from lungseg.data.sample import Dataset, Inventory
from lungseg.system.errors import InputError

FOLDERS = ("ChinaSet_AllFiles", "ChinaSet_AllFiles/ChinaSet_AllFiles", ".")
MASKS = ("mask", "mask/mask")
HOW_TO_GET_MASKS = (
    "get the masks of Stirenko et al. 2018 ('Shenzhen Hospital CXR: Lung masks') by hand, and unpack them as "
    "ChinaSet_AllFiles/mask"
)
HOW_TO_GET_IT = (
    "run `lungseg data fetch shenzhen`, or unpack ChinaSet_AllFiles.zip of the National Library of Medicine "
    f"in the folder that LUNGSEG_DATA names; then {HOW_TO_GET_MASKS}"
)


class ShenzhenDataset(Dataset):
    """`CXR_png/NAME.png` with `mask/NAME_mask.png`. Images without a mask are listed and left out."""

    public = True

    def inventory(self) -> Inventory:
        """Find and match the files. Raises InputError if images or masks aren't there, and says how."""
        root = find_layout(
            "shenzhen", self.data_root, FOLDERS, _is_layout, "no 'CXR_png' with CHNCXR_*.png", HOW_TO_GET_IT
        )
        images = list_files(root / "CXR_png")
        require_images(images, root / "CXR_png", "image", "shenzhen")
        masks = next((files for each in MASKS if (files := list_files(root / each))), [])
        if not masks:
            raise InputError(
                f"{root} holds {len(images)} images of dataset shenzhen and no mask: {HOW_TO_GET_MASKS}"
            )
        found = match_by_stem(images, [masks], lambda stem: stem.removesuffix("_mask"))
        samples = []
        for stem, image, own in found.pairs:
            named = parse_name(stem, "CHNCXR")
            if named is None:
                found.ambiguous.append(f"{image} isn't named CHNCXR_0001_0 as this set is: move it away")
            else:
                samples.append(FileSample(stem, "shenzhen", *named, image, own))
        notes = compare_readings(root / "ClinicalReadings", {each.id: each.label for each in samples})
        alone = found.images_without_mask, found.masks_without_image
        return Inventory(root, samples, *alone, found.ambiguous, notes)


def _is_layout(folder: Path) -> bool:
    """Whether a folder holds this set, and not 'Chest Xray Masks and Labels', which has both hospitals."""
    files = folder / "CXR_png"
    has_masks_elsewhere = (folder / "masks").is_dir() or (folder / "ManualMask").is_dir()
    return files.is_dir() and not has_masks_elsewhere
