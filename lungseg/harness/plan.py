"""What a benchmark will do: data, splits, classes and weights, found and checked before it computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lungseg.approaches.base import Approach
from lungseg.approaches.registry import APPROACHES
from lungseg.data.loading import LoadedDataset, load_dataset
from lungseg.data.sample import Sample
from lungseg.data.splits import Split, SplitOptions, make_splits, require_known_rule
from lungseg.harness.keys import facts_of_fit, make_trials
from lungseg.harness.trial import Entry, Fold, TestSet, Trial
from lungseg.spec import ApproachSpec, DataSpec, Spec, TestDataSpec, TrainingDataSpec
from lungseg.system.distributed import all_gather, barrier, world_size
from lungseg.system.errors import InputError
from lungseg.system.hashing import hash_value
from lungseg.system.plugins import load_class, name_errors, validate
from lungseg.system.runtime import Runtime
from lungseg.system.usable_runtime import usable_runtime

FEW_VALIDATION = 10  # images; below it, a choice by their mean Dice is mostly chance


@dataclass(frozen=True)
class Plan:
    """Everything that a run needs.

    Attributes:
        evaluated, trained: datasets; often the same one.
        further: the test sets of `[[test_data]]`.
        folds: by the rule in `[data]`; an entry may have others of its own.
        not_compiled: why predictions run without torch.compile though the spec asks for it, or None.
        entry_notes: sentences on given masks.
    """

    spec: Spec
    runtime: Runtime
    evaluated: LoadedDataset
    trained: LoadedDataset
    further: tuple[LoadedDataset, ...]
    folds: tuple[Fold, ...]
    entries: tuple[Entry, ...]
    trials: tuple[Trial, ...]
    not_compiled: str | None = None
    entry_notes: tuple[str, ...] = ()

    @property
    def notes(self) -> list[str]:
        """Sentences on the data for the user, each once."""
        of_data = [note for each in (self.evaluated, self.trained, *self.further) for note in each.notes]
        found = (*of_data, *note_few_validation(self.spec, self.folds), *self.entry_notes)
        return list(dict.fromkeys(found))


def make_plan(spec: Spec, device: str | None = None) -> Plan:
    """Make the plan of a spec. Raises InputError for whatever would end the run later.

    Args:
        spec: what to compare.
        device: "auto", "cpu" or "cuda", over what the spec says.
    """
    classes = [_resolve(row) for row in spec.approach]  # names and keys first: they cost nothing
    for rule in (spec.data.split, *(row.split for row in spec.approach if row.split)):
        require_known_rule(rule)
    runtime, problem = usable_runtime(spec.runtime, device)
    data = load_data(spec)
    folds = data.make_folds(spec.data.split)
    entries, trials, notes = [], [], []
    for row, resolved in zip(spec.approach, classes, strict=True):
        with name_errors(f"approach {row.name!r}"):
            entry = _enter(spec, row, data.make_folds(row.split) if row.split else folds, *resolved, runtime)
            entries.append(entry)
            if not entry.skipped:
                data.require_images(entry)
                trials += make_trials(entry, (data.evaluated, *data.further), data.trained)
            notes += _examine(entry)
    return Plan(
        *(spec, runtime, data.evaluated, data.trained, data.further, folds),
        *(tuple(entries), tuple(trials), problem, tuple(notes)),
    )


@dataclass(frozen=True)
class LoadedData:
    """All datasets of a spec: the one that is evaluated, the one for training, and further test sets."""

    spec: Spec
    evaluated: LoadedDataset
    trained: LoadedDataset
    further: tuple[LoadedDataset, ...]
    options: SplitOptions

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
        others = tuple(TestSet(each.name, tuple(each.samples.values())) for each in self.further)
        names = self.evaluated.name, self.trained.name
        return Fold(split, *names, *sides, self.evaluated.pick(shown), others)


def load_data(spec: Spec) -> LoadedData:
    """Load all datasets of a spec. Raises InputError for data that can't be used."""
    _require_different_names([spec.data.dataset, *(each.name or each.dataset for each in spec.test_data)])
    own, options = divide_options(spec.data)
    split_options = validate(SplitOptions, options, "[data]")
    evaluated = load_dataset(spec.data.dataset, own, (*DataSpec.model_fields, *SplitOptions.model_fields))
    other = spec.training_data
    trained = evaluated
    if other is not None:
        trained = load_dataset(other.dataset, other.options, TrainingDataSpec.model_fields)
    further = tuple(_load_further(each) for each in spec.test_data)
    return LoadedData(spec, evaluated, trained, further, split_options)


