"""Score the stored models of a finished benchmark on another dataset; nothing is trained again."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from lungseg.approaches.base import Approach
from lungseg.approaches.fitted import describe_fit, load_fitted
from lungseg.approaches.registry import APPROACHES
from lungseg.data.loading import LoadedDataset, load_dataset
from lungseg.data.splits import Split
from lungseg.harness.evaluate import RECORD, TABLES_OF_ROWS, score_sets, store_pictures
from lungseg.harness.fit import RECORD as FIT_RECORD
from lungseg.harness.fit import Progress
from lungseg.harness.folds import divide_options
from lungseg.harness.keys import SCORE_CODE
from lungseg.harness.leaks import Audit, audit_folds, join_audits, refuse
from lungseg.harness.results_folder import claim, remove_figures
from lungseg.harness.trial import Fold, TestSet
from lungseg.report.write import Report, write_report
from lungseg.results import finish_run, read_run, read_table, write_table
from lungseg.scoring.statistics import summarise
from lungseg.spec import DataSpec, Spec, TestDataSpec, TrainingDataSpec
from lungseg.system.errors import InputError
from lungseg.system.files import FOLDER_NAME, make_folder, write_atomically
from lungseg.system.hashing import hash_code, hash_value
from lungseg.system.machine import describe_cpu, find_git_revision, find_gpu_name, list_versions
from lungseg.system.nvml import describe_gpu
from lungseg.system.plugins import load_class
from lungseg.system.progress import Reporter
from lungseg.system.runtime import Runtime, keep_process_state
from lungseg.system.stored import (
    DamagedError,
    Description,
    describe_files,
    find_damage,
    read_record,
    write_record,
)
from lungseg.system.usable_runtime import usable_runtime

Table = DataSpec | TrainingDataSpec | TestDataSpec


@dataclass(frozen=True)
class _Stored:
    """A trial of the finished benchmark whose model is there."""

    row: dict[str, Any]  # approach, fold, seed, train_set, n_train, threshold: columns of scores.csv
    facts: dict[str, Any]  # the approach in run.json
    model: Path
    files: Description  # of the model
    keeps_maps: bool

    @property
    def place(self) -> Path:
        return Path(self.row["approach"]) / f"f{self.row['fold']}-s{self.row['seed']}"


def evaluate_results(
    results: Path,
    dataset: str,
    options: dict[str, Any],
    out: Path | None = None,
    name: str | None = None,
    device: str | None = None,
    spec: Spec | None = None,
    allow_leaks: bool = False,
    reporter: Reporter | None = None,
) -> Report:
    """Score all stored models of a finished benchmark on all images of another dataset.

    The rows are those that `[[test_data]]` in the benchmark's spec gives. A run that was stopped goes on.

    Args:
        results: a results directory with its models.
        dataset: a name that `lungseg data list` shows, or a class.
        options: its keys.
        out: the new results directory; by default beside `results`, with "-on-NAME" behind its name.
        name: what tables call the dataset; by default as `dataset`.
        device: "auto", "cpu" or "cuda".
        spec: of the benchmark, which names its training images; by default as its results have it, which
            have no absolute paths.
        allow_leaks: go on although an image or a patient was trained on too, or that can't be found out.
        reporter: says and shows progress.

    Returns:
        The report.

    Raises:
        InputError: the run isn't finished or has no models, the dataset can't be used, or a leak was found.
    """
    reporter = reporter or Reporter()
    run = read_run(results)
    stored = Spec.model_validate(run["spec"])
    runtime, _ = usable_runtime(stored.runtime, device)
    trials = _list_stored(results, run)
    label = name or re.sub(r"[^A-Za-z0-9._-]", "-", dataset)
    if not re.fullmatch(FOLDER_NAME, label):
        raise InputError(f"--name {label!r} can't be used: give letters, digits, '.', '_' and '-'")
    reporter.say("Reading data ...")
    tested = load_dataset(dataset, options)
    if not tested.dataset.has_images:
        raise InputError(f"the dataset {dataset!r} has no images to predict from: choose another one")
    tested = replace(tested, name=label)
    audit, note = _audit(run, spec or stored, tested, reporter)
    if note and not allow_leaks:
        raise InputError(f"{note}: name the benchmark's spec with --spec, or go on with --allow-leaks")
    if audit.leaks and not allow_leaks:
        raise InputError(refuse(audit.leaks, [tested], "--allow-leaks"))
    results = results.resolve()
    out = out or results.with_name(f"{results.name}-on-{label}")
    spec = stored.model_copy(update={"name": f"{run['name']}-on-{label}"[:80]})
    with claim(out, spec, False):
        record = _make_record(run, spec, tested, runtime, audit, note)
        write_record(out / "run.json", record)
        _score_all(trials, tested, out, runtime, reporter)
        _write_tables(results, trials, out)
        record["trials"] = [_describe_trial(trial, out) for trial in trials]
        record["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
        record["seconds"] = round(sum(each["seconds"] for each in record["trials"]), 1)
        finish_run(out, record)
        remove_figures(out)
        return write_report(out)


def _list_stored(results: Path, run: dict[str, Any]) -> list[_Stored]:
    """The trials of a finished run that have a model. Raises InputError if one is gone or damaged.

    Rows of masks that were given are left out: nothing can predict another image.
    """
    scores = read_table(results, "scores")
    entries = {
        entry["name"]: entry for entry in run["approaches"] if (entry["weights"] or {}).get("kind") != "given"
    }
    first_seeds: dict[str, int] = {}
    found = []
    for trial in run["trials"]:
        if trial["approach"] not in entries:
            continue
        key = {name: trial[name] for name in ("approach", "fold", "seed")}
        first_seeds.setdefault(key["approach"], key["seed"])
        own = scores[(scores[list(key)] == pd.Series(key)).all(axis=1)].iloc[0]
        row = key | {name: own[name] for name in ("train_set", "n_train", "threshold")}
        place = f"{key['approach']}/f{key['fold']}-s{key['seed']}"
        model = results / "models" / place
        files = describe_fit(results / "trials" / place / FIT_RECORD, model)
        keeps_maps = key["seed"] == first_seeds[key["approach"]]
        found.append(_Stored(row, entries[key["approach"]], model, files, keeps_maps))
    if not found:
        raise InputError(f"all masks in {results} were given, so there is no model: use `lungseg score`")
    return found


def _audit(
    run: dict[str, Any], spec: Spec, tested: LoadedDataset, reporter: Reporter
) -> tuple[Audit, str | None]:
    """Look for images of the test set among those that were trained on, if these are on this machine.

    Also returns why that was left out, or None.
    """
    audits = [Audit(0, False, 0, 0, (), ())]
    for record, table, splits in _list_trained(run, spec):
        try:
            trained = replace(_load_table(table), name=record["dataset"])
        except InputError as error:
            return audits[0], f"no leak audit: the images that were trained on can't be read here ({error})"
        if trained.sha256 != record["sha256"]:
            return audits[0], "no leak audit: the images that were trained on have changed since"
        folds = [_make_fold(split, trained, tested) for split in splits]
        with reporter.bar("leak audit") as move:
            audits.append(audit_folds([tested], trained, folds, move))
    return join_audits(audits), None


def _list_trained(
    run: dict[str, Any], spec: Spec
) -> list[tuple[dict[str, Any], Table, list[dict[str, Any]]]]:
    """What was trained on: the record and the spec's table of each dataset, and the sides of its folds."""
    first = run["training_data"] or run["data"]
    found = [(first, spec.training_data or spec.data, run["splits"])]
    others = run.get("trained_on", [])
    for record, table in zip(run.get("test_data", []), spec.test_data, strict=True):
        if splits := [each for each in others if each["train_set"] == record["dataset"]]:
            found.append((record, table, splits))
    return found


