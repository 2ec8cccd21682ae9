"""What a benchmark will do: data, splits, classes and weights, found and checked before it computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lungseg.approaches.base import Approach
from lungseg.approaches.registry import APPROACHES
from lungseg.data.loading import LoadedDataset, load_dataset
from lungseg.data.sample import Sample
from lungseg.data.splits import Split, SplitOptions, make_splits
from lungseg.harness.keys import make_trials
from lungseg.harness.trial import Entry, Fold, Trial
from lungseg.spec import ApproachSpec, DataSpec, Spec, TrainingDataSpec
from lungseg.system.errors import InputError
from lungseg.system.plugins import load_class, name_errors, validate
from lungseg.system.runtime import Runtime
from lungseg.system.usable_runtime import usable_runtime

FEW_VALIDATION = 10  # images; below it, a choice by their mean Dice is mostly chance


@dataclass(frozen=True)
class Plan:
    """Everything that a run needs.

    Attributes:
        evaluated, trained: datasets; often the same one.
        folds: by the rule in `[data]`; an entry may have others of its own.
        not_compiled: why predictions run without torch.compile though the spec asks for it, or None.
    """

    spec: Spec
    runtime: Runtime
    evaluated: LoadedDataset
    trained: LoadedDataset
    folds: tuple[Fold, ...]
    entries: tuple[Entry, ...]
    trials: tuple[Trial, ...]
    not_compiled: str | None = None

    @property
    def notes(self) -> list[str]:
        """Sentences on the data for the user, each once."""
        found = (*self.evaluated.notes, *self.trained.notes, *note_few_validation(self.spec, self.folds))
        return list(dict.fromkeys(found))


def make_plan(spec: Spec, device: str | None = None) -> Plan:
    """Make the plan of a spec. Raises InputError for whatever would end the run later.

    Args:
        spec: what to compare.
        device: "auto", "cpu" or "cuda", over what the spec says.
    """
    classes = [_resolve(row) for row in spec.approach]  # names and keys first: they cost nothing
    runtime, problem = usable_runtime(spec.runtime, device)
    evaluated, trained, folds_of = load_data(spec)
    folds = folds_of(spec.data.split)
    entries, trials = [], []
    for row, resolved in zip(spec.approach, classes, strict=True):
        with name_errors(f"approach {row.name!r}"):
            entry = _enter(spec, row, folds_of(row.split) if row.split else folds, *resolved, runtime)
            entries.append(entry)
            trials += [] if entry.skipped else make_trials(entry, evaluated, trained)
    return Plan(spec, runtime, evaluated, trained, folds, tuple(entries), tuple(trials), problem)


def load_data(spec: Spec) -> tuple[LoadedDataset, LoadedDataset, Callable[[str], tuple[Fold, ...]]]:
    """Load the datasets that are evaluated and trained on, and return them and what makes a rule's folds.

    Raises InputError for data that can't be used; what makes the folds, for a split that can't be made.
    """
    own, options = divide_options(spec.data)
    split_options = validate(SplitOptions, options, "[data]")
    evaluated = load_dataset(spec.data.dataset, own, (*DataSpec.model_fields, *SplitOptions.model_fields))
    other = spec.training_data
    trained = evaluated
    if other is not None:
        trained = load_dataset(other.dataset, other.options, TrainingDataSpec.model_fields)

    def folds_of(rule: str) -> tuple[Fold, ...]:
        splits = make_splits(rule, list(evaluated.samples.values()), split_options)
        return tuple(_fold(spec, split, evaluated, trained) for split in splits)

    return evaluated, trained, folds_of


def divide_options(data: DataSpec) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the further keys of `[data]` that belong to the dataset, and those that belong to the split."""
    split = {key: value for key, value in data.options.items() if key in SplitOptions.model_fields}
    return {key: value for key, value in data.options.items() if key not in split}, split


def note_few_validation(spec: Spec, folds: Sequence[Fold]) -> list[str]:
    """Return a sentence if a fold has too few validation images, else none."""
    fewest = min(len(fold.validation) for fold in folds)
    if fewest >= FEW_VALIDATION:
        return []
    other = 'split = "kfold", which averages over folds'
    if spec.training_data or spec.data.split == "kfold":
        other = "a larger validation_share"
    return [
        f"only {fewest} validation image{'s' if fewest > 1 else ''}: what is chosen by so few, such as an "
        f"epoch, depends on chance. Use more data, or {other}"
    ]


def require_fits(plan: Plan) -> None:
    """Raise InputError for what would end one of the fits, before any of them begins.

    After `require_alike`, whose sentence is the better one where processes differ.
    """
    for entry in plan.entries:
        if entry.skipped:
            continue
        with name_errors(f"approach {entry.name!r}"):
            approach = entry.new()
            for fold in entry.folds:
                try:
                    approach.require(fold.train)
                except InputError as error:
                    raise InputError(f"approach {entry.name!r}: {error}") from error


def _resolve(row: ApproachSpec) -> tuple[type[Approach], Any]:
    """Finds a row's class and settings."""
    approach_class = load_class(row.use, APPROACHES, Approach, "approach")
    where = f"approach {row.name!r}"
    return approach_class, validate(approach_class.Settings, row.options, where, ApproachSpec.model_fields)


def _fold(spec: Spec, split: Split, evaluated: LoadedDataset, trained: LoadedDataset) -> Fold:
    shown = split.validation if spec.evaluate_on == "validation" else split.test
    if not shown:
        raise InputError(f'split {split.rule!r} has no test images: set evaluate_on = "validation"')
    if spec.training_data is None:
        sides = trained.pick(split.train), trained.pick(split.validation)
    else:
        sides = _two_sides(trained, spec.training_data)
    return Fold(split, evaluated.name, trained.name, *sides, evaluated.pick(shown))


def _two_sides(
    dataset: LoadedDataset, spec: TrainingDataSpec
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """A whole dataset as train and validation, by patient."""
    patients = sorted({sample.patient for sample in dataset.samples.values()})
    order = np.random.default_rng(spec.split_seed).permutation(len(patients))
    count = max(1, round(spec.validation_share * len(patients)))
    if count >= len(patients):
        raise InputError(
            f"[training_data]: {len(patients)} patients of {spec.dataset!r} leave none to train on"
        )
    held = {patients[index] for index in order[:count]}
    samples = list(dataset.samples.values())
    return tuple(s for s in samples if s.patient not in held), tuple(s for s in samples if s.patient in held)


def _enter(
    spec: Spec,
    row: ApproachSpec,
    folds: tuple[Fold, ...],
    approach_class: type[Approach],
    settings: Any,
    runtime: Runtime,
) -> Entry:
    approach = approach_class(settings, runtime)
    seeds = spec.seeds[: row.trainings if approach_class.depends_on_seed(settings) else 1]
    skipped = approach.skip()
    weights = None if skipped else approach.weights()
    return Entry(row, approach_class, settings, runtime, folds, seeds, weights, skipped)
