"""Write datapackage.json: what each column of each CSV file of a results directory is, for programs.

A Data Package of version 2 (https://datapackage.org), which libraries for Python, R and Julia read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lungseg.report.columns import DESCRIPTIONS, ROWS
from lungseg.report.contents import Contents
from lungseg.report.sentences.images import describe_images
from lungseg.results import TEXT_COLUMNS
from lungseg.system.files import write_json
from lungseg.system.stored import describe_files

PROFILES = "https://datapackage.org/profiles/2.0/"
INTEGERS = {
    *("fold", "seed", "n_train", "tp", "fp", "fn", "tn", "step", "items", "parameters", "best_step", "bin"),
    *("count", "height", "width", "batch_size", "repeats", "rounds", "n", "seeds", "better", "worse", "tied"),
    *("best_batch_size", "leaks", "void_rounds"),
}
BOOLEANS = {"compiled", "copies", "tuned", "primary", "distinguishable"}
TEXTS = TEXT_COLUMNS | {"weights", "group", "compute_precision"}
NUMBER_FORMATS = {"timings", "timing_pairs"}  # where "precision" is one; elsewhere it is a metric
# What no two rows of a table share. Other tables have empty cells where rows differ.
KEYS = {
    "scores": ["dataset", "approach", "fold", "seed", "image_id"],
    "history": ["approach", "fold", "seed", "step"],
    "training": ["approach", "fold", "seed"],
    "calibration": ["dataset", "approach", "fold", "seed", "bin"],
    "importance": ["approach", "fold", "seed", "stage", "column"],
}


def write_datapackage(contents: Contents) -> None:
    """Write datapackage.json for the CSV files that lie in the results directory.

    The same files give the same bytes. Raises InputError if it can't be written.
    """
    directory, run = contents.directory, contents.run
    tables = [name for name in DESCRIPTIONS if (directory / f"{name}.csv").exists()]
    package = {
        "$schema": f"{PROFILES}datapackage.json",
        "name": run["name"].lower(),
        "title": f"lungseg benchmark {run['name']}",
        "description": describe_images(contents),
        "created": run["finished"],
        "resources": [_describe_table(directory, name) for name in tables],
    }
    write_json(directory / "datapackage.json", package)


def _describe_table(directory: Path, table: str) -> dict[str, Any]:
    """Describe one CSV file; its columns are those of its header line."""
    file = f"{table}.csv"
    with (directory / file).open(encoding="utf-8") as lines:
        header = lines.readline().rstrip("\n").split(",")
    stored = describe_files(directory, [file])[file]
    schema: dict[str, Any] = {
        "$schema": f"{PROFILES}tableschema.json",
        "fields": [_describe_column(table, name) for name in header],
        "missingValues": [""],
    }
    if table in KEYS:
        schema["primaryKey"] = KEYS[table]
    return {
        "$schema": f"{PROFILES}dataresource.json",
        "name": table,
        "path": file,
        "type": "table",
        "description": ROWS[table],
        "format": "csv",
        "mediatype": "text/csv",
        "encoding": "utf-8",
        "bytes": stored["bytes"],
        "hash": f"sha256:{stored['sha256']}",
        "schema": schema,
    }


def _describe_column(table: str, name: str) -> dict[str, str]:
    unit, text, empty = DESCRIPTIONS[table][name]
    field = {"name": name, "type": _find_type(table, name), "description": text}
    if empty:
        field["description"] += f" Empty: {empty[:1].lower()}{empty[1:]}"
    return field | ({"unit": unit} if unit else {})


def _find_type(table: str, name: str) -> str:
    if name in TEXTS or (name == "precision" and table in NUMBER_FORMATS):
        return "string"
    if name in BOOLEANS:
        return "boolean"
    return "integer" if name in INTEGERS else "number"
