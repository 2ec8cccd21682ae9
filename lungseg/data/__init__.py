"""What images there are: datasets by name. A new dataset is one file here and one line in `DATASETS`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lungseg.data.sample import Dataset, Inventory, Sample
from lungseg.plugins import load_class, validate

__all__ = ["DATASETS", "Dataset", "Inventory", "Sample", "fingerprint", "load_dataset"]

DATASETS = {
    "cxr704": "lungseg.data.cxr704:Cxr704Dataset",
    "folder": "lungseg.data.folder:FolderDataset",
    "phantom": "lungseg.data.phantom:PhantomDataset",
}


def load_dataset(name: str, options: Mapping[str, Any], data_root: Path | None) -> Dataset:
    """The dataset of a spec's `[data]` table; nothing is read yet.

    Args:
        name: a key of `DATASETS`, or "package.module:Class".
        options: its settings.
        data_root: the folder that LUNGSEG_DATA names, or None.

    Raises InputError for an unknown name (listing the known ones), key, or value of the wrong type.
    """
    kind = load_class(name, DATASETS, Dataset, "dataset")
    return kind(validate(kind.Settings, options, f"dataset {name!r}"), data_root)


def fingerprint(samples: Sequence[Sample]) -> str:
    """sha256 (hex) over ids and contents: it changes when any image or mask does, and not with the order."""
    with ThreadPoolExecutor(2) as pool:
        hashes = list(pool.map(lambda sample: hashlib.sha256(sample.content()).digest(), samples))
    total = hashlib.sha256()
    for name, content in sorted(zip((sample.id for sample in samples), hashes, strict=True)):
        total.update(f"{len(name)}:{name}".encode() + content)
    return total.hexdigest()
