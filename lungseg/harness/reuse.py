"""Reuses the rows of trials of a published result where nothing that they depend on has changed.

Whether what this directory has stored is used again is said by `fit.check_fit` and `evaluate.check_rows`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lungseg.harness.evaluate import RECORD, is_done
from lungseg.harness.fit import is_fitted
from lungseg.harness.trial import Trial
from lungseg.results import TRIAL_TABLES, read_run
from lungseg.system.errors import InputError
from lungseg.system.files import make_folder, write_atomically
from lungseg.system.stored import describe_files, write_record

MAY_BE_EMPTY = {"history", "importance"}  # of an approach that learns in one step, or can't tell


@dataclass(frozen=True)
class Published:
    """What a finished result has of a plan; its keys are those of trials' scores.

    Attributes:
        records: by key, those of run.json's `trials`.
        rows: by key, the trial's rows of each table, as text so that no digit changes.
        origin: name, revision, devices and time of that run, for the record of what is taken over.
    """

    records: dict[str, dict[str, Any]]
    rows: dict[str, dict[str, pd.DataFrame]]
    origin: dict[str, Any]


def read_published(folder: Path, trials: Iterable[Trial], directory: Path) -> Published:
    """Read from a result what it has of a plan's trials, before anything of the run is written.

    Args:
        folder: with run.json and tables, such as results/reference/NAME.
        trials: of the plan.
        directory: results directory of the run.

    Raises:
        InputError: `folder` is `directory`, holds no finished results of this version, has a table that
            isn't its run's, or hasn't the rows of a trial under its images' names.
    """
    if folder.resolve() == directory.resolve():
        raise InputError(
            f"--reuse names the results directory {directory} itself: leave it out, what is stored there is "
            "used anyway"
        )
    run = read_run(folder, "choose another result with --reuse, or leave it out")
    origin = {name: run[name] for name in ("name", "git", "devices", "finished")}
    records = {record["key"]: record for record in run["trials"]}
    tables = {name: _read(folder, name) for name in TRIAL_TABLES}
    return Published(
        records, {t.keys.score: _rows(t, tables, folder) for t in trials if t.keys.score in records}, origin
    )


def take_over(trials: Iterable[Trial], directory: Path, published: Published) -> list[Trial]:
    """Store the rows that a result has of trials, as if they had been computed here.

    They are found by their key (code, data, split, settings, versions, kind of machine). Trials of the
    first seed are left out: pictures and timings need their maps and models, which no published result has.
    So are trials that are fitted here already.

    Args:
        trials: of the plan.
        directory: results directory of the run.
        published: what `read_published` has read.

    Returns:
        the trials that were taken over.

    Raises:
        InputError: `directory` can't be written.
    """
    wanted = [
        trial
        for trial in trials
        if trial.keys.score in published.rows
        and not trial.keeps_maps
        and not is_done(trial, directory)
        and not is_fitted(trial, directory)
    ]
    for trial in wanted:
        _store(trial, directory, published)
    return wanted


def _read(folder: Path, table: str) -> pd.DataFrame:
    path = folder / f"{table}.csv"
    if not path.exists():
        raise InputError(f"{path} is missing: choose another result with --reuse")
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def _rows(trial: Trial, tables: dict[str, pd.DataFrame], folder: Path) -> dict[str, pd.DataFrame]:
    rows = {table: _of(trial, frame) for table, frame in tables.items()}
    images = sorted(sample.id for test_set in trial.fold.scored for sample in test_set.samples)
    missing = [table for table, frame in rows.items() if frame.empty and table not in MAY_BE_EMPTY]
    if missing or sorted(rows["scores"]["image_id"]) != images or len(rows["training"]) != 1:
        raise InputError(
            f"{folder} hasn't the rows of {trial.label} under the names of its images; they were replaced if "
            "it was published without --keep-names. Choose another result with --reuse"
        )
    return rows


def _of(trial: Trial, frame: pd.DataFrame) -> pd.DataFrame:
    chosen = pd.Series(True, index=frame.index)
    for column, value in trial.row.items():
        chosen &= frame[column] == str(value)
    return frame[chosen]


def _store(trial: Trial, directory: Path, published: Published) -> None:
    for stale in (trial.model(directory), trial.maps(directory)):  # of another fit of this name
        shutil.rmtree(stale, ignore_errors=True)
    folder = make_folder(trial.folder(directory), empty=True)
    for table, frame in published.rows[trial.keys.score].items():
        write_atomically(folder / f"{table}.csv", frame.to_csv(index=False, lineterminator="\n"))
    record = published.records[trial.keys.score]
    stored = {
        "key": trial.keys.score,
        "started": record["started"],
        "seconds": record["seconds"],
        "taken_over": record.get("taken_over") or published.origin,
        "tables": describe_files(folder, [f"{table}.csv" for table in TRIAL_TABLES]),
        "pictures": {},
    }
    write_record(folder / RECORD, stored)
