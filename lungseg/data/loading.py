"""A dataset by its name, loaded and checked: its samples, what they are as bytes, and what to know of it."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lungseg.data.memory import RememberedSample, remember
from lungseg.data.sample import Dataset, Sample
from lungseg.system.errors import InputError
from lungseg.system.machine import usable_cores
from lungseg.system.plugins import load_class, validate

# A new dataset is one file in lungseg/data/datasets, and one line here.
DATASETS = {
    "cxr704": "lungseg.data.datasets.cxr704:Cxr704Dataset",
    "folder": "lungseg.data.datasets.folder:FolderDataset",
    "phantom": "lungseg.data.datasets.phantom:PhantomDataset",
}
# Ids are names of files: no folder, nothing hidden, nothing that a file system would refuse.
SAFE_ID = re.compile(r"[^./\\\x00-\x1f][^/\\\x00-\x1f]{0,199}")


@dataclass(frozen=True)
class LoadedDataset:
    """A dataset whose files were found and read.

    Attributes:
        dataset: where the samples come from.
        name: as a spec gives it.
        samples: by id.
        sha256: of all images and masks, hex.
        notes: sentences for whoever runs a benchmark on it.
    """

    dataset: Dataset
    name: str
    samples: dict[str, Sample]
    sha256: str
    notes: tuple[str, ...]

    def described(self) -> dict[str, Any]:
        """Describe it for run.json."""
        count = len(self.samples)
        return {"dataset": self.name, "real": self.dataset.real, "count": count, "sha256": self.sha256}

    def pick(self, ids: Sequence[str]) -> tuple[Sample, ...]:
        """Pick samples by id, in that order."""
        return tuple(self.samples[name] for name in ids)


def data_root() -> Path | None:
    """Return the folder that LUNGSEG_DATA names, or None. Raises InputError if it names something else."""
    named = os.environ.get("LUNGSEG_DATA")
    if not named:
        return None
    root = Path(named).expanduser()
    if not root.is_dir():
        raise InputError(f"LUNGSEG_DATA names {named}, which is not a folder: set it to a folder of datasets")
    return root


def find_dataset(name: str, options: Mapping[str, Any], root: Path | None) -> Dataset:
    """Make the dataset that a name stands for; nothing is read yet.

    Args:
        name: a key of `DATASETS`, or "package.module:Class".
        options: its settings.
        root: the folder that LUNGSEG_DATA names, or None.

    Raises:
        InputError: an unknown name (the message lists the known ones) or key, or a value of the wrong type.
    """
    dataset_class = load_class(name, DATASETS, Dataset, "dataset")
    return dataset_class(validate(dataset_class.Settings, options, f"dataset {name!r}"), root)


def load_dataset(name: str, options: Mapping[str, Any]) -> LoadedDataset:
    """Load the dataset that a name stands for, from the folder that LUNGSEG_DATA names.

    Args:
        name, options: as of `find_dataset`.

    Raises:
        InputError: no data, an id that can't be used, an unreadable file, a mask of another size.
    """
    dataset = find_dataset(name, options, data_root())
    samples = dataset.samples()
    if not samples:
        raise InputError(f"dataset {name!r} has no image with a mask: look with `lungseg data check`")
    _require_usable_ids(samples, name)
    sha256 = fingerprint(samples)
    kept = samples if dataset.real else remember(samples)
    checked = dataset.real or isinstance(kept[0], RememberedSample)
    notes = _inventory_notes(dataset) + (_read_all(kept) if checked else [])
    by_id = {sample.id: sample for sample in kept}
    return LoadedDataset(dataset, name, by_id, sha256, tuple(f"{name}: {note}" for note in notes))


def fingerprint(samples: Sequence[Sample]) -> str:
    """Hash ids and contents: sha256, hex. It changes with any image or mask, and not with the order."""
    with ThreadPoolExecutor(2) as pool:
        hashes = list(pool.map(lambda sample: hashlib.sha256(sample.content()).digest(), samples))
    total = hashlib.sha256()
    for name, content in sorted(zip((sample.id for sample in samples), hashes, strict=True)):
        total.update(f"{len(name)}:{name}".encode() + content)
    return total.hexdigest()


def _require_usable_ids(samples: Sequence[Sample], name: str) -> None:
    seen: set[str] = set()
    for sample in samples:
        if not SAFE_ID.fullmatch(sample.id):
            raise InputError(
                f"dataset {name!r} has the id {sample.id!r}, which can't be a file's name: rename it"
            )
        if sample.id in seen:
            raise InputError(f"dataset {name!r} has the id {sample.id!r} twice: give each image its own")
        seen.add(sample.id)


def _inventory_notes(dataset: Dataset) -> list[str]:
    missing = len(dataset.inventory().images_without_mask)
    return [f"{missing} images have no mask and are left out"] if missing else []


def _read_all(samples: Sequence[Sample]) -> list[str]:
    """Reads every file once: a damaged one ends the run now, in seconds, and not in its last hour."""

    def share_of_lung(sample: Sample) -> float:
        image, mask = sample.image(), sample.mask()
        if image.shape != mask.shape:
            raise InputError(f"image {sample.id} is {image.shape}, its mask {mask.shape}: make them one size")
        return float(mask.mean())

    # What is generated has one cache for all; threads would throw each other's pairs out of it.
    workers = 1 if isinstance(samples[0], RememberedSample) else usable_cores()
    with ThreadPoolExecutor(workers) as pool:
        shares = list(pool.map(share_of_lung, samples))
    names = {"empty": 0.0, "all lung": 1.0}
    counts = {name: shares.count(share) for name, share in names.items()}
    return [f"{count} masks are {name}, and are learnt from" for name, count in counts.items() if count]
