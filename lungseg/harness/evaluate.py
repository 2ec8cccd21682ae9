"""Runs a trial: fits it if need be, loads what was fitted, predicts, scores, and stores the rows."""

from __future__ import annotations

import errno
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from lungseg.approaches.base import Approach
from lungseg.data.sample import Sample
from lungseg.harness.fit import RECORD as FIT_RECORD
from lungseg.harness.fit import Progress, check_fit, drop_checkpoints, fit_trial, is_fitted
from lungseg.learning.images.resize import resize_maps
from lungseg.results import TABLES, write_table
from lungseg.scoring.calibration import calibration_rows, reliability_bins
from lungseg.scoring.maps import check_map
from lungseg.scoring.metrics import score_map
from lungseg.scoring.overlap import best_threshold, image_dice
from lungseg.system.errors import InputError, UnwritableError, describe_error, is_out_of_memory
from lungseg.system.files import (
    explain_write_error,
    make_folder,
    remove,
    write_arrays,
    write_atomically,
    write_grey,
)
from lungseg.system.stored import (
    DamagedError,
    Description,
    describe_files,
    find_damage,
    read_record,
    write_record,
)

if TYPE_CHECKING:  # else what plans and trains would count as code that makes scores
    from lungseg.harness.trial import TestSet, Trial

IMAGES_A_BATCH = 8
RECORD, TRACEBACK = "trial.json", "traceback.txt"
PICTURES = "images.json"  # what is stored of the evaluated images
TABLES_OF_ROWS = ("scores.csv", "calibration.csv")


def check_rows(trial: Trial, directory: Path) -> tuple[dict[str, Any] | None, str | None]:
    """Return the record of a trial's rows if they can be used again, and what is damaged, if anything is.

    The fit that they came from counts, and so do the maps where they are wanted. Rows that aren't stored
    under the trial's key have no record, and nothing of them is damaged.
    """
    folder = trial.folder(directory)
    try:
        record = read_record(folder / RECORD)
    except DamagedError as error:
        return None, str(error)
    if record is None or record["key"] != trial.keys.score or (trial.keeps_maps and not record["pictures"]):
        return None, None
    damage = find_damage(folder, record["tables"])
    damage = damage or find_damage(directory / "predictions", record["pictures"])
    if damage is None and "taken_over" not in record:
        fit, damage = check_fit(trial, directory)
        if fit is None and damage is None:
            damage = f"{folder / FIT_RECORD} is missing"
    return (None, damage) if damage else (record, None)


def is_done(trial: Trial, directory: Path) -> bool:
    """Tell whether the trial's rows are stored whole under its key, with the maps if they are wanted."""
    return check_rows(trial, directory)[0] is not None


def run_trial(trial: Trial, directory: Path, progress: Progress) -> None:
    """Fit, predict, score and store one trial; go on from what a former run that was cut has stored.

    Raises:
        InputError: with the trial's name, for whatever ends it; what other trials have stored stays. It is
            an UnwritableError if nothing further can be stored.
    """
    with named_errors(trial, directory):
        if not is_fitted(trial, directory):
            fit_trial(trial, directory, progress)
        drop_checkpoints(trial, directory)  # here, since a kill may come right after the fit
        _evaluate(trial, directory, progress)
    remove(trial.folder(directory) / TRACEBACK)


@contextmanager
def named_errors(trial: Trial, directory: Path) -> Iterator[None]:
    """Turn whatever ends a trial into an InputError that names it; an unknown error's traceback is stored."""
    try:
        yield
    except UnwritableError:
        raise
    except InputError as error:
        raise InputError(f"{trial.label}: {error}") from error
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            text = "ran out of memory: lower its size, its batch or the pixels of each image"
        elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise explain_write_error(trial.folder(directory), error) from error
        elif isinstance(error, OSError) and error.errno:
            where = error.filename or trial.folder(directory)
            text = f"ended at {where}: {error.strerror or error}"
        else:
            place = trial.folder(directory) / TRACEBACK
            write_atomically(place, "".join(traceback.format_exception(error)))
            text = f"ended with {describe_error(error)}: mend its class; where it happened is in {place}"
        raise InputError(f"{trial.label} {text}") from error


