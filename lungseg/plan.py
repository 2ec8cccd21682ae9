"""What a benchmark will do: data, splits, classes and weights, found and checked before it computes."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lungseg.approaches import APPROACHES
from lungseg.approaches.approach import Approach, Runtime, WeightsInfo
from lungseg.data import fingerprint, load_dataset
from lungseg.data.memory import RememberedSample, remember
from lungseg.data.sample import Dataset, Sample
from lungseg.data.splits import Split, SplitOptions, make_splits
from lungseg.environment import (
    ROOT,
    cpu_name,
    cuda_name,
    hash_code,
    module_place,
    resolve_runtime,
    usable_cores,
    versions,
)
from lungseg.errors import InputError
from lungseg.parts import Part, hash_of
from lungseg.plugins import load_class, validate
from lungseg.results import FORMAT
from lungseg.spec import ApproachSpec, DataSpec, Spec, TrainingDataSpec

# Ids are names of files: no folder, nothing hidden, nothing that a file system would refuse.
SAFE_ID = re.compile(r"[^./\\\x00-\x1f][^/\\\x00-\x1f]{0,199}")


@dataclass(frozen=True)
class Material:
    """A dataset as loaded: its samples by id, the sha256 of their bytes, and what to know of it."""

    dataset: Dataset
    name: str
    samples: dict[str, Sample]
    sha256: str
    notes: tuple[str, ...]

    def described(self) -> dict[str, Any]:
        count = len(self.samples)
        return {"dataset": self.name, "real": self.dataset.real, "count": count, "sha256": self.sha256}

    def pick(self, ids: Sequence[str]) -> tuple[Sample, ...]:
        return tuple(self.samples[name] for name in ids)


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
        sides = (self.train, self.validation, self.evaluated)
        return hash_of([[(s.id, s.patient, s.source, s.label) for s in side] for side in sides])


@dataclass(frozen=True)
class Contestant:
    """An approach of the spec with its class, settings, folds and weights, or why it can't run here."""

    spec: ApproachSpec
    folds: tuple[Fold, ...]
    kind: type[Approach]
    settings: Any
    weights: WeightsInfo | None
    skipped: str | None


@dataclass(frozen=True)
class Plan:
    """Everything that a run needs."""

    spec: Spec
    runtime: Runtime
    evaluated: Material
    trained: Material
    folds: tuple[Fold, ...]
    contestants: tuple[Contestant, ...]
    parts: tuple[Part, ...]


def data_root() -> Path | None:
    """The folder that LUNGSEG_DATA names, or None. Raises InputError if it names something else."""
    named = os.environ.get("LUNGSEG_DATA")
    if not named:
        return None
    root = Path(named).expanduser()
    if not root.is_dir():
        raise InputError(f"LUNGSEG_DATA names {named}, which is not a folder: set it to a folder of datasets")
    return root


def make_plan(spec: Spec, device: str | None = None) -> Plan:
    """Raises InputError for whatever would end the run later: names, keys, data, splits, weights, device."""
    runtime = resolve_runtime(spec.runtime, device)
    classes = [_resolve(entry) for entry in spec.approach]  # names and keys first: they cost nothing
    options = {key: value for key, value in spec.data.options.items() if key in SplitOptions.model_fields}
    split_options = validate(SplitOptions, options, "[data]")
    evaluated = _load(spec.data, without=set(options))
    trained = evaluated if spec.training_data is None else _load(spec.training_data)

    def folds_of(rule: str) -> tuple[Fold, ...]:
        splits = make_splits(rule, list(evaluated.samples.values()), split_options)
        return tuple(_fold(spec, split, evaluated, trained) for split in splits)

    if spec.training_data is not None:
        _require_apart(trained, evaluated)
    folds = folds_of(spec.data.split)
    contestants = tuple(
        _enter(entry, folds_of(entry.split) if entry.split else folds, kind, settings, runtime)
        for entry, (kind, settings) in zip(spec.approach, classes, strict=True)
    )
    parts = tuple(_parts(spec, runtime, evaluated, trained, contestants))
    return Plan(spec, runtime, evaluated, trained, folds, contestants, parts)


def _resolve(entry: ApproachSpec) -> tuple[type[Approach], Any]:
    kind = load_class(entry.use, APPROACHES, Approach, "approach")
    return kind, validate(kind.Settings, entry.options, f"approach {entry.name!r}")