def _load_table(table: Table) -> LoadedDataset:
    own = table.options if isinstance(table, TrainingDataSpec) else divide_options(table)[0]
    return load_dataset(table.dataset, own)


def _make_fold(split: dict[str, Any], trained: LoadedDataset, tested: LoadedDataset) -> Fold:
    """A fold of the benchmark, with the test set in the place of its own."""
    sides = [trained.pick(split["ids"][side]) for side in ("train", "validation")]
    whole = Split("all", split["fold"], (), (), tuple(tested.samples))
    return Fold(whole, tested.name, trained.name, *sides, tuple(tested.samples.values()))


def _make_record(
    run: dict[str, Any], spec: Spec, tested: LoadedDataset, runtime: Runtime, audit: Audit, note: str | None
) -> dict[str, Any]:
    """run.json of the evaluation: that of the benchmark, but for what is other here."""
    ids = list(tested.samples)
    splits = [
        split
        | {"rule": "all", "test": len(ids), "evaluated": len(ids), "ids": split["ids"] | {"evaluated": ids}}
        for split in run["splits"]
    ]
    changed = {
        "name": spec.name,
        "evaluated_from": {key: run[key] for key in ("name", "git", "finished")},
        "versions": list_versions(),
        "devices": {"cpu": describe_cpu(), "cuda": find_gpu_name()},
        "gpu": describe_gpu(),
        "device": runtime.device.type,
        "precision": runtime.precision,
        "threads": runtime.threads,
        "processes": 1,
        "git": find_git_revision(),
        "data": tested.describe(),
        "training_data": run["training_data"] or run["data"],
        "test_data": [],
        "splits": splits,
        "evaluate_on": "test",
        "notes": [*tested.notes, *([note] if note else [])],
        "trials": [],
        "empty": {"timings": "stored models were scored, and none was timed"},
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "finished": None,
        "seconds": None,
    }
    return run | changed | audit.record()


