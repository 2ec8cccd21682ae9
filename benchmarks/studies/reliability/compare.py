"""Compares results directories: the tables, models and pictures of two runs have to be the same bytes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

# Columns of training.csv that differ from run to run.
TIMES = (
    *("seconds", "items_per_s", "peak_memory_mib", "wait_share"),
    *("reserved_memory_mib", "process_memory_mib", "host_memory_mib", "busy_share"),
)
TIMED = ("timings.csv", "timing_pairs.csv")
SUMMARY = ("report.html", "summary.md", "summary.csv", "summary.tex", "summary-full.tex", "datapackage.json")
STORED = ("models", "predictions")


def find_difference(expected: Path, found: Path, timed: bool = False) -> str | None:
    """Say in which file a finished directory differs from another of the same benchmark; None if in none.

    Compared are all tables but the summary's, the tables of trials, models, maps and pictures; of
    training.csv all columns but those of times.

    Args:
        expected, found: the two directories.
        timed: predictions were timed, so the tables of times differ.
    """
    names = set(_list_compared(expected)) | set(_list_compared(found))
    for name in sorted(names):
        if timed and name in TIMED:
            continue
        if not (found / name).is_file():
            return f"{name} is missing"
        if not (expected / name).is_file():
            return f"{name} is there and should not be"
        if read_without_times(expected / name) != read_without_times(found / name):
            return f"{name} differs"
    return None


def _list_compared(directory: Path) -> Iterator[str]:
    """Names of the files that are compared, below the directory."""
    places = [*directory.glob("*.csv"), *directory.glob("trials/*/*/*.csv")]
    for folder in STORED:
        places += [path for path in (directory / folder).rglob("*") if path.suffix not in (".json", ".part")]
    for path in places:
        if path.is_file() and path.name not in SUMMARY:
            yield path.relative_to(directory).as_posix()


def find_changed(expected: Path, found: Path, patterns: tuple[str, ...]) -> str | None:
    """Say which file of the patterns isn't the same bytes in both directories; None if all are."""
    both = (expected, found)
    places = [(base, path) for base in both for pattern in patterns for path in base.glob(pattern)]
    names = {path.relative_to(base) for base, path in places if path.is_file()}
    for name in sorted(names):
        if not all((directory / name).is_file() for directory in both):
            return f"{name.as_posix()} is in one of them alone"
        if (expected / name).read_bytes() != (found / name).read_bytes():
            return f"{name.as_posix()} differs"
    return None


def read_without_times(path: Path) -> bytes | list[dict[str, str]]:
    """Read a file's bytes; of a training.csv the rows without the columns of times."""
    data = path.read_bytes()
    if path.name != "training.csv":
        return data
    rows = csv.DictReader(io.StringIO(data.decode()))
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]