def _load_further(test_data: TestDataSpec) -> LoadedDataset:
    loaded = load_dataset(test_data.dataset, test_data.options, TestDataSpec.model_fields)
    return replace(loaded, name=test_data.name or loaded.name)


def _require_different_names(names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"two test sets are called {name!r}: give the one in [[test_data]] a name of its own, as in "
                'name = "clinic-b"'
            )


def divide_options(data: DataSpec) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the further keys of `[data]` that belong to the dataset, and those that belong to the split."""
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
                if not fold.train and not entry.approach_class.given:
                    raise InputError(
                        f"approach {entry.name!r}: split {fold.split.rule!r} leaves no image to train on: "
                        "add [training_data], or use another split"
                    )
                try:
                    approach.require(fold.train)
                except InputError as error:
                    raise InputError(f"approach {entry.name!r}: {error}") from error


def _resolve(row: ApproachSpec) -> tuple[type[Approach], Any]:
    """Finds a row's class and settings."""
    approach_class = load_class(row.use, APPROACHES, Approach, "approach")
    where = f"approach {row.name!r}"
    return approach_class, validate(approach_class.Settings, row.options, where, ApproachSpec.model_fields)


def _examine(entry: Entry) -> list[str]:
    """Look for the masks of an entry that are given; sentences for the user."""
    if entry.skipped or not entry.approach_class.given:
        return []
    samples = {id(sample): sample for fold in entry.folds for each in fold.scored for sample in each.samples}
    ids = [sample.id for sample in samples.values()]
    if len(set(ids)) < len(ids):
        raise InputError(
            f"approach {entry.name!r}: masks match by name, and two test sets have an image of one name: "
            "score the masks of each set in a benchmark of its own"
        )
    return [f"{entry.name}: {note}" for note in entry.new().examine(list(samples.values()))]


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


def require_alike(plan: Plan) -> None:
    """Require that all processes of a run learn from the same, with the same code.

    Nothing else would show it.

    Raises:
        InputError: in each of them, with what differs.
    """
    if world_size() == 1:
        return
    barrier()  # for plans that take long, as no sum of theirs would
    apart = differences(all_gather([_facts(plan)]))
    if apart:
        raise InputError(
            f"the processes of this run differ in their {', '.join(apart)}: give all machines the same code, "
            "packages, spec, data and weights, and name runtime.device and runtime.precision in the spec"
        )


def differences(facts: Sequence[dict[str, str]]) -> list[str]:
    """List the names of the facts that aren't the same everywhere."""
    names = dict.fromkeys(name for each in facts for name in each)
    return [name for name in names if len({each.get(name) for each in facts}) > 1]


def _facts(plan: Plan) -> dict[str, str]:
    """Hashes of what processes have to have in common; their processors and threads may differ."""
    # Where a library is missing its approach is skipped, which is to show as that alone.
    entries = plan.entries
    facts = {
        "device": str(plan.runtime.device),
        "precision": [plan.runtime.precision, plan.runtime.channels_last],
        "seeds": [entry.seeds for entry in entries],
        "settings": [[e.name, e.spec.use, e.settings.model_dump(mode="json")] for e in entries],
        "data": [plan.trained.name, plan.trained.sha256],
        "split": [fold.fit_sha256 for entry in entries for fold in entry.folds],
    }
    for entry in entries:
        if not entry.skipped:
            own = facts_of_fit(entry, plan.trained)
            facts[f"code, packages and weights of {entry.name}"] = [
                own["code"],
                own["versions"],
                own["weights"],
            ]
    return {name: hash_value(value) for name, value in facts.items()}