def merge(trials: Sequence[Trial], directory: Path, table: str) -> pd.DataFrame:
    """Join the rows of finished trials, in the order of the plan, as text so that no digit changes."""
    paths = [trial.folder(directory) / f"{table}.csv" for trial in trials]
    frames = [pd.read_csv(path, dtype=str, keep_default_na=False) for path in paths]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=TABLES[table])


def store_pictures(samples: Iterable[Sample], directory: Path, sha256: str) -> None:
    """Store evaluated images and truths as 8-bit PNG: the report draws from the directory alone.

    Args:
        samples: the evaluated ones; each is stored once.
        directory: of the results.
        sha256: of the dataset; pictures of another one are removed.
    """
    folder = directory / "predictions"
    known = _read_pictures(folder, sha256)
    for name, sample in {sample.id: sample for sample in samples}.items():
        pair = {side: f"{side}/{name}.png" for side in ("images", "truth")}
        own = {path: known.get(path) for path in pair.values()}
        if None in own.values() or find_damage(folder, own):
            write_grey(folder / pair["images"], sample.image())
            write_grey(folder / pair["truth"], sample.mask())
            known |= describe_files(folder, pair.values())
    write_record(folder / PICTURES, {"dataset": sha256, "files": known})


def _read_pictures(folder: Path, sha256: str) -> Description:
    """What is stored of this dataset; pictures of another one are removed."""
    with suppress(DamagedError):
        record = read_record(folder / PICTURES)
        if record is not None and record["dataset"] == sha256:
            return record["files"]
    for side in ("images", "truth"):
        make_folder(folder / side, empty=True)
    return {}


def _evaluate(trial: Trial, directory: Path, progress: Progress) -> None:
    """Loads, predicts and scores a trial that is fitted, and stores its rows."""
    folder = trial.folder(directory)
    remove(folder / RECORD)  # not done until it is written again
    start = time.perf_counter()
    approach = _load(trial, directory)  # even if it was fitted just now: what is scored is what is stored
    threshold = _threshold(trial, approach, progress)
    row = {
        **trial.row,
        "train_set": trial.fold.train_set,
        "n_train": len(trial.fold.train),
        "threshold": threshold,
    }
    kept = trial.maps(directory) if trial.keeps_maps else None
    rows, calibration = score_sets(approach, trial.fold.scored, row, kept, progress)
    pictures = _describe_pictures(trial, approach, threshold, directory) if trial.keeps_maps else {}
    write_table(folder / "scores.csv", "scores", rows)
    write_table(folder / "calibration.csv", "calibration", calibration)
    fitted, _ = check_fit(trial, directory)
    record = {
        "key": trial.keys.score,
        "started": fitted["started"],
        "seconds": round(time.perf_counter() - start + fitted["seconds"], 1),
        "tables": describe_files(folder, TABLES_OF_ROWS),
        "pictures": pictures,
    }
    write_record(folder / RECORD, record)  # last: it is what makes the trial done


def _describe_pictures(trial: Trial, approach: Approach, threshold: float, directory: Path) -> Description:
    """Stores what an approach's first fold has for figures, and describes it and the trial's maps."""
    folder = directory / "predictions"
    names = [path.relative_to(folder).as_posix() for path in sorted(trial.maps(directory).glob("*.png"))]
    if trial.fold is trial.entry.folds[0]:
        names += _store_features(trial, approach, folder)
        names += _store_stage_maps(trial, approach, threshold, folder)
    return describe_files(folder, names)


def _load(trial: Trial, directory: Path) -> Approach:
    """Loads what was fitted; what its class can't load is one sentence."""
    entry, model = trial.entry, trial.model(directory)
    try:
        return entry.approach_class.load(model, entry.settings, entry.runtime)
    except Exception as error:
        if isinstance(error, InputError) or is_out_of_memory(error):
            raise
        raise InputError(
            f"it can't be loaded from {model} ({describe_error(error)}): mend the save and load of its class"
        ) from error


