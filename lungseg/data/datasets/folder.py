"""A dataset of the user's own: a folder of X-rays with a folder of masks that match by name."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from lungseg.data.datasets.image_table import ImageTable, read_image_table
from lungseg.data.datasets.layout import name_layout
from lungseg.data.files.dicom import find_spacing, is_dicom, read_header
from lungseg.data.files.file_sample import FileSample
from lungseg.data.files.label_maps import require_labels
from lungseg.data.files.mask_sizes import require_sizes
from lungseg.data.files.matching import (
    Matches,
    describe_unread,
    list_image_files,
    match_by_name,
    name_file,
    normalise_name,
)
from lungseg.data.files.pseudonym import name_patient
from lungseg.data.sample import Dataset, Inventory, Sample
from lungseg.system.errors import InputError
from lungseg.system.files import expand_user
from lungseg.system.plugins import Settings

Millimetres = Annotated[float, Field(gt=0, le=100)]
Label = Annotated[int, Field(ge=0, le=65535, strict=True)]

_NNUNET = "_0000"  # what nnU-Net's images have after the names of their masks
_SHOWN = 3  # names in a note; of further ones it gives the number


class FolderInventory(Inventory):
    """What was found in folders. Samples are usable where their masks have a size that is read."""

    def usable_samples(self) -> list[Sample]:
        """Return the samples sorted by id. Raises InputError also if `resize_masks` should be set."""
        samples = super().usable_samples()
        kept = [each for each in samples if isinstance(each, FileSample) and not each.resize_masks]
        require_sizes((each.image_path, mask) for each in kept for mask in each.mask_paths)
        return samples


class FolderDataset(Dataset):
    """`images/STEM + image_suffix.*` with `masks/STEM + suffix.*`; a note says what isn't read.

    Images may be DICOM. Their pixel spacing and patients are then what the files say. A patient's name is a
    salted hash of PatientID, which is stored nowhere.
    """

    class Settings(Settings):
        """Keys in a spec."""

        images: str
        """Folder of the images. A relative path is below LUNGSEG_DATA."""
        masks: str | list[str]
        """Folder of the masks, or several. An image then needs a mask in each and gets their union."""
        suffix: str = ""
        """What the name of a mask has after the name of its image, such as "_mask"."""
        image_suffix: str = ""
        """What the name of an image has after the name that its mask shares, such as nnU-Net's "_0000"."""
        recursive: bool = False
        """Whether files in sub-folders are read too. A mask then lies in the same sub-folder as its image.
        The id of an image is its path with "_" for "/"."""
        lung_labels: Annotated[list[Label], Field(min_length=1)] | None = None
        """The labels that are lung, such as [1, 2], if masks are maps of labels: grey values, or numbers of
        colours in a palette. Every other label is not lung."""
        resize_masks: bool = False
        """Whether a mask of another size is resized to its image by the nearest pixel. Their aspect ratios
        must agree within 1 %."""
        source: str = "folder"
        """The hospital or collection of all images."""
        source_pattern: str | None = None
        """Regular expression with one group, which is the source in the name of an image. With `recursive`
        the name has the sub-folders too, as in "north/p1"."""
        patient_pattern: str | None = None
        """Regular expression with one group, which is the patient in the name of an image. With `recursive`
        the name has the sub-folders too. Without a pattern DICOM files say who the patient is, and any other
        image is a patient of its own."""
        table: str | None = None
        """CSV file about the images. Its column image has the names of files, with or without ending. It may
        have the columns patient, source, label and spacing_mm. A spacing_mm is one number, or vertical and
        horizontal as in "0.2 0.18". A relative path is below LUNGSEG_DATA."""
        spacing_mm: Millimetres | tuple[Millimetres, Millimetres] | None = None
        """Distance of pixels in mm, or [vertical, horizontal]. Without it DICOM files say it, and for
        other images distances are in pixels."""

        @field_validator("masks")
        @classmethod
        def _not_none(cls, masks: str | list[str]) -> str | list[str]:
            if not masks:
                raise ValueError("name at least one folder")
            return masks

        @field_validator("patient_pattern", "source_pattern")
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
        suffix, image_suffix = (
            normalise_name(self.settings.suffix),
            normalise_name(self.settings.image_suffix),
        )
        every = [image_folder, *mask_folders]
        listed = {folder: self._list(folder, every) for folder in every}
        groups = [_name_files(listed[folder], folder, suffix) for folder in mask_folders]
        masks = {path for group in groups for path in group}  # they may lie in the folder of the images
        candidates = [path for path in listed[image_folder] if path not in masks]
        images = _name_files(candidates, image_folder, image_suffix)
        found = match_by_name(images, groups)
        hint = _note_nnunet(images, groups, found)
        if self._table:
            self._table.require_own_rows((image, name) for name, image, _ in found.pairs)
        if self.settings.lung_labels:
            require_labels(self.settings.lung_labels, [mask for *_, own in found.pairs for mask in own])
        samples = self._list_samples(found)
        notes = [self._describe_unread(folder, listed[folder], every) for folder in dict.fromkeys(every)]
        notes.append(_note_misnamed(image_folder, set(candidates) - set(images), candidates, image_suffix))
        for folder, group in zip(mask_folders, groups, strict=True):
            if folder != image_folder:
                others = set(listed[folder]) - set(group)
                notes.append(_note_misnamed(folder, others, listed[folder], suffix))
        notes += [hint, self._note_patients(samples)]
        return FolderInventory(
            image_folder,
            samples,
            found.images_without_mask,
            found.masks_without_image,
            found.ambiguous,
            [note for note in notes if note],
        )

    def _list_samples(self, found: Matches) -> list[FileSample]:
        """A sample of each pair. DICOM images that can't be used are added to what is ambiguous."""
        samples = []
        for name, image, masks in found.pairs:
            facts = ("", None)
            if is_dicom(image):
                try:
                    facts = self._read_facts(image)
                except InputError as error:
                    found.ambiguous.append(str(error))
                    continue
            samples.append(self._sample(name, image, masks, *facts))
        return samples

    def _read_facts(self, image: Path) -> tuple[str, tuple[float, float] | None]:
        """The patient and the spacing by a DICOM file, unless the spec or its table say the spacing."""
        header = read_header(image)
        said = self.settings.spacing_mm is not None or (
            self._table is not None and "spacing_mm" in self._table.columns
        )
        patient = name_patient(header.patient_id) if header.patient_id else ""
        return patient, None if said else find_spacing(header, image)

    def _list(self, folder: Path, every: list[Path]) -> list[Path]:
        """The image files of a folder, without those of the dataset's other folders that lie in it."""
        inner = [each for each in every if each != folder and folder in each.parents]
        try:
            files = list_image_files(folder, self.settings.recursive)
        except InputError as error:
            known = name_layout(folder) if folder.is_dir() else None
            if known in (None, "folder"):
                raise
            raise InputError(f'{error}, or use dataset "{known}"') from None
        return [path for path in files if not any(each in path.parents for each in inner)]

    def _describe_unread(self, folder: Path, read: list[Path], every: list[Path]) -> str | None:
        apart = [each for each in every if each != folder]
        apart += [self._table.path] if self._table else []
        return describe_unread(folder, self.settings.recursive, read, apart)

    def _note_patients(self, samples: list[FileSample]) -> str | None:
        count = len(samples)
        patients = {sample.patient for sample in samples}
        if len(patients) == 1 and count > 1 and is_dicom(samples[0].image_path):
            return (
                f"all {count} images are of one patient, by what names them: check it, or set patient_pattern"
            )
        alone = len(patients) == count
        if all(is_dicom(sample.image_path) and sample.patient != sample.id for sample in samples):
            return None
        if not alone or count < 2 or self._table_names_patients:
            return None
        remedy = "check" if self.settings.patient_pattern else "set"
        return f"{count} patients = {count} images: {remedy} patient_pattern if people have several images"

    @cached_property
    def _table(self) -> ImageTable | None:
        if self.settings.table is None:
            return None
        table = read_image_table(self._path("table", self.settings.table))
        for column, key in (
            ("patient", "patient_pattern"),
            ("source", "source"),
            ("source", "source_pattern"),
            ("spacing_mm", "spacing_mm"),
        ):
            table.require_no_other(self.settings.model_fields_set, column, key)
        return table

    def _sample(
        self,
        name: str,
        image: Path,
        masks: tuple[Path, ...],
        known_patient: str = "",
        known_spacing: tuple[float, float] | None = None,
    ) -> FileSample:
        settings = self.settings
        spacing = (
            (settings.spacing_mm,) * 2 if isinstance(settings.spacing_mm, float) else settings.spacing_mm
        )
        row: dict[str, str] = {}
        name = normalise_name(name)
        if self._table:
            row = dict(self._table.find_row(image, name))
            spacing = self._table.parse_spacing(row) if "spacing_mm" in row else spacing
        return FileSample(
            id=name.replace("/", "_"),
            source=row.get("source") or self._find_source(name),
            patient=row.get("patient") or self._find_patient(name, known_patient),
            label=row.get("label", ""),
            image_path=image,
            mask_paths=masks,
            spacing=spacing or known_spacing,
            lung_labels=tuple(settings.lung_labels or ()),
            resize_masks=settings.resize_masks,
        )

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

    def _find_patient(self, name: str, known: str) -> str:
        pattern = self.settings.patient_pattern
        if pattern is not None:
            return _search("patient_pattern", pattern, "patient", name)
        return known or name

    def _find_source(self, name: str) -> str:
        pattern = self.settings.source_pattern
        if pattern is None:
            return normalise_name(self.settings.source)
        if "source" in self.settings.model_fields_set:
            raise InputError("the spec sets source and source_pattern: remove one of the two")
        return _search("source_pattern", pattern, "source", name)


