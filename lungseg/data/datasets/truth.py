"""Masks without their images: enough to score masks that another program made."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import numpy as np

from lungseg.data.datasets.folder import FolderDataset
from lungseg.data.files.file_sample import FileSample
from lungseg.data.files.matching import list_image_files
from lungseg.data.sample import Inventory


@dataclass(frozen=True)
class MaskSample(FileSample):
    """A mask whose picture stands for its image."""

    def image(self) -> np.ndarray:
        """Return the mask, white on black: float32, H x W."""
        return self.mask().astype(np.float32)


class TruthDataset(FolderDataset):
    """`masks/STEM + suffix.*`, without images. Nothing can be trained on it."""

    class Settings(FolderDataset.Settings):
        """Keys in a spec: those of `folder` but for `images`."""

        images: Literal[""] = ""
        """None. The dataset "folder" has images."""
        image_suffix: Literal[""] = ""
        """None, since there are no images."""
        recursive: Literal[False] = False
        """Sub-folders aren't read."""
        resize_masks: Literal[False] = False
        """No mask is resized, since there are no images."""
        masks: str
        """Folder of the masks. A relative path is below LUNGSEG_DATA."""

    settings: Settings
    has_images = False

    def inventory(self) -> Inventory:
        """List the masks. Raises InputError as `FolderDataset.inventory`."""
        folder, suffix = self._path("masks", self.settings.masks), self.settings.suffix
        files = [path for path in list_image_files(folder) if path.stem.endswith(suffix)]
        samples = [self._sample(path.stem.removesuffix(suffix), path, (path,)) for path in files]
        masks = [MaskSample(*(getattr(each, key.name) for key in fields(each))) for each in samples]
        return Inventory(folder, masks)
