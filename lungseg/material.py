"""A spec's dataset, loaded and checked: its samples, what they are as bytes, and what to know of it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lungseg.data import fingerprint, load_dataset
from lungseg.data.memory import RememberedSample, remember
from lungseg.data.sample import Dataset, Sample
from lungseg.environment import usable_cores
from lungseg.errors import InputError
from lungseg.spec import DataSpec, TrainingDataSpec

# Ids are names of files: no folder, nothing hidden, nothing that a file system would refuse.
SAFE_ID = re.compile(r"[^./\\\x00-\x1f][^/\\\x00-\x1f]{0,199}")


@dataclass(frozen=True)
class Material:
    """A dataset as loaded: its samples by id, the sha256 of their bytes, and what to know of it."""

    dataset: Dataset
    name: str
    samples: dict[str, Sample]
    sha256: str
    notes: tuple[str, ...]

    def described(self) -> dict[str, Any]:
        count = len(self.samples)
        return {"dataset": self.name, "real": self.dataset.real, "count": count, "sha256": self.sha256}

    def pick(self, ids: Sequence[str]) -> tuple[Sample, ...]:
        return tuple(self.samples[name] for name in ids)


def data_root() -> Path | None:
    """The folder that LUNGSEG_DATA names, or None. Raises InputError if it names something else."""
    named = os.environ.get("LUNGSEG_DATA")
    if not named:
        return None
    root = Path(named).expanduser()
    if not root.is_dir():
        raise InputError(f"LUNGSEG_DATA names {named}, which is not a folder: set it to a folder of datasets")
    return root


def load_material(spec: DataSpec | TrainingDataSpec, without: set[str] = frozenset()) -> Material:
    """Loads the dataset that a table of a spec names; `without` are its keys that aren't the dataset's.

    Raises:
        InputError: no data, an id that can't be used, an unreadable file, a mask of another size.
    """
    options = {key: value for key, value in spec.options.items() if key not in without}
    dataset = load_dataset(spec.dataset, options, data_root())
    samples = dataset.samples()
    if not samples:
        raise InputError(f"dataset {spec.dataset!r} has no image with a mask: look with `lungseg data check`")
    _require_usable_ids(samples, spec.dataset)
    sha256 = fingerprint(samples)
    kept = samples if dataset.real else remember(samples)
    checked = dataset.real or isinstance(kept[0], RememberedSample)
    notes = _inventory_notes(dataset) + (_read_all(kept) if checked else [])
    by_id = {sample.id: sample for sample in kept}
    return Material(dataset, spec.dataset, by_id, sha256, tuple(f"{spec.dataset}: {note}" for note in notes))


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
    kinds = {"empty": 0.0, "all lung": 1.0}
    counts = {kind: shares.count(share) for kind, share in kinds.items()}
    return [f"{count} masks are {kind}, and are learnt from" for kind, count in counts.items() if count]
