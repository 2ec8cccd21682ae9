"""One part of a benchmark: an approach x fold x seed, fitted, predicted, scored and stored under a key."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from lungseg.approaches.approach import Approach, Run, Runtime
from lungseg.data.sample import Sample
from lungseg.environment import PeakMemory
from lungseg.errors import InputError
from lungseg.results import TABLES, write_table
from lungseg.scoring.metrics import best_threshold, binarise, mean_dice, score_mask
from lungseg.spec import ApproachSpec
from lungseg.storage import make_folder, read_json, unwritable, write_arrays, write_grey, write_json

Progress = Callable[[int, int, str], None]
IMAGES_A_BATCH = 8


@dataclass(frozen=True)
class Part:
    """What is computed in one go.

    Attributes:
        key: sha256 of all that its rows depend on; stored rows with another key are not used.
        train, validation, evaluated: samples of the fold.
        keep_maps: store the maps that the figures need.
    """

    approach: ApproachSpec
    kind: type[Approach]
    settings: Any
    runtime: Runtime
    dataset: str
    train_set: str
    fold: int
    seed: int
    key: str
    train: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    evaluated: tuple[Sample, ...]
    keep_maps: bool

    @property
    def label(self) -> str:
        return f"{self.approach.name}, fold {self.fold}, seed {self.seed}"

    def folder(self, directory: Path) -> Path:
        return directory / "parts" / self.approach.name / f"f{self.fold}-s{self.seed}"

    def model(self, directory: Path) -> Path:
        return directory / "models" / self.approach.name / f"f{self.fold}-s{self.seed}"

    def maps(self, directory: Path) -> Path:
        return directory / "predictions" / "maps" / self.approach.name / f"f{self.fold}-s{self.seed}"


def hash_of(value: Any) -> str:
    """sha256 of a value's canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def is_done(part: Part, directory: Path) -> bool:
    """Whether the part's rows are stored under its key, with the maps if they are wanted."""
    stored = part.folder(directory) / "part.json"
    if not stored.exists() or read_json(stored).get("key") != part.key:
        return False
    return part.maps(directory).is_dir() or not part.keep_maps