def _search(key: str, pattern: str, what: str, name: str) -> str:
    found = re.search(normalise_name(pattern), name)
    if not found or not found[1]:
        raise InputError(f"{key} '{pattern}' finds no {what} in '{name}': correct the pattern")
    return found[1]


def _name_files(files: list[Path], folder: Path, suffix: str) -> dict[Path, str]:
    """The name that image and mask share, of each file whose name ends in the suffix."""
    names = {path: name_file(path, folder) for path in files}
    return {path: name.removesuffix(suffix) for path, name in names.items() if name.endswith(suffix)}


def _note_misnamed(folder: Path, others: set[Path], files: list[Path], suffix: str) -> str | None:
    """Say which files of a folder lack the suffix that the spec names."""
    if not others:
        return None
    do, are = ("don't", "aren't") if len(others) > 1 else ("doesn't", "isn't")
    return (
        f"{len(others)} of {len(files)} images in {folder.name}/ {do} end in '{suffix}' and so {are} read "
        f"({_some(others)})"
    )


def _note_nnunet(images: dict[Path, str], groups: list[dict[Path, str]], found: Matches) -> str | None:
    """Say that images would have a mask but for nnU-Net's ending. Raises InputError if no image has one."""
    names = {name for group in groups for name in group.values()}
    paired = {name for name, *_ in found.pairs}
    alike = {
        path
        for path, name in images.items()
        if name.endswith(_NNUNET) and name not in paired and name.removesuffix(_NNUNET) in names
    }
    if not alike:
        return None
    if not found.pairs:
        raise InputError(
            f"no image has a mask, but {len(alike)} images ({_some(alike)}) have one if '{_NNUNET}' is left "
            f'out of their names: set image_suffix = "{_NNUNET}"'
        )
    return (
        f"{len(alike)} images have a mask only if '{_NNUNET}' is left out of their names ({_some(alike)}), "
        "and others don't end so: rename them alike"
    )


def _some(paths: set[Path]) -> str:
    names = sorted(path.name for path in paths)
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
