"""What one X-ray with its lung mask is, and what a set of them is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict


class Sample(ABC):
    """One X-ray and its mask, read when asked for.

    Attributes:
        id: unique in its dataset.
        source: hospital or collection, such as "montgomery"; splits are stratified by it.
        patient: images of one patient never stand on two sides of a split.
        label: diagnosis or class, "" if there is none.
        spacing: (vertical, horizontal) distance of pixels in mm; None if it isn't known.
    """

    id: str
    source: str
    patient: str
    label: str
    spacing: tuple[float, float] | None = None

    @abstractmethod
    def image(self) -> np.ndarray:
        """The radiograph: float32, [0, 1], H x W, white is dense (bone), black is air."""

    @abstractmethod
    def mask(self) -> np.ndarray:
        """The lung field: bool, H x W as the image. Raises InputError if it can't be read or used."""

    @abstractmethod
    def content(self) -> bytes:
        """Bytes that change whenever the image or the mask does; hashed into a fingerprint."""


@dataclass(frozen=True)
class Inventory:
    """What a dataset found on disk, sound or not; `lungseg data check` prints it."""

    root: Path | None
    samples: list[Sample]
    images_without_mask: list[str] = field(default_factory=list)
    masks_without_image: list[str] = field(default_factory=list)
    ambiguous: list[str] = field(default_factory=list)  # sentences: two masks for one image, an id twice


class Dataset(ABC):
    """A named set of samples. One dataset is one file in `lungseg/data`.

    Attributes:
        Settings: its keys in the `[data]` table of a spec; an unknown key is an error.
        real: shows real people, so pictures of it are never published.
    """

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid")

    real: bool = True

    def __init__(self, settings: BaseModel, data_root: Path | None) -> None:
        """`data_root` is the folder that LUNGSEG_DATA names, or None."""
        self.settings = settings
        self.data_root = data_root

    @abstractmethod
    def inventory(self) -> Inventory:
        """Everything that belongs to the dataset, without decoding it. Raises InputError if there is none."""

    def samples(self) -> list[Sample]:
        """All images that have a mask, sorted by id. Raises InputError if two claim one id or mask."""
        from lungseg.system.errors import InputError

        inventory = self.inventory()
        if inventory.ambiguous:
            raise InputError(inventory.ambiguous[0])
        return sorted(inventory.samples, key=lambda sample: sample.id)