def run_part(part: Part, directory: Path, progress: Progress) -> None:
    """Fits, predicts, scores and stores one part; goes on from its checkpoint if a former run was cut.

    Raises:
        InputError: something the user can mend; what other parts have stored stays.
    """
    try:
        _run(part, directory, progress)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise InputError(
            f"{part.label} ran out of memory: lower its size, its batch or the pixels of each image"
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise unwritable(part.folder(directory), error) from error
        where = error.filename or part.folder(directory)
        raise InputError(f"{part.label} ended at {where}: {error.strerror or error}") from error


def _run(part: Part, directory: Path, progress: Progress) -> None:
    folder = _prepare_folder(part, directory)
    started = datetime.now(UTC)
    start = time.perf_counter()
    approach = part.kind(part.settings, part.runtime)
    fitted, history = _fit(part, approach, folder, progress)
    approach.save(make_folder(part.model(directory), empty=True))
    threshold = _threshold(part, approach, progress)
    rows = _score(part, approach, threshold, directory, progress)
    if part.keep_maps:
        _store_features(part, approach, directory)
    write_table(folder / "scores.csv", "scores", rows)
    write_table(folder / "history.csv", "history", history)
    write_table(folder / "training.csv", "training", [fitted])
    seconds = time.perf_counter() - start + fitted.pop("seconds_before")
    record = {"key": part.key, "started": started.isoformat(timespec="seconds"), "seconds": round(seconds, 1)}
    write_json(folder / "part.json", record)  # last: it is what makes the part done
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def _prepare_folder(part: Part, directory: Path) -> Path:
    """The part's folder, emptied unless it holds checkpoints of the same key."""
    folder = part.folder(directory)
    begun = folder / "begun.json"
    if not (begun.exists() and read_json(begun).get("key") == part.key):
        make_folder(folder, empty=True)
        write_json(begun, {"key": part.key})
    make_folder(folder / "checkpoints")
    (folder / "part.json").unlink(missing_ok=True)  # not done until it is written again
    return folder


def _fit(
    part: Part, approach: Approach, folder: Path, progress: Progress
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    key = {"approach": part.approach.name, "fold": part.fold, "seed": part.seed}
    history: list[dict[str, Any]] = []
    run = Run(
        seed=part.seed,
        checkpoints=folder / "checkpoints",
        history=lambda **row: history.append({**key, **row}),
        progress=progress,
        score=lambda maps: mean_dice(maps, (sample.mask() for sample in part.validation)),
    )
    start = time.perf_counter()
    with PeakMemory(part.runtime.device) as peak:
        fitted = approach.fit(part.train, part.validation, run)
    seconds = time.perf_counter() - start + fitted.seconds_before
    row = {**key, "seconds": seconds, "items_per_s": fitted.items / seconds, "peak_memory_mib": peak.mib}
    return {**row, **asdict(fitted)}, history


def _predict(part: Part, approach: Approach, samples: Sequence[Sample]) -> list[np.ndarray]:
    """Maps of the samples, or InputError if the approach doesn't keep to what a map is."""
    images = [sample.image() for sample in samples]
    maps = approach.predict(images, IMAGES_A_BATCH)
    if len(maps) != len(images):
        raise InputError(
            f"{part.approach.name} made {len(maps)} maps of {len(images)} images: mend its class"
        )
    for sample, image, probability in zip(samples, images, maps, strict=True):
        if np.shape(probability) != image.shape or not _within_bounds(probability):
            raise InputError(
                f"{part.approach.name}: the map of {sample.id} has the shape {np.shape(probability)} for an "
                f"image of {image.shape}, or values that aren't in [0, 1]: mend its class or its settings"
            )
    return maps


def _within_bounds(values: np.ndarray) -> bool:
    return bool(np.min(values) >= 0 and np.max(values) <= 1)  # a NaN fails both


def _groups(samples: Sequence[Sample]) -> Iterator[tuple[int, Sequence[Sample]]]:
    """The samples in groups of a batch, each with the number of samples up to its end."""
    for start in range(0, len(samples), IMAGES_A_BATCH):
        group = samples[start : start + IMAGES_A_BATCH]
        yield start + len(group), group


def _threshold(part: Part, approach: Approach, progress: Progress) -> float:
    if part.approach.threshold != "validation":
        return float(part.approach.threshold)

    def maps() -> Iterator[np.ndarray]:
        for done, group in _groups(part.validation):
            yield from _predict(part, approach, group)
            progress(done, len(part.validation), "choosing the threshold")

    return best_threshold(maps(), (sample.mask() for sample in part.validation))


def _score(
    part: Part, approach: Approach, threshold: float, directory: Path, progress: Progress
) -> list[dict[str, Any]]:
    maps_folder = part.maps(directory)
    if part.keep_maps:
        make_folder(maps_folder, empty=True)
    rows = []
    for done, group in _groups(part.evaluated):
        for sample, probability in zip(group, _predict(part, approach, group), strict=True):
            scores = score_mask(binarise(probability, threshold), sample.mask())
            rows.append({**_identity(part, sample, threshold), **scores})
            if part.keep_maps:
                write_grey(maps_folder / f"{sample.id}.png", probability)
        progress(done, len(part.evaluated), "predicting")
    return rows


def _identity(part: Part, sample: Sample, threshold: float) -> dict[str, Any]:
    return {
        "approach": part.approach.name,
        "dataset": part.dataset,
        "train_set": part.train_set,
        "n_train": len(part.train),
        "draw": 0,
        "fold": part.fold,
        "seed": part.seed,
        "image_id": sample.id,
        "patient": sample.patient,
        "source": sample.source,
        "threshold": threshold,
    }


def _store_features(part: Part, approach: Approach, directory: Path) -> None:
    sample = part.evaluated[0]
    maps = approach.feature_maps(sample.image())
    if maps is None:
        return
    path = directory / "predictions" / "features" / f"{part.approach.name}.npz"
    write_arrays(path, maps=maps.astype(np.float16), image_id=np.str_(sample.id))


def merge(parts: Sequence[Part], directory: Path, table: str) -> pd.DataFrame:
    """The rows of all finished parts, in the order of the plan, as text so that no digit changes."""
    frames = [
        pd.read_csv(part.folder(directory) / f"{table}.csv", dtype=str, keep_default_na=False)
        for part in parts
        if is_done(part, directory)
    ]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=TABLES[table])
