"""One part of a benchmark: an approach x fold x seed, fitted, predicted, scored and stored under a key."""

from __future__ import annotations

import errno
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lungseg.approaches.approach import Approach, Runtime
from lungseg.data.sample import Sample
from lungseg.errors import InputError, is_out_of_memory
from lungseg.fits import RECORD as FIT_RECORD
from lungseg.fits import Progress, drop_checkpoints, fit, is_fitted
from lungseg.results import TABLES, write_table
from lungseg.scoring.calibration import calibration_rows, reliability_bins
from lungseg.scoring.metrics import score_map
from lungseg.scoring.overlap import best_threshold
from lungseg.spec import ApproachSpec
from lungseg.storage import make_folder, read_json, unwritable, write_arrays, write_grey, write_json

IMAGES_A_BATCH = 8


@dataclass(frozen=True)
class Part:
    """What is computed in one go.

    Attributes:
        fit_key: sha256 of all that its fit depends on; a stored fit with another key is not used.
        key: the same of its rows in scores.csv; a change of a metric needs no new fit.
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
    fit_key: str
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
    """Fits, predicts, scores and stores one part; goes on from what a former run that was cut has stored.

    Raises:
        InputError: something the user can mend; what other parts have stored stays.
    """
    with named_errors(part, directory):
        _run(part, directory, progress)


@contextmanager
def named_errors(part: Part, directory: Path) -> Iterator[None]:
    """Turns what the user can mend into an InputError that names the part."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{part.label}: {error}") from error
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(
            f"{part.label} ran out of memory: lower its size, its batch or the pixels of each image"
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise unwritable(part.folder(directory), error) from error
        where = error.filename or part.folder(directory)
        raise InputError(f"{part.label} ended at {where}: {error.strerror or error}") from error


def _run(part: Part, directory: Path, progress: Progress) -> None:
    folder = part.folder(directory)
    if not is_fitted(part, directory):
        fit(part, directory, progress)
    drop_checkpoints(part, directory)  # here, since a kill may come right after the fit
    (folder / "part.json").unlink(missing_ok=True)  # not done until it is written again
    start = time.perf_counter()
    approach = _load(part, directory)  # even if it was fitted just now: what is scored is what is stored
    threshold = _threshold(part, approach, progress)
    rows, calibration = _score(part, approach, threshold, directory, progress)
    if part.keep_maps:
        _store_features(part, approach, directory)
    write_table(folder / "scores.csv", "scores", rows)
    write_table(folder / "calibration.csv", "calibration", calibration)
    fitted = read_json(folder / FIT_RECORD)
    seconds = round(time.perf_counter() - start + fitted["seconds"], 1)
    # Last: it is what makes the part done.
    write_json(folder / "part.json", {"key": part.key, "started": fitted["started"], "seconds": seconds})


def _load(part: Part, directory: Path) -> Approach:
    try:
        return part.kind.load(part.model(directory), part.settings, part.runtime)
    except Exception as error:
        if isinstance(error, InputError) or is_out_of_memory(error):
            raise
        raise InputError(
            f"it can't be loaded from {part.model(directory)} ({type(error).__name__}: {error}): mend the "
            f"save and load of its class, or remove that folder and {part.folder(directory)} to fit it anew"
        ) from error


def _predict(part: Part, approach: Approach, samples: Sequence[Sample]) -> list[np.ndarray]:
    """Maps of the samples, or InputError if the approach doesn't keep to what a map is."""
    images = [sample.image() for sample in samples]
    maps = approach.predict(images, IMAGES_A_BATCH)
    if len(maps) != len(images):
        raise InputError(f"it made {len(maps)} maps of {len(images)} images: mend its class")
    for sample, image, probability in zip(samples, images, maps, strict=True):
        if np.shape(probability) != image.shape or not _within_bounds(probability):
            raise InputError(
                f"the map of {sample.id} has the shape {np.shape(probability)} for an "
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
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of scores.csv and of calibration.csv; the maps are stored on the way if they are wanted."""
    maps_folder = part.maps(directory)
    if part.keep_maps:
        make_folder(maps_folder, empty=True)
    rows, bins = [], []
    for done, group in _groups(part.evaluated):
        for sample, probability in zip(group, _predict(part, approach, group), strict=True):
            truth = sample.mask()
            scores = score_map(probability, truth, threshold, sample.spacing)
            rows.append({**_identity(part, sample, threshold), **scores})
            bins.append(reliability_bins(probability, truth))
            if part.keep_maps:
                write_grey(maps_folder / f"{sample.id}.png", probability)
        progress(done, len(part.evaluated), "predicting")
    key = {"approach": part.approach.name, "dataset": part.dataset, "fold": part.fold, "seed": part.seed}
    totals = (sum(counts) for counts in zip(*bins, strict=True))
    return rows, [{**key, **row} for row in calibration_rows(*totals)]


def _identity(part: Part, sample: Sample, threshold: float) -> dict[str, Any]:
    return {
        "approach": part.approach.name,
        "dataset": part.dataset,
        "train_set": part.train_set,
        "n_train": len(part.train),
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
