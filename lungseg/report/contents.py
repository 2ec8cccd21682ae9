"""Read a results directory for the report: run.json, the tables, and which approach is which."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from lungseg.results import TABLES, read_run, read_table
from lungseg.system.errors import InputError
from lungseg.system.stored import DamagedError, Description, read_record

BASELINES = {"mean-mask", "threshold"}
RANDOM = "random weights"


@dataclass(frozen=True)
class Contents:
    """What a results directory holds: run.json, and the tables of `lungseg.results.TABLES`.

    A table whose file is absent is empty. Approaches have their labels for names, as people read them.
    """

    directory: Path
    run: dict[str, Any]  # run.json
    scores: pd.DataFrame  # like calibration and statistics, of the run's own dataset alone
    history: pd.DataFrame
    timings: pd.DataFrame
    timing_pairs: pd.DataFrame
    calibration: pd.DataFrame
    training: pd.DataFrame
    importance: pd.DataFrame
    statistics: pd.DataFrame
    other_datasets: list[str]  # that have statistics too
    family: int  # comparisons that p values were corrected for, those of other datasets among them
    file_names: dict[str, str]  # of each approach: its name in the spec and in all files

    @cached_property
    def names(self) -> list[str]:
        """The approaches in the order of the spec."""
        return [entry["name"] for entry in self.run["approaches"]]

    @cached_property
    def baselines(self) -> set[str]:
        """The approaches that don't learn from the image's content."""
        return {entry["name"] for entry in self.run["approaches"] if entry["use"] in BASELINES}

    @cached_property
    def shows_people(self) -> bool:
        """Whether any image is of a real person."""
        datasets = [self.run["data"], self.run["training_data"], *self.run.get("test_data", [])]
        return any(data["real"] for data in datasets if data)

    @cached_property
    def trained_once(self) -> set[str]:
        """The approaches that depend on a seed and were trained with one only."""
        single = len(self.run["seeds"]) < 2
        chance = [entry["name"] for entry in self.run["approaches"] if entry["depends_on_seed"]]
        return {name for name in chance if single or self.find_statistic(name, "dice").get("seeds") == 1}

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """The approaches of each group of an ablation, both in the order of the spec; {} without groups."""
        groups: dict[str, list[str]] = {}
        for entry in self.run["approaches"]:
            for group in entry["group"]:
                groups.setdefault(group, []).append(entry["name"])
        return groups

    def find_weights(self, name: str) -> str:
        """Return what an approach started from: "ImageNet", "random weights", or "none"."""
        weights = next(entry["weights"] for entry in self.run["approaches"] if entry["name"] == name)
        kind = weights["kind"] if weights else "none"
        return {"imagenet": "ImageNet", "random": RANDOM}.get(kind, kind)

    def find_statistic(self, name: str, metric: str, kind: str = "mean") -> dict[str, Any]:
        """Return the row of statistics.csv for one approach and metric; {} if there is none."""
        return self._statistics.get((name, metric, kind), {})

    @cached_property
    def _statistics(self) -> dict[tuple[str, str, str], dict[str, Any]]:
        """The first row of each approach, metric and kind; a search in the table for each takes seconds."""
        rows = reversed(self.statistics.to_dict("records"))
        return {(row["approach"], row["metric"], row["kind"]): row for row in rows}

    @cached_property
    def ranked(self) -> list[str]:
        """The approaches that have a mean Dice, best first; equal ones in the order of the spec."""
        means = {name: self.find_statistic(name, "dice").get("value", float("nan")) for name in self.names}
        return sorted((name for name in means if pd.notna(means[name])), key=lambda name: -means[name])

    def sort_names(self, known: Iterable[str]) -> list[str]:
        """Sort the approaches in `known`: best mean Dice first, those without a mean last."""
        known = set(known)
        return [name for name in dict.fromkeys([*self.ranked, *self.names]) if name in known]

    @cached_property
    def image_dice(self) -> pd.DataFrame:
        """Dice of each image (rows, by id) and approach (columns), averaged over seeds and folds."""
        return self.scores.pivot_table(index="image_id", columns="approach", values="dice", aggfunc="mean")

    @cached_property
    def pictures(self) -> Description:
        """What the run stored below `predictions`. Raises InputError if a record of it is damaged."""
        places = [(self.directory / "predictions" / "images.json", "files")]
        for trial in self.run["trials"]:
            name = self.file_names.get(trial["approach"], trial["approach"])
            folder = self.directory / "trials" / name / f"f{trial['fold']}-s{trial['seed']}"
            places.append((folder / "trial.json", "pictures"))
        found: Description = {}
        for path, key in places:
            try:
                found |= (read_record(path) or {}).get(key, {})
            except DamagedError as error:
                raise InputError(f"{error}: run the benchmark again") from None
        return found

    @cached_property
    def sources(self) -> pd.Series:
        """The source of each scored image by its id; "" if unknown."""
        return self.scores.drop_duplicates("image_id").set_index("image_id")["source"].fillna("")


def read_contents(directory: Path, whole: bool = False) -> Contents:
    """Read a results directory: of its tables the rows of the run's own dataset alone, unless `whole`.

    Raises InputError as `read_run` does: if run.json is absent, damaged, of another version or of a run that
    isn't finished, or a table isn't that run's.
    """
    run = read_run(directory)
    labels = {entry["name"]: entry.get("label", entry["name"]) for entry in run["approaches"]}
    run = _label(run, labels)
    tables = {name: read_table(directory, name) for name in TABLES}
    for table in tables.values():
        for column in table.columns.intersection(["approach", "other"]):
            table[column] = table[column].map(labels).fillna(table[column])
    dataset = run["data"].get("dataset")
    found = list(dict.fromkeys(tables["statistics"]["dataset"].dropna()))
    if found and dataset not in found:
        dataset = found[0]
    names = {label: name for name, label in labels.items()}
    statistics = tables["statistics"]
    family = int(((statistics["kind"] == "paired") & statistics["p_holm"].notna()).sum())
    contents = Contents(directory, run, other_datasets=[], family=family, file_names=names, **tables)
    # Without statistics it isn't known which datasets there are: all scores are kept.
    return _choose_dataset(contents, dataset, found) if found and not whole else contents


def list_further_contents(contents: Contents) -> list[Contents]:
    """Return the same for each further test set: its scores, statistics and calibration, and no times."""
    if not contents.other_datasets:
        return []
    whole = read_contents(contents.directory, whole=True)
    known = {entry["dataset"]: entry for entry in contents.run.get("test_data", [])}
    found = [contents.run["data"]["dataset"], *contents.other_datasets]
    tables = contents.run["spec"].get("test_data", [])
    split = {each["name"] or each["dataset"] for each in tables if each.get("split")}
    further = []
    for name in contents.other_datasets:
        chosen = _choose_dataset(whole, name, found)
        count = chosen.scores["image_id"].nunique()
        data = known.get(name, {"dataset": name, "count": count})
        part = contents.run["evaluate_on"] if name in split else "test"
        run = contents.run | {"data": data, "evaluate_on": part}
        further.append(replace(chosen, run=run, timings=chosen.timings.iloc[:0]))
    return further


def _choose_dataset(contents: Contents, dataset: str, found: list[str]) -> Contents:
    """Keep the rows of one dataset in the tables that name it."""
    tables = {name: getattr(contents, name) for name in ("scores", "calibration", "statistics")}
    kept = {name: table[table["dataset"] == dataset] for name, table in tables.items()}
    return replace(contents, other_datasets=[name for name in found if name != dataset], **kept)


def _label(run: dict[str, Any], labels: dict[str, str]) -> dict[str, Any]:
    """Put labels in the place of approaches' names, wherever run.json has one in a field of its own."""

    def rename(key: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**row, key: labels.get(row[key], row[key])} if key in row else row for row in rows]

    own = {
        key: rename("approach", run[key])
        for key in ("trials", "failed", "splits", "trained_on")
        if key in run
    }
    empty = {labels.get(cell, cell): reason for cell, reason in run["empty"].items()}
    return run | own | {"approaches": rename("name", run["approaches"]), "empty": empty}
