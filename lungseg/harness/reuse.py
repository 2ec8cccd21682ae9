"""Reuses the rows of trials of a published result where nothing that they depend on has changed.

Whether what this directory has stored is used again is said by `fit.is_fitted` and `evaluate.is_done`.
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
from lungseg.results import FORMAT, TABLES, TEXT_COLUMNS
from lungseg.system.errors import InputError
from lungseg.system.files import make_folder, read_json, write_atomically, write_json

TRIAL_TABLES = ("scores", "calibration", "history", "training", "importance")
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
        InputError: `folder` is `directory`, holds no finished results of this format, has a damaged table, or
            hasn't the rows that its run.json tells of.
    """
    if folder.resolve() == directory.resolve():
        raise InputError(
            f"--reuse names the results directory {directory} itself: leave it out, what is stored there is "
            "used anyway"
        )
    run = read_json(folder / "run.json")
    if run.get("format") != FORMAT or not run.get("finished"):
        raise InputError(
            f"{folder / 'run.json'} is not of a finished benchmark of this version: choose another result "
            "with --reuse, or leave it out"
        )
    origin = {name: run.get(name) for name in ("name", "git", "devices", "finished")}
    if not _is_origin(origin):
        raise InputError(f"{folder / 'run.json'} is damaged: choose another result with --reuse")
    records = _records(folder, run)
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


def _records(folder: Path, run: dict[str, Any]) -> dict[str, dict[str, Any]]:
    records = run.get("trials")
    if not isinstance(records, list) or not all(_is_whole(record) for record in records):
        raise InputError(f"{folder / 'run.json'} has a damaged list of trials: choose another result")
    return {record["key"]: record for record in records}


def _is_whole(record: Any) -> bool:
    return (
        isinstance(record, dict)
        and isinstance(record.get("key"), str)
        and isinstance(record.get("started"), str)
        and isinstance(record.get("seconds"), int | float)
        and (record.get("taken_over") is None or _is_origin(record["taken_over"]))
    )


def _is_origin(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("git"), dict | None):
        return False
    return isinstance(value.get("name"), str) and isinstance(value.get("finished"), str)


def _read(folder: Path, table: str) -> pd.DataFrame:
    path = folder / f"{table}.csv"
    try:
        found = pd.read_csv(path, dtype=str, keep_default_na=False)
        if list(found.columns) != TABLES[table]:
            raise ValueError("other columns than this version writes")
        for column in set(found.columns) - TEXT_COLUMNS:
            pd.to_numeric(found[column])
    except (OSError, ValueError) as error:
        raise InputError(f"{path} can't be used ({error}): choose another result with --reuse") from error
    return found


def _rows(trial: Trial, tables: dict[str, pd.DataFrame], folder: Path) -> dict[str, pd.DataFrame]:
    rows = {table: _of(trial, frame) for table, frame in tables.items()}
    images = sorted(sample.id for sample in trial.fold.evaluated)
    missing = [table for table, frame in rows.items() if frame.empty and table not in MAY_BE_EMPTY]
    if missing or sorted(rows["scores"]["image_id"]) != images or len(rows["training"]) != 1:
        raise InputError(
            f"{folder} hasn't all rows of {trial.label}, which its run.json tells of: choose "
            "another result with --reuse"
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
    told = {name: record[name] for name in ("started", "seconds")}
    origin = record.get("taken_over") or published.origin
    write_json(folder / RECORD, {"key": trial.keys.score, **told, "taken_over": origin})
