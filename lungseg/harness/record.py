"""run.json: the spec, machine, code, data, splits and weights of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path, PureWindowsPath
from typing import Any

from lungseg.approaches.registry import LABELS
from lungseg.harness.evaluate import RECORD
from lungseg.harness.plan import Plan
from lungseg.harness.trial import Entry, Fold, Trial
from lungseg.results import FORMAT
from lungseg.system.distributed import world_size
from lungseg.system.errors import shorten_paths
from lungseg.system.hashing import find_libraries
from lungseg.system.machine import describe_cpu, find_git_revision, find_gpu_name, list_versions
from lungseg.system.nvml import describe_gpu
from lungseg.system.stored import read_record

NOT_MEASURED = {"share of training time spent waiting": "it is measured for networks only"}


def new_record(plan: Plan) -> dict[str, Any]:
    """Make run.json as far as it is known before the first trial, without any path of this machine."""
    splits = [_split_record(fold) for fold in plan.folds]
    for entry in plan.entries:
        if entry.spec.split:
            own = [{"approach": entry.name, **_split_record(fold)} for fold in entry.folds]
            splits += own
    labels = label_rows(plan.entries)
    families = find_families(plan.entries)
    approaches = [
        {
            "name": entry.name,
            "label": labels[entry.name],
            "family": families[entry.name],
            "use": entry.spec.use,
            "threshold": entry.spec.threshold,
            "group": list(entry.spec.group),
            "settings": _without_folders(entry.settings.model_dump(mode="json")),
            "weights": asdict(entry.weights) if entry.weights else None,
            "skipped": entry.skipped and shorten_paths(entry.skipped),
            "depends_on_seed": entry.depends_on_seed,
        }
        for entry in plan.entries
    ]
    return {
        "format": FORMAT,
        "name": plan.spec.name,
        "spec": _without_folders(plan.spec.model_dump(mode="json")),
        "versions": list_versions(_other_libraries(plan)),
        "devices": {"cpu": describe_cpu(), "cuda": find_gpu_name()},
        "gpu": describe_gpu(),
        "device": plan.runtime.device.type,
        "precision": plan.runtime.precision,
        "threads": plan.runtime.threads,
        "processes": world_size(),
        "git": find_git_revision(),
        "data": plan.evaluated.describe(),
        "training_data": None if plan.spec.training_data is None else plan.trained.describe(),
        "test_data": [each.describe() for each in plan.further],
        "splits": splits,
        "trained_on": [
            {"approach": entry.name, **_training_record(fold)}
            for entry in plan.entries
            if entry.spec.train_on
            for fold in entry.folds
        ],
        "evaluate_on": plan.spec.evaluate_on,
        "seeds": list(plan.spec.seeds),
        "approaches": approaches,
        "notes": plan.notes,
        "trials": [],
        "failed": [],
        "tables": {},
        "empty": _empty(plan),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "finished": None,
        "seconds": None,
    }


def label_rows(entries: Sequence[Entry]) -> dict[str, str]:
    """Return what the report calls each row: its `label`, else a plain one, else its name.

    Rows of an ablation, or whose plain labels would be alike, keep their names, which say how they differ.
    """
    training = describe_training(entries)
    plain = {entry.name: entry.spec.label or _make_label(entry) + training[entry.name] for entry in entries}
    return {name: label if list(plain.values()).count(label) == 1 else name for name, label in plain.items()}


def describe_training(entries: Sequence[Entry]) -> dict[str, str]:
    """Return what a plain label adds of a row's training images, where rows of the spec differ in them."""
    elsewhere = any(entry.spec.train_on for entry in entries)
    found = {}
    for entry in entries:
        text = f", trained on {entry.trained.name}" if elsewhere else ""
        text += f", {entry.spec.train_images} images" if entry.spec.train_images else ""
        found[entry.name] = text if _has_plain_label(entry) else ""
    return found


def find_families(entries: Sequence[Entry]) -> dict[str, str]:
    """Return what each row is called whatever it was trained on; its name where rows would be alike."""
    plain, training = {entry.name: _make_label(entry) for entry in entries}, describe_training(entries)
    alike = Counter((plain[name], training[name]) for name in plain)
    return {name: label if alike[label, training[name]] == 1 else name for name, label in plain.items()}


def _has_plain_label(entry: Entry) -> bool:
    return entry.spec.use in LABELS and not entry.spec.group


def _make_label(entry: Entry) -> str:
    if not _has_plain_label(entry):
        return entry.name
    settings = entry.settings.model_dump(mode="json")
    regressor = settings.get("regressor", "").rpartition(":")[2]
    settings["regressor"] = {"lightgbm": "LightGBM", "mlp": "MLP"}.get(regressor, regressor)
    return LABELS[entry.spec.use].format(**settings)


def _empty(plan: Plan) -> dict[str, str]:
    """What the tables leave empty whatever happens, with its reason."""
    skipped = {entry.name: entry.skipped for entry in plan.entries if entry.skipped}
    if plan.not_compiled is not None:
        skipped["predictions by torch.compile"] = f"it can't be used here ({plan.not_compiled})"
    only_networks = all(entry.is_network or entry.approach_class.given for entry in plan.entries)
    return skipped if only_networks else skipped | NOT_MEASURED


def _other_libraries(plan: Plan) -> list[str]:
    """Packages that the run's approaches import, by the names one imports."""
    return find_libraries(*(entry.approach_class for entry in plan.entries))


def _without_folders(value: Any) -> Any:
    """A spec's values with absolute paths cut to their last word: results are published, machines are not."""
    if isinstance(value, dict):
        return {key: _without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_folders(inner) for inner in value]
    if not isinstance(value, str):
        return value
    if value.startswith("~") or Path(value).is_absolute():
        return Path(value).name
    return PureWindowsPath(value).name if PureWindowsPath(value).is_absolute() else shorten_paths(value)


def _split_record(fold: Fold) -> dict[str, Any]:
    return {
        "rule": fold.split.rule,
        "fold": fold.split.fold,
        "sha256": fold.sha256,
        "train": len(fold.train),
        "validation": len(fold.validation),
        "test": len(fold.split.test),
        "evaluated": len(fold.evaluated),
        "ids": {
            "train": [sample.id for sample in fold.train],
            "validation": [sample.id for sample in fold.validation],
            "evaluated": [sample.id for sample in fold.evaluated],
        },
    }


def _training_record(fold: Fold) -> dict[str, Any]:
    """The images of a row that is trained on another dataset than the split's."""
    sides = {"train": fold.train, "validation": fold.validation}
    ids = {side: [sample.id for sample in samples] for side, samples in sides.items()}
    return {"train_set": fold.train_set, "fold": fold.split.fold, "ids": ids}


def trial_record(trial: Trial, directory: Path) -> dict[str, Any]:
    """Describe a finished trial for run.json."""
    stored = read_record(trial.folder(directory) / RECORD) or {}
    kept = ("key", "started", "seconds", "taken_over")
    fold = trial.fold
    trained = {"train_set": fold.train_set, "train": len(fold.train), "validation": len(fold.validation)}
    return {**trial.row, **trained, **{name: stored[name] for name in kept if name in stored}}
