"""Fits a trial and stores it, so that it can be scored as often as need be."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lungseg.approaches.base import Approach
from lungseg.learning.fit import FitContext
from lungseg.results import write_table
from lungseg.scoring.validation import ValidationScore
from lungseg.system.distributed import broadcast
from lungseg.system.files import make_folder, remove
from lungseg.system.memory import PeakMemory
from lungseg.system.stored import DamagedError, describe_files, find_damage, read_record, write_record

if TYPE_CHECKING:  # as in `evaluate`
    from lungseg.harness.trial import Trial

Progress = Callable[[int, int, str], None]
BEGUN, RECORD = "begun.json", "fit.json"
TABLES_OF_FIT = ("history.csv", "training.csv", "importance.csv")


def check_fit(trial: Trial, directory: Path) -> tuple[dict[str, Any] | None, str | None]:
    """Return the record of a trial's fit if that can be used again, and what is damaged of it, if anything.

    A fit that isn't stored under the trial's key has no record, and nothing of it is damaged.
    """
    folder = trial.folder(directory)
    try:
        record = read_record(folder / RECORD)
    except DamagedError as error:
        return None, str(error)
    if record is None or record["key"] != trial.keys.fit:
        return None, None
    damage = find_damage(trial.model(directory), record["model"]) or find_damage(folder, record["tables"])
    return (None, damage) if damage else (record, None)


def is_fitted(trial: Trial, directory: Path) -> bool:
    """Tell whether the fitted approach is stored whole under its key."""
    return check_fit(trial, directory)[0] is not None


def fit_trial(trial: Trial, directory: Path, progress: Progress) -> None:
    """Fit a trial and store its model and its tables; go on from its checkpoint.

    The tables: history.csv, training.csv and importance.csv.

    Raises whatever the approach does; what was stored of other trials stays.
    """
    folder = _prepare_folder(trial, directory)
    started = datetime.now(UTC)
    approach = trial.entry.new()
    row, history = _fit(trial, approach, folder, progress)
    approach.save(make_folder(trial.model(directory), empty=True))
    for name, rows in zip(TABLES_OF_FIT, (history, [row], _importance(trial, approach)), strict=True):
        write_table(folder / name, name.removesuffix(".csv"), rows)
    record = {
        "key": trial.keys.fit,
        "trial": trial.label,
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(row["seconds"], 1),
        "accumulation_steps": row["accumulation_steps"],
        "model": describe_files(trial.model(directory)),
        "tables": describe_files(folder, TABLES_OF_FIT),
    }
    write_record(folder / RECORD, record)  # last: it is what makes the fit done


def follow_fit(trial: Trial, directory: Path) -> None:
    """Fit together with the first process, which alone reports and stores; see `system.distributed`."""
    context = _context(trial, trial.folder(directory), lambda **_: None, lambda *_: None)
    trial.entry.new().fit(trial.fold.train, trial.fold.validation, context)


def drop_checkpoints(trial: Trial, directory: Path) -> None:
    """Remove what a fit that is stored went on from."""
    shutil.rmtree(trial.folder(directory) / "checkpoints", ignore_errors=True)


def is_begun(trial: Trial, directory: Path) -> bool:
    """Tell whether a former run has stored some of this fit, or all of it."""
    folder = trial.folder(directory)
    return (_is_same_fit(trial, folder) and _has_checkpoints(folder)) or is_fitted(trial, directory)


def find_replaced_seconds(trial: Trial, directory: Path) -> float | None:
    """Return what another fit that is stored in the trial's place took; None if there is none.

    That is a fit under another key. One that was only begun took NaN seconds; damaged ones don't count.
    """
    folder = trial.folder(directory)
    with suppress(DamagedError):
        record = read_record(folder / RECORD)
        if record is not None and record["key"] != trial.keys.fit and record["trial"] == trial.label:
            return record["seconds"]
        if record is None and _has_checkpoints(folder) and not _is_same_fit(trial, folder):
            return math.nan
    return None


def _has_checkpoints(folder: Path) -> bool:
    return any(file.suffix != ".part" for file in (folder / "checkpoints").glob("*"))


def _is_same_fit(trial: Trial, folder: Path) -> bool:
    """Whether what was begun in the folder is this fit."""
    try:
        begun = read_record(folder / BEGUN)
    except DamagedError:
        return False
    return begun is not None and begun["key"] == trial.keys.fit


def _prepare_folder(trial: Trial, directory: Path) -> Path:
    """The trial's folder, emptied unless it holds checkpoints of the same fit."""
    folder = trial.folder(directory)
    if not _is_same_fit(trial, folder):
        make_folder(folder, empty=True)
        write_record(folder / BEGUN, {"key": trial.keys.fit})
    make_folder(folder / "checkpoints")
    remove(folder / RECORD)  # not done until it is written again
    return folder


def _fit(
    trial: Trial, approach: Approach, folder: Path, progress: Progress
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The rows of training.csv and history.csv."""
    history: list[dict[str, Any]] = []
    context = _context(trial, folder, lambda **row: history.append({**trial.row, **row}), progress)
    if trial.entry.is_network:
        broadcast(trial.label)
    start = time.perf_counter()
    with PeakMemory(trial.entry.runtime.device) as peak:
        report = approach.fit(trial.fold.train, trial.fold.validation, context)
    seconds = time.perf_counter() - start + report.seconds_before
    measured = {"seconds": seconds, "items_per_s": report.items / seconds, **peak.list_cells()}
    return {**trial.row, **measured, **asdict(report)}, history


def _context(trial: Trial, folder: Path, history: Callable[..., None], progress: Progress) -> FitContext:
    """What the fit is given."""
    score = ValidationScore(trial.fold.validation)
    return FitContext(trial.seed, folder / "checkpoints", history, progress, score.mean, score.each)


def _importance(trial: Trial, approach: Approach) -> list[dict[str, Any]]:
    return [
        {**trial.row, "stage": stage, "column": column, "share": round(share, 6)}
        for stage, column, share in approach.importance()
    ]
