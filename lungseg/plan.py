"""What a benchmark will do: data, splits, classes and weights, found and checked before it computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch.backends.cpu import get_cpu_capability

from lungseg.approaches import APPROACHES
from lungseg.approaches.approach import Approach, Runtime, WeightsInfo
from lungseg.data.sample import Sample
from lungseg.data.splits import Split, SplitOptions, make_splits
from lungseg.environment import (
    ROOT,
    code_places,
    cpu_name,
    cuda_name,
    hash_code,
    module_place,
    usable_runtime,
    versions,
)
from lungseg.errors import InputError
from lungseg.material import Material, load_material
from lungseg.parts import Part, hash_of
from lungseg.plugins import load_class, validate
from lungseg.ranks import all_parts, wait_for_all, world_size
from lungseg.results import FORMAT
from lungseg.spec import ApproachSpec, Spec, TrainingDataSpec

METRICS = (
    "overlap",
    "metrics",
    "distances",
    "cropping",
    "lungs",
    "calibration",
)  # modules of scoring/ behind a row
LOOK_ONLY = ("audit", "check", "export")  # modules of data/ that no image goes through on its way to a fit


@dataclass(frozen=True)
class Fold:
    """What is trained on, chosen by and evaluated in one fold."""

    split: Split
    train: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    evaluated: tuple[Sample, ...]

    @property
    def sha256(self) -> str:
        """Of the ids of the three sides, and of what the rows of a table say of each image."""
        return _hash_of_sides(self.train, self.validation, self.evaluated)

    @property
    def fit_sha256(self) -> str:
        """The same of what a fit sees."""
        return _hash_of_sides(self.train, self.validation)


def _hash_of_sides(*sides: Sequence[Sample]) -> str:
    return hash_of([[(s.id, s.patient, s.source, s.label, s.spacing) for s in side] for side in sides])


@dataclass(frozen=True)
class Contestant:
    """An approach of the spec with its class, settings, folds and weights, or why it can't run here."""

    spec: ApproachSpec
    folds: tuple[Fold, ...]
    kind: type[Approach]
    settings: Any
    weights: WeightsInfo | None
    skipped: str | None

    @property
    def depends_on_seed(self) -> bool:
        return self.kind.depends_on_seed(self.settings)

    @property
    def trainings(self) -> int | None:
        """With how many of the spec's seeds it is trained; None: with all."""
        return self.spec.trainings if self.depends_on_seed else 1


@dataclass(frozen=True)
class Plan:
    """Everything that a run needs.

    Attributes:
        not_compiled: why predictions run without torch.compile though the spec asks for it, or None.
    """

    spec: Spec
    runtime: Runtime
    evaluated: Material
    trained: Material
    folds: tuple[Fold, ...]
    contestants: tuple[Contestant, ...]
    parts: tuple[Part, ...]
    not_compiled: str | None = None


def make_plan(spec: Spec, device: str | None = None) -> Plan:
    """Raises InputError for whatever would end the run later: names, keys, data, splits, weights, device."""
    classes = [_resolve(entry) for entry in spec.approach]  # names and keys first: they cost nothing
    runtime, problem = usable_runtime(spec.runtime, device)
    options = {key: value for key, value in spec.data.options.items() if key in SplitOptions.model_fields}
    split_options = validate(SplitOptions, options, "[data]")
    evaluated = load_material(spec.data, without=set(options))
    trained = evaluated if spec.training_data is None else load_material(spec.training_data)

    def folds_of(rule: str) -> tuple[Fold, ...]:
        splits = make_splits(rule, list(evaluated.samples.values()), split_options)
        return tuple(_fold(spec, split, evaluated, trained) for split in splits)

    folds = folds_of(spec.data.split)
    contestants = tuple(
        _enter(entry, folds_of(entry.split) if entry.split else folds, kind, settings, runtime)
        for entry, (kind, settings) in zip(spec.approach, classes, strict=True)
    )
    parts = tuple(_parts(spec, runtime, evaluated, trained, contestants))
    return Plan(spec, runtime, evaluated, trained, folds, contestants, parts, problem)


def _resolve(entry: ApproachSpec) -> tuple[type[Approach], Any]:
    kind = load_class(entry.use, APPROACHES, Approach, "approach")
    return kind, validate(kind.Settings, entry.options, f"approach {entry.name!r}")


def _fold(spec: Spec, split: Split, evaluated: Material, trained: Material) -> Fold:
    shown = split.validation if spec.evaluate_on == "validation" else split.test
    if not shown:
        raise InputError(f'split {split.rule!r} has no test images: set evaluate_on = "validation"')
    if spec.training_data is None:
        sides = trained.pick(split.train), trained.pick(split.validation)
    else:
        sides = _two_sides(trained, spec.training_data)
    return Fold(split, *sides, evaluated.pick(shown))


def _two_sides(material: Material, spec: TrainingDataSpec) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """A whole dataset as train and validation, by patient."""
    patients = sorted({sample.patient for sample in material.samples.values()})
    order = np.random.default_rng(spec.split_seed).permutation(len(patients))
    count = max(1, round(spec.validation_share * len(patients)))
    if count >= len(patients):
        raise InputError(
            f"[training_data]: {len(patients)} patients of {spec.dataset!r} leave none to train on"
        )
    held = {patients[index] for index in order[:count]}
    samples = list(material.samples.values())
    return tuple(s for s in samples if s.patient not in held), tuple(s for s in samples if s.patient in held)


def _enter(
    entry: ApproachSpec, folds: tuple[Fold, ...], kind: type[Approach], settings: Any, runtime: Runtime
) -> Contestant:
    approach = kind(settings, runtime)
    reason = approach.skip()
    if reason:
        return Contestant(entry, folds, kind, settings, None, reason)
    return Contestant(entry, folds, kind, settings, approach.weights(), None)


