"""The COVID-19 Radiography Database: 21,165 chest X-rays of four classes with lung masks.

Chowdhury et al., IEEE Access 8, 2020; Rahman et al., Comput Biol Med 132, 2021. Images have 299 x 299 pixels
and masks 256 x 256, resized to the image by the nearest pixel; a network drew them and people
corrected them.
"""

from __future__ import annotations

from lungseg.data.datasets.layout import COVID_CLASSES, find_layout, list_files, require_images
from lungseg.data.files.file_sample import FileSample
from lungseg.data.files.matching import match_by_stem
from lungseg.data.sample import Dataset, Inventory

FOLDERS = ("COVID-19_Radiography_Dataset", "COVID-19_Radiography_Dataset/COVID-19_Radiography_Dataset", ".")
HOW_TO_GET_IT = (
    "get 'COVID-19 Radiography Database' from Kaggle (it wants an account), and unpack it in the folder that "
    "LUNGSEG_DATA names"
)


class Covid19RadiographyDataset(Dataset):
    """`CLASS/images/NAME.png` with `CLASS/masks/NAME.png`. The label is the class."""

    public = True

    def inventory(self) -> Inventory:
        """Find and match the files. Raises InputError if the set isn't there, and says how to get it."""
        root = find_layout(
            "covid19-radiography",
            self.data_root,
            FOLDERS,
            lambda folder: any((folder / name / "images").is_dir() for name in COVID_CLASSES),
            "no 'COVID/images'",
            HOW_TO_GET_IT,
        )
        inventory = Inventory(root, [])
        for name in (each for each in COVID_CLASSES if (root / each / "images").is_dir()):
            images = list_files(root / name / "images")
            require_images(images, root / name / "images", "image", "covid19-radiography")
            masks = list_files(root / name / "masks")
            found = match_by_stem(images, [masks], lambda stem: stem)
            inventory.samples.extend(
                FileSample(stem, "covid19-radiography", stem, name, image, own, resize_masks=True)
                for stem, image, own in found.pairs
            )
            inventory.images_without_mask.extend(found.images_without_mask)
            inventory.masks_without_image.extend(found.masks_without_image)
            inventory.ambiguous.extend(found.ambiguous)
        if missing := [each for each in COVID_CLASSES if not (root / each / "images").is_dir()]:
            inventory.notes.append(f"the classes {', '.join(missing)} aren't there: unpack the whole set")
        inventory.notes.append("the set doesn't say who its patients are: each image counts as one")
        return inventory