def _score_all(
    trials: Sequence[_Stored], tested: LoadedDataset, out: Path, runtime: Runtime, reporter: Reporter
) -> None:
    test_set = TestSet(tested.name, tuple(tested.samples.values()))
    identities = [(each.id, each.patient, each.source, each.spacing) for each in test_set.samples]
    facts = [tested.name, tested.sha256, identities, describe_cpu(), str(runtime), list_versions()]
    for trial in trials:
        own = [trial.row, trial.files, *(trial.facts[key] for key in ("use", "settings", "weights"))]
        approach_class = load_class(trial.facts["use"], APPROACHES, Approach, "approach")
        key = hash_value([*facts, *own, hash_code(SCORE_CODE, approach_class, type(tested.dataset))])
        title = f"{trial.row['approach']}, fold {trial.row['fold']}, seed {trial.row['seed']}"
        if _is_scored(out, trial, key):
            reporter.say(f"{title}: stored by a former run")
            continue
        with keep_process_state(runtime.threads), reporter.bar(title, trial.row["approach"]) as move:
            _score(trial, test_set, out, runtime, key, move)
    store_pictures(test_set.samples, out, tested.sha256)


def _is_scored(out: Path, trial: _Stored, key: str) -> bool:
    folder = out / "trials" / trial.place
    try:
        record = read_record(folder / RECORD)
    except DamagedError:
        return False
    if record is None or record["key"] != key:
        return False
    damage = find_damage(folder, record["tables"]) or find_damage(out / "predictions", record["pictures"])
    return damage is None


def _score(
    trial: _Stored, test_set: TestSet, out: Path, runtime: Runtime, key: str, progress: Progress
) -> None:
    folder, predictions = make_folder(out / "trials" / trial.place), out / "predictions"
    started, start = datetime.now(UTC), time.perf_counter()
    approach = load_fitted(trial.model, trial.facts, runtime)
    maps = predictions / "maps" / trial.place if trial.keeps_maps else None
    rows, calibration = score_sets(approach, [test_set], trial.row, maps, progress)
    write_table(folder / "scores.csv", "scores", rows)
    write_table(folder / "calibration.csv", "calibration", calibration)
    names = [path.relative_to(predictions).as_posix() for path in sorted(maps.glob("*.png"))] if maps else []
    record = {
        "key": key,
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - start, 1),
        "tables": describe_files(folder, TABLES_OF_ROWS),
        "pictures": describe_files(predictions, names),
    }
    write_record(folder / RECORD, record)  # last: it is what makes the trial done


def _write_tables(results: Path, trials: Sequence[_Stored], out: Path) -> None:
    """Join the tables of trials, make statistics, and take the tables of the trainings over."""
    for table in ("scores", "calibration"):
        paths = [out / "trials" / trial.place / f"{table}.csv" for trial in trials]
        rows = pd.concat([pd.read_csv(path, dtype=str, keep_default_na=False) for path in paths])
        write_atomically(out / f"{table}.csv", rows.to_csv(index=False, lineterminator="\n"))
    for table in ("history", "training", "importance"):
        write_atomically(out / f"{table}.csv", (results / f"{table}.csv").read_bytes())
    for table in ("timings", "timing_pairs"):
        write_table(out / f"{table}.csv", table, [])
    write_table(out / "statistics.csv", "statistics", summarise(read_table(out, "scores")))


def _describe_trial(trial: _Stored, out: Path) -> dict[str, Any]:
    record = read_record(out / "trials" / trial.place / RECORD) or {}
    key = {name: trial.row[name] for name in ("approach", "fold", "seed")}
    return key | {name: record[name] for name in ("key", "started", "seconds")}
