"""Any folder of X-rays with a folder of masks that match by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from lungseg.data.files.files import FileSample, image_files, match
from lungseg.data.sample import Dataset, Inventory
from lungseg.system.errors import InputError

Millimetres = Annotated[float, Field(gt=0, le=100)]


class FolderDataset(Dataset):
    """`images/STEM.*` with `masks/STEM + suffix.*`; files of other kinds and folders inside are left out."""

    class Settings(BaseModel):
        """What the folders are and what their names say.

        images: folder of images, absolute or relative to LUNGSEG_DATA.
        masks: folder of masks, likewise; or several: an image needs a mask in each and gets their union.
        suffix: a mask's stem is its image's stem and this.
        source: the hospital or collection of all of them.
        patient_pattern: regular expression with one group, searched for in an image's stem: the group is the
            patient. By default each image is a patient of its own.
        spacing_mm: distance of pixels in mm, or (vertical, horizontal), of every image; distances between
            outlines are then given in mm.
        """

        model_config = ConfigDict(extra="forbid")

        images: str
        masks: str | list[str]
        suffix: str = ""
        source: str = "folder"
        patient_pattern: str | None = None
        spacing_mm: Millimetres | tuple[Millimetres, Millimetres] | None = None

        @field_validator("masks")
        @classmethod
        def _not_none(cls, masks: str | list[str]) -> str | list[str]:
            if not masks:
                raise ValueError("name at least one folder")
            return masks

        @field_validator("patient_pattern")
        @classmethod
        def _one_group(cls, pattern: str | None) -> str | None:
            try:
                groups = 1 if pattern is None else re.compile(pattern).groups
            except re.error as error:
                raise ValueError(f"it is no regular expression ({error})") from error
            if groups != 1:
                raise ValueError(f"it needs one group, as in '^(\\d+)_', and has {groups}")
            return pattern

    settings: Settings

    def inventory(self) -> Inventory:
        """Finds and matches the files. Raises InputError if a folder is missing or empty."""
        masks = self.settings.masks
        image_folder = self._path("images", self.settings.images)
        mask_folders = [self._path("masks", name) for name in ([masks] if isinstance(masks, str) else masks)]
        suffix = self.settings.suffix
        if image_folder in mask_folders and not suffix:
            raise InputError(
                f"images and masks are the same folder {image_folder}: name another one, "
                "or the suffix that marks a mask"
            )
        images = image_files(image_folder)
        groups = [image_files(folder) for folder in mask_folders]
        groups = [[path for path in group if path.stem.endswith(suffix)] for group in groups]
        in_same_folder = {path for group in groups for path in group}
        images = [path for path in images if path not in in_same_folder]
        found = match(images, groups, lambda stem: stem.removesuffix(suffix))
        patient = self._patient_of()
        spacing = self.settings.spacing_mm
        if isinstance(spacing, float):
            spacing = (spacing, spacing)
        samples = [
            FileSample(stem, self.settings.source, patient(stem), "", image, own, spacing)
            for stem, image, own in found.pairs
        ]
        return Inventory(
            image_folder, samples, found.images_without_mask, found.masks_without_image, found.ambiguous
        )

    def _path(self, key: str, name: str) -> Path:
        path = Path(name).expanduser()
        if not path.is_absolute():
            if self.data_root is None:
                raise InputError(
                    f"{key} = '{name}' is relative to LUNGSEG_DATA, which isn't set: "
                    "set it or give an absolute path"
                )
            path = self.data_root / path
        return path.resolve()

    def _patient_of(self) -> Callable[[str], str]:
        if self.settings.patient_pattern is None:
            return lambda stem: stem
        pattern = re.compile(self.settings.patient_pattern)

        def patient(stem: str) -> str:
            found = pattern.search(stem)
            if not found or not found[1]:
                raise InputError(
                    f"patient_pattern '{pattern.pattern}' finds no patient in '{stem}': correct the pattern"
                )
            return found[1]

        return patient
