"""Runs a trial: fits it if need be, loads what was fitted, predicts, scores, and stores the rows."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lungseg.approaches.base import Approach
from lungseg.data.sample import Sample
from lungseg.harness.fit import RECORD as FIT_RECORD
from lungseg.harness.fit import Progress, drop_checkpoints, fit_trial, is_fitted
from lungseg.harness.trial import Trial
from lungseg.results import TABLES, write_table
from lungseg.scoring.calibration import calibration_rows, reliability_bins
from lungseg.scoring.metrics import score_map
from lungseg.scoring.overlap import best_threshold
from lungseg.system.errors import InputError, is_out_of_memory
from lungseg.system.files import (
    explain_write_error,
    make_folder,
    read_json,
    write_arrays,
    write_grey,
    write_json,
)

IMAGES_A_BATCH = 8
RECORD = "trial.json"


def is_done(trial: Trial, directory: Path) -> bool:
    """Tell whether the trial's rows are stored under its key, with the maps if they are wanted."""
    stored = trial.folder(directory) / RECORD
    if not stored.exists() or read_json(stored).get("key") != trial.keys.score:
        return False
    return trial.maps(directory).is_dir() or not trial.keeps_maps


def run_trial(trial: Trial, directory: Path, progress: Progress) -> None:
    """Fit, predict, score and store one trial; go on from what a former run that was cut has stored.

    Raises:
        InputError: something the user can mend; what other trials have stored stays.
    """
    with named_errors(trial, directory):
        if not is_fitted(trial, directory):
            fit_trial(trial, directory, progress)
        drop_checkpoints(trial, directory)  # here, since a kill may come right after the fit
        _evaluate(trial, directory, progress)


@contextmanager
def named_errors(trial: Trial, directory: Path) -> Iterator[None]:
    """Turn what the user can mend into an InputError that names the trial."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{trial.label}: {error}") from error
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(
            f"{trial.label} ran out of memory: lower its size, its batch or the pixels of each image"
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise explain_write_error(trial.folder(directory), error) from error
        where = error.filename or trial.folder(directory)
        raise InputError(f"{trial.label} ended at {where}: {error.strerror or error}") from error


def merge(trials: Sequence[Trial], directory: Path, table: str) -> pd.DataFrame:
    """Join the rows of all finished trials, in the order of the plan, as text so that no digit changes."""
    frames = [
        pd.read_csv(trial.folder(directory) / f"{table}.csv", dtype=str, keep_default_na=False)
        for trial in trials
        if is_done(trial, directory)
    ]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=TABLES[table])


def store_pictures(trials: Sequence[Trial], directory: Path, sha256: str) -> None:
    """Store evaluated images and truths as 8-bit PNG: the report draws from the directory alone.

    Args:
        trials: whose evaluated images are stored.
        sha256: of the dataset; pictures of another one are removed.
    """
    folder = directory / "predictions"
    stored = folder / "images.json"
    if not (stored.exists() and read_json(stored).get("sha256") == sha256):
        for side in ("images", "truth"):
            make_folder(folder / side, empty=True)
        write_json(stored, {"sha256": sha256})
    for trial in trials:
        for sample in trial.fold.evaluated:
            if not (folder / "truth" / f"{sample.id}.png").exists():
                write_grey(folder / "images" / f"{sample.id}.png", sample.image())
                write_grey(folder / "truth" / f"{sample.id}.png", sample.mask())


def _evaluate(trial: Trial, directory: Path, progress: Progress) -> None:
    """Loads, predicts and scores a trial that is fitted, and stores its rows."""
    folder = trial.folder(directory)
    (folder / RECORD).unlink(missing_ok=True)  # not done until it is written again
    start = time.perf_counter()
    approach = _load(trial, directory)  # even if it was fitted just now: what is scored is what is stored
    threshold = _threshold(trial, approach, progress)
    rows, calibration = _score(trial, approach, threshold, directory, progress)
    if trial.keeps_maps:
        _store_features(trial, approach, directory)
    write_table(folder / "scores.csv", "scores", rows)
    write_table(folder / "calibration.csv", "calibration", calibration)
    fitted = read_json(folder / FIT_RECORD)
    seconds = round(time.perf_counter() - start + fitted["seconds"], 1)
    # Last: it is what makes the trial done.
    write_json(folder / RECORD, {"key": trial.keys.score, "started": fitted["started"], "seconds": seconds})


def _load(trial: Trial, directory: Path) -> Approach:
    """Loads what was fitted; what its class can't load is one sentence."""
    entry, model = trial.entry, trial.model(directory)
    try:
        return entry.approach_class.load(model, entry.settings, entry.runtime)
    except Exception as error:
        if isinstance(error, InputError) or is_out_of_memory(error):
            raise
        raise InputError(
            f"it can't be loaded from {model} ({type(error).__name__}: {error}): mend the save and load of "
            f"its class, or remove that folder and {trial.folder(directory)} to fit it anew"
        ) from error


def _predict(approach: Approach, samples: Sequence[Sample]) -> list[np.ndarray]:
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


def _threshold(trial: Trial, approach: Approach, progress: Progress) -> float:
    """The threshold of the spec, or the one with the best Dice on the validation images."""
    chosen, samples = trial.entry.spec.threshold, trial.fold.validation
    if chosen != "validation":
        return float(chosen)

    def maps() -> Iterator[np.ndarray]:
        for done, group in _groups(samples):
            yield from _predict(approach, group)
            progress(done, len(samples), "choosing the threshold")

    return best_threshold(maps(), (sample.mask() for sample in samples))


def _score(
    trial: Trial, approach: Approach, threshold: float, directory: Path, progress: Progress
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of scores.csv and of calibration.csv; the maps are stored on the way if they are wanted."""
    maps_folder, fold = trial.maps(directory), trial.fold
    if trial.keeps_maps:
        make_folder(maps_folder, empty=True)
    rows, bins = [], []
    for done, group in _groups(fold.evaluated):
        for sample, probability in zip(group, _predict(approach, group), strict=True):
            truth = sample.mask()
            scores = score_map(probability, truth, threshold, sample.spacing)
            rows.append({**_identity(trial, sample, threshold), **scores})
            bins.append(reliability_bins(probability, truth))
            if trial.keeps_maps:
                write_grey(maps_folder / f"{sample.id}.png", probability)
        progress(done, len(fold.evaluated), "predicting")
    totals = (sum(counts) for counts in zip(*bins, strict=True))
    return rows, [{**trial.row, "dataset": fold.dataset, **row} for row in calibration_rows(*totals)]


def _identity(trial: Trial, sample: Sample, threshold: float) -> dict[str, Any]:
    """The columns of scores.csv that say what a row is of."""
    return {
        **trial.row,
        "dataset": trial.fold.dataset,
        "train_set": trial.fold.train_set,
        "n_train": len(trial.fold.train),
        "image_id": sample.id,
        "patient": sample.patient,
        "source": sample.source,
        "threshold": threshold,
    }


def _store_features(trial: Trial, approach: Approach, directory: Path) -> None:
    sample = trial.fold.evaluated[0]
    maps = approach.feature_maps(sample.image())
    if maps is None:
        return
    path = directory / "predictions" / "features" / f"{trial.entry.name}.npz"
    write_arrays(path, maps=maps.astype(np.float16), image_id=np.str_(sample.id))
