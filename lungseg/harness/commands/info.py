"""What `lungseg info`, `lungseg data list` and `lungseg data check` print."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lungseg.approaches.registry import APPROACHES
from lungseg.data.audit.check import check_dataset
from lungseg.data.datasets.registry import DATASETS
from lungseg.data.loading import find_data_root, find_dataset
from lungseg.data.sample import Dataset, Sample
from lungseg.harness.folds import divide_options, load_data, note_few_validation
from lungseg.harness.leaks import audit_folds, refuse
from lungseg.harness.shipped import find_spec
from lungseg.harness.trial import Fold
from lungseg.learning.trees.evaluator import find_engine
from lungseg.learning.weights import find_weights
from lungseg.spec import RuntimeSpec, Spec, parse_changes, read_spec
from lungseg.system.errors import InputError
from lungseg.system.machine import describe_cpu, find_git_revision, find_gpu_name, list_versions
from lungseg.system.nvml import describe_gpu, format_gpu
from lungseg.system.plugins import CLASS_NAME, load_class
from lungseg.system.usable_runtime import resolve_runtime


def list_facts() -> list[tuple[str, str]]:
    """List (what, value): versions, devices, engines, and where data and weights were found."""
    runtime = resolve_runtime(RuntimeSpec())
    revision = find_git_revision()
    rows = [
        ("versions", ", ".join(f"{name} {number}" for name, number in list_versions().items())),
        (
            "revision",
            f"{revision['revision']}{' with changes' if revision['dirty'] else ''}"
            if revision
            else "unknown",
        ),
        ("CPU", describe_cpu()),
        ("CUDA", find_gpu_name() or "no device"),
        *(("GPU", format_gpu(gpu)) for gpu in [describe_gpu()] if gpu),
        ("runs on", f"{runtime.device.type}, {runtime.precision}, {runtime.threads} threads"),
        ("trees on CPU", _trees_text("cpu")),
        *([("trees on CUDA", _trees_text("cuda"))] if find_gpu_name() else []),
        ("LUNGSEG_DATA", os.environ.get("LUNGSEG_DATA") or "not set"),
        *((f"dataset {name}", text) for name, text in list_datasets()),
        ("LUNGSEG_WEIGHTS", os.environ.get("LUNGSEG_WEIGHTS") or "not set"),
        *((f"weights {network}", _weights_text(network)) for network in ("vgg19", "resnet50")),
        ("approaches", ", ".join(APPROACHES)),
    ]
    return rows


def _trees_text(device: str) -> str:
    engine, passed_over = find_engine(device)
    return "; ".join([engine, *passed_over])


def _weights_text(network: str) -> str:
    try:
        file = find_weights(network, "auto")
        return f"ImageNet: {file.path}, sha256 {file.sha256[:16]}" if file else "none on this machine"
    except InputError as error:
        return str(error)


def list_datasets() -> list[tuple[str, str]]:
    """List (dataset, how many samples it has here, or why none)."""
    return [(name, _dataset_text(name)) for name in DATASETS]


def _dataset_text(name: str) -> str:
    try:
        return f"{len(find_dataset(name, {}, find_data_root()).samples())} images with masks"
    except InputError as error:
        return str(error)


@dataclass
class DataCheck:
    """What `lungseg data check` found: tables, each a title and rows, and sentences."""

    tables: list[tuple[str, list[tuple[str, str]]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def check_data(what: str, changes: Sequence[str], progress: Callable[[int, int, str], None]) -> DataCheck:
    """Check a dataset by its name, or the data and the splits of a spec by its path or name.

    Args:
        what: the dataset or the spec.
        changes: "key=value", keys of the dataset or of the spec.
        progress: called with (done, total, text).

    Raises InputError for an unknown name, a wrong key, and data that isn't there.
    """
    found = DataCheck()
    if what in DATASETS or CLASS_NAME.fullmatch(what):
        _check_dataset(found, f"dataset {what}", what, parse_changes(changes), progress)
        return found
    spec = read_spec(find_spec(Path(what), DATASETS), changes)
    _check_dataset(
        found, f"data: {spec.data.dataset}", spec.data.dataset, divide_options(spec.data)[0], progress
    )
    if other := spec.training_data:
        _check_dataset(found, f"training data: {other.dataset}", other.dataset, other.options, progress)
    for each in spec.test_data:
        options, _ = divide_options(each)
        _check_dataset(found, f"test data: {each.label}", each.dataset, options, progress)
    _check_splits(found, spec, progress)
    return found


def _check_dataset(
    found: DataCheck,
    title: str,
    name: str,
    options: dict[str, Any],
    progress: Callable[[int, int, str], None],
) -> None:
    dataset_class = load_class(name, DATASETS, Dataset, "dataset")
    fields = dataset_class.Settings.model_fields
    missing = [key for key, field in fields.items() if field.is_required() and key not in options]
    if missing and not options:
        words = " ".join(f"--set {key}=..." for key in missing)
        raise InputError(f"dataset {name!r} needs the keys {' and '.join(missing)}: give them as in {words}")
    report = check_dataset(find_dataset(name, options, find_data_root()), progress)
    found.tables.append((title, report.rows()))
    found.notes += report.notes
    found.problems += report.problems


def _check_splits(found: DataCheck, spec: Spec, progress: Callable[[int, int, str], None]) -> None:
    """Divide the images as a benchmark would, and look for pictures and patients on two sides."""
    rules = dict.fromkeys((spec.data.split, *(row.split for row in spec.approach if row.split)))
    try:
        data = load_data(spec)
        folds = {rule: data.make_folds(rule) for rule in rules}
    except InputError as error:
        if found.problems:  # of which this may be one
            found.notes.append("the split is checked once the problems are mended")
        else:
            found.problems.append(str(error))
        return
    every = [fold for rule in rules for fold in folds[rule]]
    rows = [_split_row(fold, data.evaluated.pick(fold.split.test)) for fold in every]
    for name in dict.fromkeys(row.train_on for row in spec.approach if row.train_on):
        elsewhere = data.train_on(name, folds[spec.data.split])[1]
        rows += [(f"trained on {name}", _split_row(fold, fold.evaluated)[1]) for fold in elsewhere]
        every += elsewhere
    found.tables.append(("split", rows))
    found.notes += note_few_validation(spec, folds[spec.data.split])
    tested = data.evaluated, *data.further
    leaks = audit_folds(tested, data.trained, every, progress).leaks
    if leaks and spec.data.allow_leaks:
        found.notes += [f"LEAK, allowed by the spec: {leak}" for leak in leaks]
    elif leaks:
        found.problems.append(refuse(leaks, [*tested, data.trained]))


def _split_row(fold: Fold, test: Sequence[Sample]) -> tuple[str, str]:
    sides = {"train": fold.train, "validation": fold.validation, "test": test}
    texts = [f"{len(side)} {name} ({_count_patients(side)})" for name, side in sides.items()]
    return f"{fold.split.rule}, fold {fold.split.fold}", ", ".join(texts)


def _count_patients(samples: Sequence[Sample]) -> str:
    count = len({sample.patient for sample in samples})
    return f"{count} patient{'s' if count != 1 else ''}"