def _predict(approach: Approach, samples: Sequence[Sample]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Map and truth of each sample. Raises InputError if the approach doesn't keep to what a map is."""
    maps = list(approach.predict_samples(samples, IMAGES_A_BATCH))
    if len(maps) != len(samples):
        raise InputError(f"it made {len(maps)} maps of {len(samples)} images: mend its class")
    for sample, probability in zip(samples, maps, strict=True):
        truth = sample.mask()
        try:
            yield check_map(probability, truth.shape), truth
        except ValueError as error:
            raise InputError(
                f"the map of {sample.id} can't be used, {error}: mend its class or its settings"
            ) from error


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
            yield from (probability for probability, _ in _predict(approach, group))
            progress(done, len(samples), "choosing the threshold")

    return best_threshold(maps(), (sample.mask() for sample in samples))


def score_sets(
    approach: Approach,
    test_sets: Sequence[TestSet],
    row: dict[str, Any],
    maps_folder: Path | None,
    progress: Progress,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Predict and score test sets.

    Args:
        approach: fitted.
        test_sets: what is scored.
        row: columns that all rows of scores.csv have, among them "approach", "fold", "seed", "threshold".
        maps_folder: where the maps of the first test set go; None keeps none. Those of further test sets
            aren't kept, since two of them may have the same ids.
        progress: called with (done, total, text).

    Returns:
        Rows of scores.csv, and of calibration.csv.
    """
    rows, calibration = [], []
    if maps_folder is not None:
        make_folder(maps_folder, empty=True)
    for test_set in test_sets:
        bins = []
        for done, group in _groups(test_set.samples):
            for sample, (probability, truth) in zip(group, _predict(approach, group), strict=True):
                scores = score_map(probability, truth, row["threshold"], sample.spacing)
                rows.append({**row, **_identify(sample), "dataset": test_set.dataset, **scores})
                bins.append(reliability_bins(probability, truth))
                if maps_folder is not None and test_set is test_sets[0]:
                    write_grey(maps_folder / f"{sample.id}.png", probability)
            progress(done, len(test_set.samples), f"predicting {test_set.dataset}")
        totals = (sum(counts) for counts in zip(*bins, strict=True))
        key = {name: row[name] for name in ("approach", "fold", "seed")} | {"dataset": test_set.dataset}
        calibration += [{**key, **each} for each in calibration_rows(*totals)]
    return rows, calibration


def _identify(sample: Sample) -> dict[str, str]:
    return {"image_id": sample.id, "patient": sample.patient, "source": sample.source}


def _store_features(trial: Trial, approach: Approach, folder: Path) -> list[str]:
    """Stores the feature maps of the first evaluated image, if there are any, and returns their file."""
    sample = trial.fold.evaluated[0]
    maps = approach.feature_maps(sample.image())
    if maps is None:
        return []
    name = f"features/{trial.entry.name}.npz"
    write_arrays(folder / name, maps=maps.astype(np.float16), image_id=np.str_(sample.id))
    return [name]


def _store_stage_maps(trial: Trial, approach: Approach, threshold: float, folder: Path) -> list[str]:
    """Stores the map after each stage of the same image with its Dice, and returns their file."""
    sample = trial.fold.evaluated[0]
    stages = approach.stage_maps(sample.image())
    if not stages:
        return []
    truth = sample.mask()
    sized = [resize_maps(torch.from_numpy(found)[None, None], [truth.shape])[0] for _, found in stages]
    arrays = {f"map_{index}": found.astype(np.float16) for index, (_, found) in enumerate(stages)}
    arrays |= {"titles": np.array([title for title, _ in stages]), "image_id": np.str_(sample.id)}
    arrays["dice"] = image_dice(sized, [truth] * len(stages), threshold)
    name = f"stages/{trial.entry.name}.npz"
    write_arrays(folder / name, **arrays)
    return [name]
