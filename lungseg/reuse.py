"""Rows of trainings taken over from a published result, where nothing that they depend on has changed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from lungseg.errors import InputError
from lungseg.parts import Part, is_done
from lungseg.results import TABLES
from lungseg.storage import make_folder, read_json, write_atomically, write_json

PART_TABLES = ("scores", "calibration", "history", "training", "importance")


def take_over(parts: Iterable[Part], directory: Path, published: Path) -> list[Part]:
    """Stores the rows that a result has of parts under their own key, as if they had been computed here.

    A key takes in code, data, split, settings, versions and the kind of machine. Parts of the first seed are
    left out: pictures and timings need their maps and models, which no published result has.

    Args:
        parts: of the plan; those that are done stay as they are.
        directory: results directory of the run.
        published: folder with run.json and tables, such as results/reference/NAME.

    Returns:
        the parts that were taken over.

    Raises:
        InputError: `published` holds no results, a damaged table, or one without the rows that its run.json
            tells of.
    """
    records = {record.get("key"): record for record in _parts_of(published)}
    wanted = [
        part for part in parts if part.key in records and not part.keep_maps and not is_done(part, directory)
    ]
    if not wanted:
        return []
    tables = {table: _read(published, table) for table in PART_TABLES}
    for part in wanted:
        _store(part, directory, published, tables, records[part.key])
    return wanted


def _parts_of(published: Path) -> list[dict[str, Any]]:
    found = read_json(published / "run.json").get("parts", [])
    if not isinstance(found, list) or not all(isinstance(record, dict) for record in found):
        raise InputError(f"{published / 'run.json'} has no list of parts: reuse another result")
    return found


def _read(published: Path, table: str) -> pd.DataFrame:
    """As text, so that no digit changes; empty if the result has no such table."""
    path = published / f"{table}.csv"
    if not path.exists():
        return pd.DataFrame(columns=TABLES[table])
    try:
        found = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} can't be read ({error}): reuse another result") from error
    if list(found.columns) != TABLES[table]:
        raise InputError(f"{path} has other columns than this version writes: reuse another result")
    return found


def _store(
    part: Part, directory: Path, published: Path, tables: dict[str, pd.DataFrame], record: dict[str, Any]
) -> None:
    rows = {table: _of(part, frame) for table, frame in tables.items()}
    if sorted(rows["scores"]["image_id"]) != sorted(sample.id for sample in part.evaluated):
        raise InputError(
            f"{published / 'scores.csv'} has not one row for each evaluated image of {part.label}, which "
            "its run.json tells of: reuse another result"
        )
    folder = make_folder(part.folder(directory), empty=True)
    for table, frame in rows.items():
        write_atomically(folder / f"{table}.csv", frame.to_csv(index=False, lineterminator="\n"))
    told = {name: record.get(name) for name in ("started", "seconds")}
    write_json(folder / "part.json", {"key": part.key, **told, "taken_over": True})


def _of(part: Part, frame: pd.DataFrame) -> pd.DataFrame:
    names = {"approach": part.approach.name, "fold": str(part.fold), "seed": str(part.seed)}
    chosen = pd.Series(True, index=frame.index)
    for column, value in names.items():
        chosen &= frame[column] == value
    return frame[chosen]
