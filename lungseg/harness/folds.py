"""The datasets of a spec, and the folds that they are divided into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lungseg.data.loading import LoadedDataset, load_dataset
from lungseg.data.sample import Sample
from lungseg.data.splits import Split, SplitOptions, make_splits
from lungseg.harness.trial import Entry, Fold, TestSet
from lungseg.spec import DataSpec, Spec, TestDataSpec, TrainingDataSpec
from lungseg.system.errors import InputError
from lungseg.system.plugins import validate

FEW_VALIDATION = 10  # images; below it, a choice by their mean Dice is mostly chance


@dataclass(frozen=True)
class LoadedData:
    """All datasets of a spec: the one that is evaluated, the one for training, and further test sets.

    Attributes:
        options: of the evaluated dataset's split.
        splits: of the further test sets, None where all images are scored.
    """

    spec: Spec
    evaluated: LoadedDataset
    trained: LoadedDataset
    further: tuple[LoadedDataset, ...]
    options: SplitOptions
    splits: tuple[Split | None, ...]

    def require_images(self, entry: Entry) -> None:
        """Raise InputError if an entry would read images from a dataset that has none."""
        for each in (self.evaluated, self.trained, *self.further):
            if not each.dataset.has_images and not entry.approach_class.given:
                raise InputError(
                    f"approach {entry.name!r} needs images, and the dataset {each.name!r} has none: use "
                    "another dataset, or rows of given masks alone"
                )

    def make_folds(self, rule: str) -> tuple[Fold, ...]:
        """Make the folds of a split rule. Raises InputError for a split that can't be made."""
        splits = make_splits(rule, list(self.evaluated.samples.values()), self.options)
        return tuple(self._make_fold(split) for split in splits)

    def _make_fold(self, split: Split) -> Fold:
        shown = split.validation if self.spec.evaluate_on == "validation" else split.test
        if not shown:
            other = {"test": "validation", "validation": "test"}[self.spec.evaluate_on]
            raise InputError(
                f'split {split.rule!r} has no {self.spec.evaluate_on} images: set evaluate_on = "{other}"'
            )
        if self.spec.training_data is None:
            sides = self.trained.pick(split.train), self.trained.pick(split.validation)
        else:
            sides = _two_sides(self.trained, self.spec.training_data)
        names = self.evaluated.name, self.trained.name
        return Fold(split, *names, *sides, self.evaluated.pick(shown), self._pick_further())

    def _pick_further(self) -> tuple[TestSet, ...]:
        """What is scored of the further test sets."""
        found = []
        for each, split in zip(self.further, self.splits, strict=True):
            ids = tuple(each.samples) if split is None else getattr(split, self.spec.evaluate_on)
            found.append(TestSet(each.name, each.pick(ids)))
        return tuple(found)

    def train_on(self, name: str, folds: tuple[Fold, ...]) -> tuple[LoadedDataset, tuple[Fold, ...]]:
        """Return a further test set and folds that are trained on it, and scored as `folds` are.

        Raises:
            InputError: there is no such test set, it has no split, or training has a dataset of its own.
        """
        if self.spec.training_data is not None:
            raise InputError("train_on has no meaning beside [training_data]: leave one of them out")
        if name == self.evaluated.name:
            return self.trained, folds
        for each, split in zip(self.further, self.splits, strict=True):
            if each.name == name and split is not None:
                sides = each.pick(split.train), each.pick(split.validation)
                return each, tuple(
                    replace(fold, train_set=name, train=sides[0], validation=sides[1]) for fold in folds
                )
        known = [
            each.name for each, split in zip(self.further, self.splits, strict=True) if split is not None
        ]
        raise InputError(
            f"train_on names {name!r}: use one of {', '.join([self.evaluated.name, *known])}, or give a "
            "[[test_data]] of this name a split"
        )


def load_data(spec: Spec) -> LoadedData:
    """Load all datasets of a spec. Raises InputError for data that can't be used."""
    _require_different_names([each.label for each in (spec.data, *spec.test_data)])
    evaluated, split_options = _load_with_options(spec.data, "[data]")
    other = spec.training_data
    trained = evaluated
    if other is not None:
        trained = load_dataset(other.dataset, other.options, TrainingDataSpec.model_fields)
    further = tuple(_load_further(each, spec.evaluate_on) for each in spec.test_data)
    sets, splits = tuple(each for each, _ in further), tuple(split for _, split in further)
    return LoadedData(spec, evaluated, trained, sets, split_options, splits)


def _load_with_options(table: DataSpec | TestDataSpec, where: str) -> tuple[LoadedDataset, SplitOptions]:
    """Load the dataset of a table, under the name of the tables, and read the keys of its split."""
    own, options = divide_options(table)
    split_options = validate(SplitOptions, options, where)
    loaded = load_dataset(table.dataset, own, (*type(table).model_fields, *SplitOptions.model_fields))
    return replace(loaded, name=table.label), split_options


def _load_further(table: TestDataSpec, evaluate_on: str) -> tuple[LoadedDataset, Split | None]:
    loaded, options = _load_with_options(table, "[[test_data]]")
    if table.split is None:
        if options.model_fields_set:
            raise InputError(
                f"[[test_data]] {loaded.name!r} has {min(options.model_fields_set)}, but no split: add one, "
                "or leave the key out"
            )
        return loaded, None
    splits = make_splits(table.split, list(loaded.samples.values()), options)
    if len(splits) > 1 or not getattr(splits[0], evaluate_on):
        raise InputError(
            f"[[test_data]] {loaded.name!r}: the split {table.split!r} has not one fold with {evaluate_on} "
            "images: use another split, such as 'random'"
        )
    return loaded, splits[0]


def _require_different_names(names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"two test sets are called {name!r}: give the one in [[test_data]] a name of its own, as in "
                'name = "clinic-b"'
            )


def divide_options(data: DataSpec | TestDataSpec) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the further keys of a table that belong to the dataset, and those that belong to the split."""
    split = {key: value for key, value in data.options.items() if key in SplitOptions.model_fields}
    return {key: value for key, value in data.options.items() if key not in split}, split


def note_few_validation(spec: Spec, folds: Sequence[Fold]) -> list[str]:
    """Return a sentence if a fold has too few validation images, else none."""
    fewest = min(len(fold.validation) for fold in folds)
    if fewest >= FEW_VALIDATION or not any(fold.train for fold in folds):
        return []
    other = 'split = "kfold", which averages over folds'
    if spec.training_data or spec.data.split == "kfold":
        other = "a larger validation_share"
    return [
        f"only {fewest} validation image{'s' if fewest > 1 else ''}: what is chosen by so few, such as an "
        f"epoch, depends on chance. Use more data, or {other}"
    ]


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