def _load(spec: DataSpec | TrainingDataSpec, without: set[str] = frozenset()) -> Material:
    options = {key: value for key, value in spec.options.items() if key not in without}
    dataset = load_dataset(spec.dataset, options, data_root())
    samples = dataset.samples()
    if not samples:
        raise InputError(f"dataset {spec.dataset!r} has no image with a mask: look with `lungseg data check`")
    _require_usable_ids(samples, spec.dataset)
    sha256 = fingerprint(samples)
    kept = samples if dataset.real else remember(samples)
    notes = _inventory_notes(dataset) + (_read_all(kept) if dataset.real or kept is not samples else [])
    by_id = {sample.id: sample for sample in kept}
    return Material(dataset, spec.dataset, by_id, sha256, tuple(f"{spec.dataset}: {note}" for note in notes))


def _require_usable_ids(samples: Sequence[Sample], name: str) -> None:
    seen: set[str] = set()
    for sample in samples:
        if not SAFE_ID.fullmatch(sample.id):
            raise InputError(
                f"dataset {name!r} has the id {sample.id!r}, which can't be a file's name: rename it"
            )
        if sample.id in seen:
            raise InputError(f"dataset {name!r} has the id {sample.id!r} twice: give each image its own")
        seen.add(sample.id)


def _inventory_notes(dataset: Dataset) -> list[str]:
    missing = len(dataset.inventory().images_without_mask)
    return [f"{missing} images have no mask and are left out"] if missing else []


def _read_all(samples: Sequence[Sample]) -> list[str]:
    """Reads every file once: a damaged one ends the run now, in seconds, and not in its last hour."""

    def share_of_lung(sample: Sample) -> float:
        image, mask = sample.image(), sample.mask()
        if image.shape != mask.shape:
            raise InputError(f"image {sample.id} is {image.shape}, its mask {mask.shape}: make them one size")
        return float(mask.mean())

    # What is generated has one cache for all; threads would throw each other's pairs out of it.
    workers = 1 if isinstance(samples[0], RememberedSample) else usable_cores()
    with ThreadPoolExecutor(workers) as pool:
        shares = list(pool.map(share_of_lung, samples))
    kinds = {"empty": 0.0, "all lung": 1.0}
    counts = {kind: shares.count(share) for kind, share in kinds.items()}
    return [f"{count} masks are {kind}, and are learnt from" for kind, count in counts.items() if count]


def _require_apart(trained: Material, evaluated: Material) -> None:
    """No image that is evaluated may be trained on: the same bytes, or the same patient of one dataset."""
    known = {hashlib.sha256(s.content()).digest(): s.id for s in evaluated.samples.values()}
    patients = {s.patient for s in evaluated.samples.values()} if trained.name == evaluated.name else set()
    for sample in trained.samples.values():
        if sample.patient in patients or hashlib.sha256(sample.content()).digest() in known:
            raise InputError(
                f"[training_data] has the image {sample.id}, which is also among the images of [data]: "
                "train on another dataset, or leave [training_data] out"
            )


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
    return Contestant(entry, folds, kind, settings, None if reason else approach.weights(), reason)


def _parts(
    spec: Spec,
    runtime: Runtime,
    evaluated: Material,
    trained: Material,
    contestants: Sequence[Contestant],
) -> list[Part]:
    approaches = sorted((ROOT / "approaches").glob("*.py"))
    everywhere = {
        "format": FORMAT,
        "data": [evaluated.name, evaluated.sha256, trained.name, trained.sha256],
        "code": hash_code(ROOT / "data", ROOT / "scoring" / "metrics.py", ROOT / "parts.py", *approaches),
        "datasets": [hash_code(module_place(type(material.dataset))) for material in (evaluated, trained)],
        "versions": versions(),
        "runtime": [str(runtime.device), runtime.precision, runtime.threads, runtime.compiled],
        "machine": cuda_name() if runtime.device.type == "cuda" else cpu_name(),
    }
    parts = []
    for contestant in contestants:
        if contestant.skipped:
            continue
        own = {
            **everywhere,
            "approach": contestant.spec.model_dump(mode="json"),
            "settings": contestant.settings.model_dump(mode="json"),
            "weights": asdict(contestant.weights) if contestant.weights else None,
            "own_code": hash_code(module_place(contestant.kind)),
        }
        seeds = spec.seeds if contestant.kind.stochastic else spec.seeds[:1]
        for fold in contestant.folds:
            for seed in seeds:
                key = hash_of({**own, "fold": fold.sha256, "seed": seed})
                parts.append(_part(spec, runtime, evaluated, trained, contestant, fold, seed, key))
    return parts


def _part(
    spec: Spec,
    runtime: Runtime,
    evaluated: Material,
    trained: Material,
    contestant: Contestant,
    fold: Fold,
    seed: int,
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
        key=key,
        train=fold.train,
        validation=fold.validation,
        evaluated=fold.evaluated,
        keep_maps=seed == spec.seeds[0],
    )
