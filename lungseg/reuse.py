"""Rows of trainings taken over from a published result, where nothing that they depend on has changed."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lungseg.errors import InputError
from lungseg.fits import is_fitted
from lungseg.parts import Part, is_done
from lungseg.results import FORMAT, TABLES, TEXT_COLUMNS
from lungseg.storage import make_folder, read_json, write_atomically, write_json

PART_TABLES = ("scores", "calibration", "history", "training", "importance")
MAY_BE_EMPTY = {"history", "importance"}  # of an approach that learns in one step, or can't tell


@dataclass(frozen=True)
class Published:
    """What a finished result has of a plan; a key here is a part's, with all that its rows depend on.

    Attributes:
        records: by key, entries of run.json's `parts`.
        rows: by key, the part's rows of each table, as text so that no digit changes.
        origin: name, revision, devices and time of that run, for the record of what is taken over.
    """

    records: dict[str, dict[str, Any]]
    rows: dict[str, dict[str, pd.DataFrame]]
    origin: dict[str, Any]


def read_published(folder: Path, parts: Iterable[Part], directory: Path) -> Published:
    """Reads from a result what it has of a plan's parts, before anything of the run is written.

    Args:
        folder: with run.json and tables, such as results/reference/NAME.
        parts: of the plan.
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
    tables = {name: _read(folder, name) for name in PART_TABLES}
    return Published(records, {p.key: _rows(p, tables, folder) for p in parts if p.key in records}, origin)


def take_over(parts: Iterable[Part], directory: Path, published: Published) -> list[Part]:
    """Stores the rows that a result has of parts under their own key, as if they had been computed here.

    A key takes in code, data, split, settings, versions and the kind of machine. Parts of the first seed are
    left out: pictures and timings need their maps and models, which no published result has. So are parts
    that are fitted here already.

    Args:
        parts: of the plan.
        directory: results directory of the run.
        published: what `read_published` has read.

    Returns:
        the parts that were taken over.

    Raises:
        InputError: `directory` can't be written.
    """
    wanted = [
        part
        for part in parts
        if part.key in published.rows
        and not part.keep_maps
        and not is_done(part, directory)
        and not is_fitted(part, directory)
    ]
    for part in wanted:
        _store(part, directory, published)
    return wanted


def _records(folder: Path, run: dict[str, Any]) -> dict[str, dict[str, Any]]:
    records = run.get("parts")
    if not isinstance(records, list) or not all(_is_whole(record) for record in records):
        raise InputError(f"{folder / 'run.json'} has a damaged list of parts: choose another result")
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


def _rows(part: Part, tables: dict[str, pd.DataFrame], folder: Path) -> dict[str, pd.DataFrame]:
    rows = {table: _of(part, frame) for table, frame in tables.items()}
    images = sorted(sample.id for sample in part.evaluated)
    missing = [table for table, frame in rows.items() if frame.empty and table not in MAY_BE_EMPTY]
    if missing or sorted(rows["scores"]["image_id"]) != images or len(rows["training"]) != 1:
        raise InputError(
            f"{folder} hasn't all rows of {part.label}, which its run.json tells of: choose "
            "another result with --reuse"
        )
    return rows


def _of(part: Part, frame: pd.DataFrame) -> pd.DataFrame:
    names = {"approach": part.approach.name, "fold": str(part.fold), "seed": str(part.seed)}
    chosen = pd.Series(True, index=frame.index)
    for column, value in names.items():
        chosen &= frame[column] == value
    return frame[chosen]


def _store(part: Part, directory: Path, published: Published) -> None:
    for stale in (part.model(directory), part.maps(directory)):  # of another fit of this name
        shutil.rmtree(stale, ignore_errors=True)
    folder = make_folder(part.folder(directory), empty=True)
    for table, frame in published.rows[part.key].items():
        write_atomically(folder / f"{table}.csv", frame.to_csv(index=False, lineterminator="\n"))
    record = published.records[part.key]
    told = {name: record[name] for name in ("started", "seconds")}
    origin = record.get("taken_over") or published.origin
    write_json(folder / "part.json", {"key": part.key, **told, "taken_over": origin})
