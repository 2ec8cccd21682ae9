"""Write a results directory anew with numbers in place of the names of images and patients."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from lungseg.report.write import write_report
from lungseg.results import TABLES, finish_run, read_run
from lungseg.system.files import write_atomically

LEFT_OUT = "left out, since it may name images"  # in the place of a sentence


def has_private_names(run: dict[str, Any]) -> bool:
    """Return whether images of a run are of people and of a dataset that isn't public."""
    return any(_is_private(data) for data in _list_datasets(run))


def _list_datasets(run: dict[str, Any]) -> list[dict[str, Any]]:
    return [data for data in (run["data"], run["training_data"], *run.get("test_data", [])) if data]


def _is_private(data: dict[str, Any]) -> bool:
    return data["real"] and not data.get("public", False)


def write_anonymous(directory: Path, target: Path) -> None:
    """Write run.json, tables, summary and figures of a results directory without names.

    Args:
        directory: of a finished run.
        target: an empty folder.

    Raises:
        InputError: as `read_run` for the directory, or the target can't be written.
    """
    run = read_run(directory)
    scores = pd.read_csv(directory / "scores.csv", dtype=str, keep_default_na=False)
    lists = [*run["splits"], *run.get("trained_on", [])]
    names = [name for each in lists for side in each["ids"].values() for name in side]
    images = _number([*names, *scores["image_id"]], "image")
    patients = _number(scores["patient"], "patient")
    scores = scores.assign(image_id=scores["image_id"].map(images), patient=scores["patient"].map(patients))
    write_atomically(target / "scores.csv", scores.to_csv(index=False, lineterminator="\n"))
    for table in TABLES:
        if table != "scores" and (directory / f"{table}.csv").exists():
            shutil.copyfile(directory / f"{table}.csv", target / f"{table}.csv")
    finish_run(target, _rename(run, images))
    write_report(target)


def _number(names: Iterable[str], what: str) -> dict[str, str]:
    return {name: f"{what}-{number:04d}" for number, name in enumerate(sorted(set(names)), 1)}


def _rename(run: dict[str, Any], images: dict[str, str]) -> dict[str, Any]:
    """run.json with numbers for names. Sentences that may name images keep their number alone."""

    def rename(lists: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            each | {"ids": {side: [images[name] for name in ids] for side, ids in each["ids"].items()}}
            for each in lists
        ]

    # Notes on given masks and on folders name files.
    naming = [entry["name"] for entry in run["approaches"] if (entry["weights"] or {}).get("kind") == "given"]
    naming += [data["dataset"] for data in _list_datasets(run) if _is_private(data)]
    starts = tuple(f"{name}: " for name in naming)
    return run | {
        "splits": rename(run["splits"]),
        "trained_on": rename(run.get("trained_on", [])),
        "notes": [LEFT_OUT if note.startswith(starts) else note for note in run["notes"]],
        "leaks": [LEFT_OUT for _ in run["leaks"]],
        "audit": run["audit"] | {"lookalikes": [LEFT_OUT for _ in run["audit"]["lookalikes"]]},
        "failed": [failure | {"reason": LEFT_OUT} for failure in run["failed"]],
    }
