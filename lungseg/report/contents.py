"""A results directory as the report reads it: run.json, the tables, and which approach is which."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lungseg.results import FORMAT, TABLES, read_json, read_table
from lungseg.system.errors import InputError

NEEDED = ("name", "data", "splits", "approaches")
BASELINES = {"mean-mask", "threshold"}


@dataclass(frozen=True)
class Contents:
    """What a results directory holds.

    Attributes:
        run: run.json as it stands.
        scores, history, timings, timing_pairs, calibration, training, importance, statistics: the tables of
            `lungseg.results.TABLES`, empty if their file is absent; scores, calibration and statistics of
            one dataset only, the run's own.
        other_datasets: datasets that the directory also has statistics of; the report leaves them out.
    """

    directory: Path
    run: dict[str, Any]
    scores: pd.DataFrame
    history: pd.DataFrame
    timings: pd.DataFrame
    timing_pairs: pd.DataFrame
    calibration: pd.DataFrame
    training: pd.DataFrame
    importance: pd.DataFrame
    statistics: pd.DataFrame
    other_datasets: list[str]

    @property
    def names(self) -> list[str]:
        """The approaches in the order of the spec, then those that only the tables know."""
        listed = [entry["name"] for entry in self.run["approaches"]]
        known = [*listed, *self.statistics["approach"], *self.scores["approach"]]
        return [name for name in dict.fromkeys(known) if name]  # a test of all approaches names none

    @property
    def baselines(self) -> set[str]:
        """The names of approaches that don't learn from the image's content."""
        return {entry["name"] for entry in self.run["approaches"] if entry.get("use") in BASELINES}

    @property
    def trained_once(self) -> set[str]:
        """The names of approaches that chance plays a part in and that were trained with one seed."""
        single = len(self.run["seeds"]) < 2
        chance = [entry["name"] for entry in self.run["approaches"] if entry["depends_on_seed"]]
        return {name for name in chance if single or self.statistic(name, "dice").get("seeds") == 1}

    @property
    def groups(self) -> dict[str, list[str]]:
        """The approaches of each group of an ablation, both in the order of the spec; mostly empty."""
        groups: dict[str, list[str]] = {}
        for entry in self.run["approaches"]:
            for group in entry["group"]:
                groups.setdefault(group, []).append(entry["name"])
        return groups

    def weights(self, name: str) -> str:
        """What the approach started from: "ImageNet", "random weights", or "none" if it needs no weights."""
        entry = next((entry for entry in self.run["approaches"] if entry["name"] == name), {})
        kind = (entry.get("weights") or {}).get("kind", "none")
        return {"imagenet": "ImageNet", "random": "random weights"}.get(kind, kind)

    def statistic(self, name: str, metric: str, kind: str = "mean") -> dict[str, Any]:
        """The row of statistics.csv for one approach and metric; empty if there is none."""
        table = self.statistics
        rows = table[(table["approach"] == name) & (table["metric"] == metric) & (table["kind"] == kind)]
        return rows.iloc[0].to_dict() if len(rows) else {}

    def ranked(self) -> list[str]:
        """The approaches that have a mean Dice, best first; equal ones in the order of the spec."""
        means = {name: self.statistic(name, "dice").get("value", float("nan")) for name in self.names}
        return sorted((name for name in means if pd.notna(means[name])), key=lambda name: -means[name])

    def ordered(self, known: Iterable[str]) -> list[str]:
        """Those approaches that `known` holds: best mean Dice first, ones without a mean last."""
        known = set(known)
        return [name for name in dict.fromkeys([*self.ranked(), *self.names]) if name in known]

    def image_dice(self) -> pd.DataFrame:
        """Dice of each image (rows, by id) and approach (columns), seeds and folds averaged."""
        return self.scores.pivot_table(index="image_id", columns="approach", values="dice", aggfunc="mean")

    def sources(self) -> pd.Series:
        """The source of each scored image, by its id; "" if unknown."""
        return self.scores.drop_duplicates("image_id").set_index("image_id")["source"].fillna("")


def read_contents(directory: Path) -> Contents:
    """Reads a results directory.

    Raises InputError if run.json is absent, damaged or of another format, or a table lacks a column.
    """
    run = _read_run(directory / "run.json")
    tables = {name: _read_table(directory, name) for name in TABLES}
    dataset = run["data"].get("dataset")
    found = list(dict.fromkeys(tables["statistics"]["dataset"].dropna()))
    if found and dataset not in found:
        dataset = found[0]
    for name in ("scores", "calibration", "statistics"):
        table = tables[name]
        # Without statistics there is nothing to tell datasets apart by, so all scores are kept.
        tables[name] = table[table["dataset"] == dataset] if found else table
    return Contents(directory, run, other_datasets=[name for name in found if name != dataset], **tables)


def _read_run(path: Path) -> dict[str, Any]:
    run = read_json(path)
    if not isinstance(run, dict) or run.get("format") != FORMAT:
        raise InputError(f"{path} isn't of format {FORMAT}: run the benchmark again with --fresh")
    missing = [key for key in NEEDED if key not in run]
    if missing:
        raise InputError(f"{path} has no '{missing[0]}': run the benchmark again with --fresh")
    return run


def _read_table(directory: Path, name: str) -> pd.DataFrame:
    path = directory / f"{name}.csv"
    try:
        table = read_table(directory, name)
    except (ValueError, pd.errors.ParserError):  # ValueError: also undecodable bytes and an empty file
        raise InputError(f"{path} is damaged: run the benchmark again") from None
    missing = [column for column in TABLES[name] if column not in table]
    if missing:
        raise InputError(f"{path} has no column '{missing[0]}': run the benchmark again with --fresh")
    return table[TABLES[name]]
