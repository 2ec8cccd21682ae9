"""What a benchmark will do: data, splits, classes and weights, found and checked before it computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lungseg.approaches.base import Approach
from lungseg.approaches.registry import APPROACHES
from lungseg.data.loading import LoadedDataset
from lungseg.data.splits import require_known_rule
from lungseg.harness.folds import LoadedData, load_data, note_few_validation
from lungseg.harness.keys import facts_of_fit, make_trials
from lungseg.harness.trial import Entry, Fold, Trial
from lungseg.spec import ApproachSpec, Spec
from lungseg.system.distributed import all_gather, barrier, world_size
from lungseg.system.errors import InputError
from lungseg.system.hashing import hash_value
from lungseg.system.plugins import load_class, name_errors, validate
from lungseg.system.runtime import Runtime
from lungseg.system.usable_runtime import usable_runtime


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
    for rule in (spec.data.split, *(each.split for each in (*spec.approach, *spec.test_data) if each.split)):
        require_known_rule(rule)
    runtime, problem = usable_runtime(spec.runtime, device)
    data = load_data(spec)
    folds = data.make_folds(spec.data.split)
    entries, trials, notes = [], [], []
    for row, resolved in zip(spec.approach, classes, strict=True):
        with name_errors(f"approach {row.name!r}"):
            entry = _enter(data, row, data.make_folds(row.split) if row.split else folds, *resolved, runtime)
            entries.append(entry)
            if not entry.skipped:
                data.require_images(entry)
                trials += make_trials(entry, (data.evaluated, *data.further))
            notes += _examine(entry)
    return Plan(
        *(spec, runtime, data.evaluated, data.trained, data.further, folds),
        *(tuple(entries), tuple(trials), problem, tuple(notes)),
    )


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
                    approach.require(entry.pick_training(fold, entry.seeds[0]).train)
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


def _enter(
    data: LoadedData,
    row: ApproachSpec,
    folds: tuple[Fold, ...],
    approach_class: type[Approach],
    settings: Any,
    runtime: Runtime,
) -> Entry:
    trained = data.trained
    if row.train_on is not None:
        trained, folds = data.train_on(row.train_on, folds)
    approach = approach_class(settings, runtime)
    skipped = approach.skip()
    weights = None if skipped else approach.weights()
    every = data.spec.seeds
    entry = Entry(row, approach_class, settings, runtime, trained, folds, every, weights, skipped)
    for fold in folds if row.train_images is not None else ():
        fold.draw(row.train_images, every[0])  # raises for more images than there are
    return replace(entry, seeds=every[: row.trainings if entry.depends_on_seed else 1])


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
        "data": [[entry.trained.name, entry.trained.sha256] for entry in entries],
        "split": [fold.fit_sha256 for entry in entries for fold in entry.folds],
    }
    for entry in entries:
        if not entry.skipped:
            own = facts_of_fit(entry)
            facts[f"code, packages and weights of {entry.name}"] = [
                own["code"],
                own["versions"],
                own["weights"],
            ]
    return {name: hash_value(value) for name, value in facts.items()}
