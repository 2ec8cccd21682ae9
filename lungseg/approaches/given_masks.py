"""Masks or probability maps that any program made: a row of the tables without a training."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
from torch import Tensor

from lungseg.approaches.base import Approach, Stage
from lungseg.data.files.given_maps import list_given_files, read_given_map
from lungseg.data.loading import find_data_root
from lungseg.data.sample import Sample
from lungseg.learning.fit import FitContext, FitReport
from lungseg.learning.weights import WeightsInfo
from lungseg.system.errors import InputError
from lungseg.system.files import expand_user
from lungseg.system.plugins import Settings
from lungseg.system.runtime import Runtime

SHOWN = 5  # names in a message


class GivenMasksSettings(Settings):
    """Keys of `masks`."""

    folder: str
    """Folder of the masks or probability maps: pictures or NPY. A relative path is below LUNGSEG_DATA."""
    suffix: str = ""
    """What the name of a mask may have after the id of its image, such as "_mask"."""
    missing: Literal["refuse", "empty"] = "refuse"
    """What to do if an image has no mask: end the run, or count it as an empty mask."""


class GivenMasks(Approach):
    """The masks of a folder, which match the evaluated images by name."""

    Settings = GivenMasksSettings
    given = True

    def __init__(self, settings: GivenMasksSettings, runtime: Runtime) -> None:
        super().__init__(settings, runtime)

    @classmethod
    def depends_on_seed(cls, settings: GivenMasksSettings) -> bool:
        return False

    @cached_property
    def files(self) -> Mapping[str, Path]:
        """The file of each image's id. Raises InputError if the folder or two files can't be used."""
        folder = expand_user(self.settings.folder, "folder")
        if not folder.is_absolute():
            root = find_data_root()
            if root is None:
                raise InputError(
                    f"folder = '{folder}' is relative to LUNGSEG_DATA, which isn't set: set it or give an "
                    "absolute path"
                )
            folder = root / folder
        return list_given_files(folder, self.settings.suffix)

    def weights(self) -> WeightsInfo:
        """Describe the files by one hash of their names and contents; a changed mask is scored anew."""
        digest = hashlib.sha256()
        for name, path in sorted(self.files.items()):
            digest.update(f"{len(name)}:{name}".encode() + hashlib.sha256(path.read_bytes()).digest())
        return WeightsInfo("masks", "given", Path(self.settings.folder).name, digest.hexdigest())

    def examine(self, samples: Sequence[Sample]) -> list[str]:
        ids = {sample.id for sample in samples}
        missing, surplus = sorted(ids - self.files.keys()), sorted(self.files.keys() - ids)
        folder = self.settings.folder
        if len(missing) == len(ids):
            raise InputError(
                f"no file in {folder} matches an evaluated image, such as {missing[0]}: name masks as their "
                "images are, or give the suffix of their names"
            )
        if missing and self.settings.missing == "refuse":
            raise InputError(
                f"{len(missing)} of {len(ids)} images have no mask in {folder} ({_shorten(missing)}): add "
                'them, or count them as empty masks with --missing empty (in a spec: missing = "empty")'
            )
        notes = []
        if missing:
            notes.append(f"{len(missing)} images have no mask and count as empty ({_shorten(missing)})")
        if surplus:
            notes.append(f"{len(surplus)} masks match no evaluated image ({_shorten(surplus)})")
        return notes

    def estimate(self, train: int, validation: int) -> float:
        return 0.0

    def fit(self, train: Sequence[Sample], validation: Sequence[Sample], context: FitContext) -> FitReport:
        return FitReport("images", 0)

    def predict_samples(self, samples: Sequence[Sample], batch_size: int = 8) -> list[np.ndarray]:
        """Read the maps of samples; a missing one is all 0. Raises InputError if one can't be used."""
        return [self._read(sample) for sample in samples]

    def _read(self, sample: Sample) -> np.ndarray:
        shape, path = sample.mask().shape, self.files.get(sample.id)
        return np.zeros(shape, np.float32) if path is None else read_given_map(path, shape)

    def prepare(self, images: Sequence[np.ndarray]) -> Tensor:
        _refuse()

    def stages(self) -> list[Stage]:
        _refuse()

    def save(self, directory: Path) -> None:
        pass  # there is nothing that was fitted

    @classmethod
    def load(cls, directory: Path, settings: Any, runtime: Runtime) -> GivenMasks:
        return cls(settings, runtime)


def _refuse() -> NoReturn:
    raise InputError('masks of use = "masks" were given, and can\'t be predicted: choose another row')


def _shorten(names: Sequence[str]) -> str:
    return ", ".join([*names[:SHOWN], *(["..."] if len(names) > SHOWN else [])])
