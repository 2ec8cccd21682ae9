"""The protocol of a dataset (the sets are in `datasets`): X-rays with lung masks, and what was found."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from lungseg.system.errors import InputError

# Files are named after ids, so an id has no folder, is not hidden, and is a name on any file system.
SAFE_ID = re.compile(r"[^./\\\x00-\x1f][^/\\\x00-\x1f]{0,199}")


def is_safe_id(name: str) -> bool:
    """Return whether an id can be a file's name, and be written as UTF-8."""
    return SAFE_ID.fullmatch(name) is not None and name == name.encode(errors="ignore").decode()


def explain_unsafe_id(name: str) -> str:
    """Return a sentence on an id for which `is_safe_id` is false."""
    return f"the id {name!r} can't be a file's name: rename the image and its mask"


class Sample(ABC):
    """One X-ray and its mask, read when asked for. Raises InputError where they can't be read or used."""

    id: str  # unique in its dataset; files are named after it
    source: str  # hospital or collection, such as "montgomery"; splits are stratified by it
    patient: str  # images of one patient are never on two sides of a split
    label: str  # diagnosis or class, "" if there is none
    spacing: tuple[float, float] | None = None  # (vertical, horizontal) distance of pixels in mm, if known

    @property
    def caution(self) -> str | None:
        """What somebody should look at before the sample is believed, such as "is turned"; None as a rule.

        It goes on after the sample's id, and names no file.
        """
        return None

    @abstractmethod
    def image(self) -> np.ndarray:
        """Return the radiograph: float32, H x W, in [0, 1]; white is dense (bone), black is air."""

    @abstractmethod
    def mask(self) -> np.ndarray:
        """Return the lung field: bool, H x W as the image."""

    @abstractmethod
    def content(self) -> bytes:
        """Return bytes that change whenever the image or the mask does, such as a hash of their files."""


@dataclass(frozen=True)
class Inventory:
    """What a dataset found on disk, usable or not; `lungseg data check` prints it."""

    root: Path | None  # the dataset's folder, None if it has none
    samples: list[Sample]  # images that have a mask, in any order
    images_without_mask: list[str] = field(default_factory=list)  # names of files
    masks_without_image: list[str] = field(default_factory=list)
    # Sentences, each of two files that claim the same id or the same image.
    ambiguous: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # sentences: what somebody should look at

    @property
    def conflicts(self) -> list[str]:
        """Sentences: `ambiguous`, and each id that several samples have."""
        counts = sorted(Counter(sample.id for sample in self.samples).items())
        duplicates = [f"the id {name} is used {n} times: rename the images" for name, n in counts if n > 1]
        return self.ambiguous + duplicates

    def usable_samples(self) -> list[Sample]:
        """Return the samples sorted by id. Raises InputError for the first of `conflicts`."""
        if self.conflicts:
            raise InputError(self.conflicts[0])
        return sorted(self.samples, key=lambda sample: sample.id)


class Dataset(ABC):
    """A named set of samples. A new dataset is one file in `lungseg/data/datasets`.

    Attributes:
        Settings: its keys in the `[data]` table of a spec; an unknown key is an error.
        regrouping: how a spec says which images are of one patient, for messages; "" if it does already, or
            if the dataset knows.
        real: shows real people, so its pictures are never published.
        public: anybody can get it, so names of its images and patients may be published.
        has_images: False if masks stand for the images, so that nothing can be predicted from them.
        settings: a `Settings`.
        data_root: the folder that LUNGSEG_DATA names, or None.
    """

    class Settings(BaseModel):
        """No keys; a dataset with settings replaces this class."""

        model_config = ConfigDict(extra="forbid")

    regrouping: str = ""
    real: bool = True
    public: bool = False
    has_images: bool = True

    def __init__(self, settings: BaseModel, data_root: Path | None) -> None:
        self.settings = settings
        self.data_root = data_root

    @abstractmethod
    def inventory(self) -> Inventory:
        """Find everything that belongs to the dataset, undecoded. Raises InputError if it isn't there."""

    def samples(self) -> list[Sample]:
        """Return all images that have a mask, sorted by id.

        Raises InputError if the dataset isn't there, two images have one id, or an image has two masks.
        """
        return self.inventory().usable_samples()
