"""Find a dataset by its name, load it, and check that every sample can be used."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lungseg.data.datasets.registry import DATASETS
from lungseg.data.memory import RememberedSample, remember
from lungseg.data.sample import Dataset, Sample, explain_unsafe_id, is_safe_id
from lungseg.system.errors import InputError
from lungseg.system.files import expand_user
from lungseg.system.machine import count_usable_cores
from lungseg.system.plugins import load_class, name_errors, validate


@dataclass(frozen=True)
class LoadedDataset:
    """A dataset whose samples were found and checked."""

    dataset: Dataset  # where the samples come from
    name: str  # as the spec gives it
    samples: dict[str, Sample]  # by id
    sha256: str  # of all images and masks, hex
    notes: tuple[str, ...]  # sentences for the user, such as how many masks are empty

    def describe(self) -> dict[str, Any]:
        """Describe the dataset for run.json."""
        count = len(self.samples)
        kind = {"real": self.dataset.real, "public": self.dataset.public}
        return {"dataset": self.name, **kind, "count": count, "sha256": self.sha256}

    def pick(self, ids: Sequence[str]) -> tuple[Sample, ...]:
        """Return samples by their ids, in the order of `ids`."""
        return tuple(self.samples[name] for name in ids)


def find_data_root() -> Path | None:
    """Return the folder that LUNGSEG_DATA names, None if unset. Raises InputError if it is no folder."""
    named = os.environ.get("LUNGSEG_DATA")
    if not named:
        return None
    root = expand_user(named, "LUNGSEG_DATA")
    if not os.path.isdir(root):  # Path.is_dir raises for a name that is too long
        raise InputError(
            f"LUNGSEG_DATA names {named[:200]}, which is not a folder: set it to a folder of datasets"
        )
    return root


def find_dataset(
    name: str, options: Mapping[str, Any], root: Path | None, also: Iterable[str] = ()
) -> Dataset:
    """Return the dataset that a name stands for, before anything is read.

    The name is a key of `DATASETS`, or "package.module:Class". The root is the folder that LUNGSEG_DATA
    names, or None. `also` are further keys of the same table, for the message about an unknown one. Raises
    InputError for an unknown name (the message lists the known ones), an unknown option, or a value of the
    wrong type.
    """
    dataset_class = load_class(name, DATASETS, Dataset, "dataset")
    return dataset_class(validate(dataset_class.Settings, options, f"dataset {name!r}", also), root)


def load_dataset(name: str, options: Mapping[str, Any], also: Iterable[str] = ()) -> LoadedDataset:
    """Load and check the dataset of `find_dataset`, from the folder that LUNGSEG_DATA names.

    Every file is read once. So a damaged file ends a run at its start, and not in its last hour. Generated
    samples that don't fit into memory are not made for this. Raises InputError if there is no data, an id
    can't be used, a file is unreadable, or a mask has another size.
    """
    dataset = find_dataset(name, options, find_data_root(), also)
    with name_errors(f"dataset {name!r}"):
        inventory = dataset.inventory()
        samples = inventory.usable_samples()
    if not samples:
        raise InputError(f"dataset {name!r} has no image with a mask: look with `lungseg data check`")
    if unusable := [sample.id for sample in samples if not is_safe_id(sample.id)]:
        raise InputError(f"dataset {name!r}: {explain_unsafe_id(unusable[0])}")
    sha256 = fingerprint(samples)
    missing = len(inventory.images_without_mask)
    notes = [f"images without a mask, left out: {missing}"] if missing else []
    notes += inventory.notes
    kept = samples if dataset.real else remember(samples)
    if dataset.real or isinstance(kept[0], RememberedSample):  # cheap to read
        notes += _read_all(kept)
    by_id = {sample.id: sample for sample in kept}
    return LoadedDataset(dataset, name, by_id, sha256, tuple(f"{name}: {note}" for note in notes))


def fingerprint(samples: Sequence[Sample]) -> str:
    """Return the hash of the ids and contents of samples: sha256, hex. Their order doesn't matter."""
    with ThreadPoolExecutor(2) as pool:
        hashes = list(pool.map(lambda sample: hashlib.sha256(sample.content()).digest(), samples))
    total = hashlib.sha256()
    for name, content in sorted(zip((sample.id for sample in samples), hashes, strict=True)):
        total.update(f"{len(name)}:{name}".encode() + content)
    return total.hexdigest()


def _read_all(samples: Sequence[Sample]) -> list[str]:
    """Read every sample once, and return notes on what somebody should look at."""
    # Phantoms share a cache of one picture: threads would remove each other's from it.
    workers = 1 if isinstance(samples[0], RememberedSample) else count_usable_cores()
    with ThreadPoolExecutor(workers) as pool:
        found = list(pool.map(_read_one, samples))
    shares = [share for share, _, _ in found]
    counts = {
        "masks are empty": shares.count(0.0),
        "masks are all lung": shares.count(1.0),
        "images are blank": sum(blank for _, blank, _ in found),
    }
    notes = [
        f"{count} {what}, and are learnt from as they are: a problem, which `lungseg data check` names"
        for what, count in counts.items()
        if count
    ]
    cautions = Counter(caution for _, _, caution in found if caution)
    return notes + [
        f"{count} images, each of which {caution} (`lungseg data check` names them)"
        for caution, count in sorted(cautions.items())
    ]


def _read_one(sample: Sample) -> tuple[float, bool, str | None]:
    """The share of lung in a sample, whether its image is blank, and its caution."""
    image, mask = sample.image(), sample.mask()
    if image.shape != mask.shape:
        raise InputError(f"image {sample.id} is {image.shape}, its mask {mask.shape}: make them one size")
    return float(mask.mean()), bool(image.min() == image.max()), sample.caution
