"""A dataset of the user's own: a folder of X-rays with a folder of masks that match by name."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from lungseg.data.datasets.image_table import ImageTable, read_image_table
from lungseg.data.files.file_sample import FileSample
from lungseg.data.files.matching import list_image_files, match_by_stem
from lungseg.data.sample import Dataset, Inventory
from lungseg.system.errors import InputError
from lungseg.system.files import expand_user
from lungseg.system.plugins import Settings

Millimetres = Annotated[float, Field(gt=0, le=100)]


class FolderDataset(Dataset):
    """`images/STEM.*` with `masks/STEM + suffix.*`; files of other formats and subfolders are left out."""

    class Settings(Settings):
        """Keys in a spec."""

        images: str
        """Folder of the images. A relative path is below LUNGSEG_DATA."""
        masks: str | list[str]
        """Folder of the masks, or several. An image then needs a mask in each and gets their union."""
        suffix: str = ""
        """What the name of a mask has after the name of its image, such as "_mask"."""
        source: str = "folder"
        """The hospital or collection of all images."""
        patient_pattern: str | None = None
        """Regular expression with one group, which is the patient in the name of an image. Without it each
        image is a patient of its own."""
        table: str | None = None
        """CSV file about the images. Its column image has the names of files, with or without ending. It may
        have the columns patient, source, label and spacing_mm. A spacing_mm is one number, or vertical and
        horizontal as in "0.2 0.18". A relative path is below LUNGSEG_DATA."""
        spacing_mm: Millimetres | tuple[Millimetres, Millimetres] | None = None
        """Distance of pixels in mm, or [vertical, horizontal]. Without it distances are in pixels."""

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
            except (re.error, OverflowError, RecursionError) as error:
                raise ValueError(f"it is no regular expression ({error})") from error
            if groups != 1:
                raise ValueError(f"it needs one group, as in '^(\\d+)_', and has {groups}")
            return pattern

    settings: Settings

    @property
    def regrouping(self) -> str:
        """The keys that name the patients, if neither is set."""
        known = self.settings.patient_pattern or self._table_names_patients
        return "" if known else "patient_pattern, or a table with the column patient"

    @property
    def _table_names_patients(self) -> bool:
        return self._table is not None and "patient" in self._table.columns

    def inventory(self) -> Inventory:
        """Find and match the files.

        Raises InputError if a folder is missing or empty, if the pattern finds no patient in a name, and if
        the table can't be read or lacks an image.
        """
        image_folder, mask_folders = self._folders()
        suffix = self.settings.suffix
        images = list_image_files(image_folder)
        groups = [list_image_files(folder) for folder in mask_folders]
        groups = [[path for path in group if path.stem.endswith(suffix)] for group in groups]
        masks = {path for group in groups for path in group}  # they may lie in the folder of the images
        images = [path for path in images if path not in masks]
        found = match_by_stem(images, groups, lambda stem: stem.removesuffix(suffix))
        samples = [self._sample(*pair) for pair in found.pairs]
        notes = []
        count = len(samples)
        alone = len({sample.patient for sample in samples}) == count
        if alone and count > 1 and not self._table_names_patients:
            remedy = "check" if self.settings.patient_pattern else "set"
            notes.append(
                f"{count} patients = {count} images: {remedy} patient_pattern if people have several images"
            )
        return Inventory(
            image_folder,
            samples,
            found.images_without_mask,
            found.masks_without_image,
            found.ambiguous,
            notes,
        )

    @cached_property
    def _table(self) -> ImageTable | None:
        if self.settings.table is None:
            return None
        table = read_image_table(self._path("table", self.settings.table))
        for column, key in (
            ("patient", "patient_pattern"),
            ("source", "source"),
            ("spacing_mm", "spacing_mm"),
        ):
            table.require_no_other(self.settings.model_fields_set, column, key)
        return table

    def _sample(self, stem: str, image: Path, masks: tuple[Path, ...]) -> FileSample:
        spacing = self.settings.spacing_mm
        spacing = (spacing, spacing) if isinstance(spacing, float) else spacing
        row: dict[str, str] = {}
        if self._table:
            row = dict(self._table.find_row(image))
            spacing = self._table.parse_spacing(image) if "spacing_mm" in row else spacing
        source, patient = row.get("source", self.settings.source), row.get("patient") or self._patient(stem)
        return FileSample(stem, source, patient, row.get("label", ""), image, masks, spacing)

    def _folders(self) -> tuple[Path, list[Path]]:
        """The folder of images and those of masks."""
        masks = self.settings.masks
        image_folder = self._path("images", self.settings.images)
        mask_folders = [self._path("masks", name) for name in ([masks] if isinstance(masks, str) else masks)]
        if image_folder in mask_folders and not self.settings.suffix:
            raise InputError(
                f"images and masks are the same folder {image_folder}: name another one, "
                "or the suffix that marks a mask"
            )
        return image_folder, mask_folders

    def _path(self, key: str, name: str) -> Path:
        path = expand_user(name, key)
        if not path.is_absolute():
            if self.data_root is None:
                raise InputError(
                    f"{key} = '{name}' is relative to LUNGSEG_DATA, which isn't set: "
                    "set it or give an absolute path"
                )
            path = self.data_root / path
        return path.resolve()

    def _patient(self, stem: str) -> str:
        pattern = self.settings.patient_pattern
        if pattern is None:
            return stem
        found = re.search(pattern, stem)
        if not found or not found[1]:
            raise InputError(f"patient_pattern '{pattern}' finds no patient in '{stem}': correct the pattern")
        return found[1]
