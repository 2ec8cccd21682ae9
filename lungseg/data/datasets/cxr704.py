"""704 frontal chest X-rays with lung masks: Montgomery County and Shenzhen, one image a patient.

The public set 'Chest Xray Masks and Labels': the images of Jaeger et al., Quant Imaging Med Surg 4(6), 2014,
and masks of the National Library of Medicine and of Stirenko et al., 2018. It has some 100 further images
without a mask, which are left out.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from lungseg.data.files.file_sample import FileSample
from lungseg.data.files.matching import list_image_files, match_by_stem
from lungseg.data.sample import Dataset, Inventory
from lungseg.system.errors import InputError
from lungseg.system.plugins import Settings

FOLDERS = ("LungSegmentation", "Lung Segmentation", ".")  # as unpacked, or LUNGSEG_DATA is that folder itself
SOURCES = {"MCUCXR": "montgomery", "CHNCXR": "shenzhen"}
LABELS = {"0": "normal", "1": "tuberculosis"}

_NAME = re.compile(r"(MCUCXR|CHNCXR)_\d+_([01])")
_HOW_TO_GET_IT = (
    "get the public set 'Chest Xray Masks and Labels', unpack it, "
    "and set LUNGSEG_DATA to the folder that holds 'Lung Segmentation'"
)


class Cxr704Dataset(Dataset):
    """`CXR_png/NAME.png` with `masks/NAME.png` or `masks/NAME_mask.png`.

    The name gives the source and the label (`MCUCXR_0001_0`: Montgomery, normal), and is also the patient.
    """

    class Settings(Settings):
        """Keys in a spec."""

        sources: list[Literal["montgomery", "shenzhen"]] | None = None
        """The hospitals to take. Without it both are taken."""

    public = True
    settings: Settings

    def inventory(self) -> Inventory:
        """Find and match the files. Raises InputError if the set isn't there, and says how to get it."""
        root = self._root()
        masks, images = list_image_files(root / "masks"), list_image_files(root / "CXR_png")
        found = match_by_stem(images, [masks], lambda stem: stem.removesuffix("_mask"))
        samples = []
        for stem, image, own in found.pairs:
            parts = _NAME.fullmatch(stem)
            if parts is None:
                found.ambiguous.append(
                    f"{image} isn't named MCUCXR_0001_0 or CHNCXR_0001_0 as this set is: "
                    "move it away, or use the dataset 'folder'"
                )
            elif self._wanted(stem):
                source, label = SOURCES[parts[1]], LABELS[parts[2]]
                samples.append(FileSample(stem, source, stem, label, image, own))
        return Inventory(
            root,
            samples,
            [name for name in found.images_without_mask if self._wanted(name)],
            [name for name in found.masks_without_image if self._wanted(name)],
            found.ambiguous,
        )

    def _wanted(self, name: str) -> bool:
        return self.settings.sources is None or SOURCES.get(name.split("_")[0]) in self.settings.sources

    def _root(self) -> Path:
        if self.data_root is None:
            raise InputError(f"dataset cxr704 needs LUNGSEG_DATA, which isn't set: {_HOW_TO_GET_IT}")
        for folder in FOLDERS:
            root = self.data_root / folder
            if (root / "CXR_png").is_dir() and (root / "masks").is_dir():
                return root
        raise InputError(
            f"{self.data_root} holds no 'CXR_png' and 'masks' of dataset cxr704: {_HOW_TO_GET_IT}"
        )
