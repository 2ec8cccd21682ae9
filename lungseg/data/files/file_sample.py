"""The sample of a dataset that lies in files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lungseg.data.files.dicom import is_dicom, read_header
from lungseg.data.files.film import is_film
from lungseg.data.files.images import read_image, read_image_size, read_mask, require_size
from lungseg.data.files.label_maps import read_labels
from lungseg.data.files.mask_sizes import resize_mask
from lungseg.data.files.raster import read_orientation, read_size
from lungseg.data.sample import Sample
from lungseg.system.errors import InputError


@dataclass(frozen=True)
class FileSample(Sample):
    """One image file and the mask files whose union is its lung field (often one file for each lung)."""

    id: str
    source: str
    patient: str
    label: str
    image_path: Path  # of a kind that `read_image` reads
    mask_paths: tuple[Path, ...]  # PNG, JPEG, TIFF, BMP or GIF, each of the image's size
    spacing: tuple[float, float] | None = None
    lung_labels: tuple[int, ...] = ()  # if any, masks are maps of labels, and these are lung
    resize_masks: bool = False  # whether masks of another size are resized to the image's

    def image(self) -> np.ndarray:
        """Read the image: float32, H x W, in [0, 1]. Raises InputError as `read_image`."""
        return read_image(self.image_path)

    def mask(self) -> np.ndarray:
        """Read the union of all masks: bool, H x W.

        Raises InputError as `read_mask`, `read_labels` and `resize_mask`.
        """
        shape = read_image_size(self.image_path)
        union = np.zeros(shape, dtype=bool)
        for path in self.mask_paths:
            union |= self._read_mask(path, shape)
        return union

    def _read_mask(self, path: Path, shape: tuple[int, int]) -> np.ndarray:
        wanted = None if self.resize_masks else shape
        if not self.lung_labels:
            mask = read_mask(path, wanted, self.image_path)
        else:
            labels = read_labels(path)
            require_size(labels, wanted, path, self.image_path)
            mask = np.isin(labels, self.lung_labels)
        return mask if mask.shape == shape else resize_mask(mask, shape, path, self.image_path)

    @property
    def caution(self) -> str | None:
        """Say that the image is turned (EXIF) and a mask isn't, where both would fit, or what DICOM says."""
        if is_dicom(self.image_path):
            found = "; ".join(read_header(self.image_path).cautions)
            return f"{found}: look at it" if found else None
        if is_film(self.image_path):
            return None
        turned = read_orientation(self.image_path)
        height, width = read_size(self.image_path)
        fits_both_ways = turned in (2, 3, 4) or (turned != 1 and height == width)
        for path in self.mask_paths if fits_both_ways else ():
            if read_orientation(path) == 1:
                return "is turned by its EXIF orientation and its mask isn't: look whether the two fit"
        return None

    def content(self) -> bytes:
        """Return the sha256 of the image's file, then those of the masks' files, 32 bytes each.

        What changes the masks, but not their files, comes after these.
        """
        reading = f"{self.lung_labels}" * bool(self.lung_labels) + "resized" * self.resize_masks
        return b"".join(_sha256(path) for path in (self.image_path, *self.mask_paths)) + reading.encode()


def _sha256(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}): check the file and its rights") from error