def _parts(
    spec: Spec,
    runtime: Runtime,
    evaluated: Material,
    trained: Material,
    contestants: Sequence[Contestant],
) -> list[Part]:
    fits = _all_fits_depend_on(runtime, trained)
    rows = {
        "data": [evaluated.name, evaluated.sha256],
        "code": hash_code(*(ROOT / "scoring" / f"{name}.py" for name in METRICS), ROOT / "parts.py"),
        "dataset": hash_code(module_place(type(evaluated.dataset))),
        "compiled": runtime.compiled,
    }
    parts = []
    for contestant in contestants:
        if contestant.skipped:
            continue
        own = {
            **fits,
            "use": contestant.spec.use,
            "settings": contestant.settings.model_dump(mode="json"),
            "weights": asdict(contestant.weights) if contestant.weights else None,
            "own_code": hash_code(*code_places(contestant.kind)),
            "processes": world_size() if contestant.kind.many_processes else 1,
        }
        for fold in contestant.folds:
            for seed in spec.seeds[: contestant.trainings]:
                fit_key = hash_of({**own, "fold": fold.fit_sha256, "seed": seed})
                approach = contestant.spec.model_dump(mode="json", exclude={"group", "trainings"})
                key = hash_of({**rows, "fit": fit_key, "fold": fold.sha256, "approach": approach})
                parts.append(_part(spec, runtime, evaluated, trained, contestant, fold, seed, fit_key, key))
    return parts


def _all_fits_depend_on(runtime: Runtime, trained: Material) -> dict[str, Any]:
    reading = [file for file in sorted((ROOT / "data").rglob("*.py")) if not file.stem.startswith(LOOK_ONLY)]
    own = {**asdict(runtime), "device": str(runtime.device)}
    del own["compiled"]  # which is for predictions after the fit
    code = (*reading, *sorted((ROOT / "approaches").glob("*.py")), ROOT / "scoring" / "overlap.py")
    return {
        "format": FORMAT,
        "data": [trained.name, trained.sha256],
        "code": hash_code(*code, *(ROOT / f"{name}.py" for name in ("environment", "fits", "ranks"))),
        "dataset": hash_code(module_place(type(trained.dataset))),
        "versions": versions(),
        "runtime": own,
        "machine": cuda_name() if runtime.device.type == "cuda" else [cpu_name(), get_cpu_capability()],
    }


def require_fits(plan: Plan) -> None:
    """Raises InputError for what would end one of the fits, before any of them begins.

    After `require_alike`, whose sentence is the better one where processes differ.
    """
    for contestant in plan.contestants:
        if contestant.skipped:
            continue
        approach = contestant.kind(contestant.settings, plan.runtime)
        for fold in contestant.folds:
            try:
                approach.require(fold.train)
            except InputError as error:
                raise InputError(f"approach {contestant.spec.name!r}: {error}") from error


def require_alike(plan: Plan) -> None:
    """All processes of a run have to learn from the same, with the same code; nothing else would show it.

    Raises:
        InputError: in each of them, with what differs.
    """
    if world_size() == 1:
        return
    wait_for_all()  # for plans that take long, as no sum of theirs would
    apart = differences(all_parts([_facts_of_training(plan)]))
    if apart:
        raise InputError(
            f"the processes of this run differ in their {', '.join(apart)}: give all machines the same code, "
            "packages, spec, data and weights, and name runtime.device and runtime.precision in the spec"
        )


def differences(facts: Sequence[dict[str, str]]) -> list[str]:
    """Names of the facts that aren't the same everywhere."""
    names = dict.fromkeys(name for each in facts for name in each)
    return [name for name in names if len({each.get(name) for each in facts}) > 1]


def _facts_of_training(plan: Plan) -> dict[str, str]:
    """Hashes of what processes have to have in common; their processors and threads may differ."""
    fits = _all_fits_depend_on(plan.runtime, plan.trained)
    every = plan.contestants
    # Where a library is missing its approach is skipped, which is to show as that alone.
    facts = {
        "code": [fits["code"], fits["dataset"]],
        "package versions": fits["versions"],
        "device": fits["runtime"]["device"],
        "precision": [fits["runtime"][key] for key in ("precision", "channels_last")],
        "seeds": [plan.spec.seeds[: c.trainings] for c in every],
        "settings": [[c.spec.name, c.spec.use, c.settings.model_dump(mode="json")] for c in every],
        "data": fits["data"],
        "split": [fold.fit_sha256 for c in every for fold in c.folds],
    }
    for contestant in every:
        if not contestant.skipped:
            weights = contestant.weights
            facts[f"code and weights of {contestant.spec.name}"] = [
                hash_code(*code_places(contestant.kind)),
                [weights.network, weights.kind, weights.sha256] if weights else None,
            ]
    return {name: hash_of(value) for name, value in facts.items()}


def _part(
    spec: Spec,
    runtime: Runtime,
    evaluated: Material,
    trained: Material,
    contestant: Contestant,
    fold: Fold,
    seed: int,
    fit_key: str,
    key: str,
) -> Part:
    return Part(
        approach=contestant.spec,
        kind=contestant.kind,
        settings=contestant.settings,
        runtime=runtime,
        dataset=evaluated.name,
        train_set=trained.name,
        fold=fold.split.fold,
        seed=seed,
        fit_key=fit_key,
        key=key,
        train=fold.train,
        validation=fold.validation,
        evaluated=fold.evaluated,
        keep_maps=seed == spec.seeds[0],
    )
