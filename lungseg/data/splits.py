"""Divide samples into training, validation and test sides by patient, by a rule or a published list."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated

from pydantic import Field, field_validator

from lungseg.data.sample import Sample
from lungseg.system.errors import InputError
from lungseg.system.plugins import Settings, suggest

SIDES = ("train", "validation", "test")
WITHOUT_TEST = ("last-fifth",)
WITHOUT_TRAINING = ("all",)
PUBLISHED = "published:"
Share = Annotated[float, Field(gt=0, lt=1)]


class SplitOptions(Settings):
    """Keys of a split in a spec."""

    split_seed: int = Field(0, ge=0, lt=2**31)
    """Another number gives another random split."""
    fractions: tuple[Share, Share, Share] = (0.7, 0.1, 0.2)
    """Shares of training, validation and test images. They add up to 1."""
    folds: int = Field(5, ge=2, le=1000)
    """Number of folds. Each approach is trained once for each fold."""
    train_sources: tuple[str, ...] = ()
    """Sources of the training and validation images."""
    test_sources: tuple[str, ...] = ()
    """Sources of the test images."""
    validation_share: Share = 0.1
    """Validation images, as a share of all images that are not for test."""

    @field_validator("fractions")
    @classmethod
    def _whole(cls, fractions: tuple[float, float, float]) -> tuple[float, float, float]:
        if abs(sum(fractions) - 1) > 1e-6:
            raise ValueError(f"train, validation and test have to add up to 1, not {sum(fractions):g}")
        return fractions


@dataclass(frozen=True)
class Split:
    """Ids of the three sides, each sorted. `fold` counts from 0; rules that make one split have fold 0."""

    rule: str
    fold: int
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Return the hash of the three lists as JSON with sorted keys and no spaces: sha256, hex."""
        sides = {side: list(getattr(self, side)) for side in SIDES}
        return hashlib.sha256(json.dumps(sides, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def check(self, patients: Mapping[str, str]) -> None:
        """Raise InputError for an empty side, and for an image or patient (by image) on two sides.

        Only a split of "last-fifth" may have an empty test side, and only one of "all" empty others.
        """
        where: dict[str, str] = {}
        for side in SIDES:
            ids = getattr(self, side)
            may_be_empty = WITHOUT_TEST if side == "test" else WITHOUT_TRAINING
            if not ids and self.rule not in may_be_empty:
                raise InputError(
                    f"split '{self.rule}' leaves the {side} side empty: use more images or another split"
                )
            for name in ids:
                if name in where:
                    raise InputError(
                        f"split '{self.rule}' has the image {name} in {where[name]} and in {side}: "
                        "correct the split"
                    )
                where[name] = side
        side_of_patient: dict[str, str] = {}
        for name, side in where.items():
            other = side_of_patient.setdefault(patients[name], side)
            if other != side:
                raise InputError(
                    f"split '{self.rule}' puts images of patient {patients[name]} into {other} and "
                    f"into {side}: use a split that goes by patient, such as 'random'"
                )


def make_splits(rule: str, samples: Sequence[Sample], options: SplitOptions) -> list[Split]:
    """Make the splits of a rule, one for each fold, and check them.

    - "every-14th": images sorted by id; every 14th from the first is validation, every 14th from the second
      is test, the rest train.
    - "last-fifth": images sorted by id; the last 20 % are validation, the rest train. There is no test side,
      so only a spec that evaluates on validation can use it.
    - "published:NAME": a published list; images that it doesn't name are left out.
    - "random": by `fractions`, stratified by source and label.
    - "kfold": each of `folds` parts is the test side once, stratified by source and label; of the rest,
      `validation_share` is validation.
    - "by-source": train and validation from `train_sources`, test from `test_sources`.
    - "all": every image is test. What is trained needs `[training_data]` then.

    Random choices depend only on the seed and the patients' names, not on the version of a library.

    Raises:
        InputError: an unknown rule, name or source; a published id that the dataset lacks; an empty side; an
            image that occurs more than once; a patient on two sides.
    """
    require_known_rule(rule)
    if rule in RULES:
        splits = RULES[rule](samples, options)
    else:
        splits = [_published(rule, rule.removeprefix(PUBLISHED), samples)]
    patients = {sample.id: sample.patient for sample in samples}
    for split in splits:
        split.check(patients)
    return splits


def require_known_rule(rule: str) -> None:
    """Raise InputError for a rule that `make_splits` doesn't know, before any sample is read."""
    if rule not in RULES and not rule.startswith(PUBLISHED):
        known = [*RULES, *(f"{PUBLISHED}{name}" for name in list_published_splits())]
        raise InputError(f"unknown split '{rule}'{suggest(rule, known, ': use')} one of {', '.join(known)}")


def list_published_splits() -> list[str]:
    """List the names of the published splits that the package carries."""
    folder = files("lungseg.data") / "published"
    return sorted(file.name.removesuffix(".json") for file in folder.iterdir() if file.name.endswith(".json"))


def _every_14th(samples: Sequence[Sample], options: SplitOptions) -> list[Split]:
    ordered = sorted(samples, key=lambda sample: sample.id)
    train = [sample for i, sample in enumerate(ordered) if i % 14 > 1]
    return [_split("every-14th", 0, train, ordered[0::14], ordered[1::14])]


def _last_fifth(samples: Sequence[Sample], options: SplitOptions) -> list[Split]:
    ordered = sorted(samples, key=lambda sample: sample.id)
    cut = len(ordered) - round(len(ordered) / 5)
    return [_split("last-fifth", 0, ordered[:cut], ordered[cut:], [])]


def _published(rule: str, name: str, samples: Sequence[Sample]) -> Split:
    if name not in list_published_splits():
        raise InputError(f"unknown published split '{name}': use one of {', '.join(list_published_splits())}")
    stored = json.loads((files("lungseg.data") / "published" / f"{name}.json").read_text("utf-8"))
    present = {sample.id for sample in samples}
    missing = sorted({name for side in SIDES for name in stored[side]} - present)
    if missing:
        raise InputError(
            f"split '{rule}' names {len(missing)} images that the dataset lacks, the first {missing[0]}: "
            "complete the dataset or use another split"
        )
    return Split(rule, 0, *(tuple(sorted(stored[side])) for side in SIDES))


def _random(samples: Sequence[Sample], options: SplitOptions) -> list[Split]:
    train, validation, _ = options.fractions
    rest, test = _divide(samples, train + validation, f"{options.split_seed}:test")
    kept, tuning = _divide(rest, train / (train + validation), f"{options.split_seed}:validation")
    return [_split("random", 0, kept, tuning, test)]


def _kfold(samples: Sequence[Sample], options: SplitOptions) -> list[Split]:
    patients = [patient for stratum in _strata(samples, f"{options.split_seed}:folds") for patient in stratum]
    splits = []
    for fold in range(options.folds):
        # Patients are dealt in turn, stratum by stratum: each fold gets its share of each, to within one.
        test = [sample for patient in patients[fold :: options.folds] for sample in patient]
        rest = [
            sample for i, patient in enumerate(patients) if i % options.folds != fold for sample in patient
        ]
        kept, tuning = _divide(rest, 1 - options.validation_share, f"{options.split_seed}:{fold}")
        splits.append(_split("kfold", fold, kept, tuning, test))
    return splits


def _by_source(samples: Sequence[Sample], options: SplitOptions) -> list[Split]:
    known = sorted({sample.source for sample in samples})
    for key in ("train_sources", "test_sources"):
        wanted = getattr(options, key)
        unknown = [source for source in wanted if source not in known]
        if unknown or not wanted:
            what = f"names the unknown source '{unknown[0]}'" if unknown else "is empty"
            raise InputError(f"{key} of split 'by-source' {what}: use some of {', '.join(known)}")
    if both := set(options.train_sources) & set(options.test_sources):
        raise InputError(
            f"the source '{min(both)}' is in train_sources and in test_sources: remove it from one"
        )
    pool = [sample for sample in samples if sample.source in options.train_sources]
    test = [sample for sample in samples if sample.source in options.test_sources]
    kept, tuning = _divide(pool, 1 - options.validation_share, f"{options.split_seed}:by-source")
    return [_split("by-source", 0, kept, tuning, test)]


def _all(samples: Sequence[Sample], options: SplitOptions) -> list[Split]:
    return [_split("all", 0, [], [], samples)]


RULES: dict[str, Callable[[Sequence[Sample], SplitOptions], list[Split]]] = {
    "every-14th": _every_14th,
    "last-fifth": _last_fifth,
    "random": _random,
    "kfold": _kfold,
    "by-source": _by_source,
    "all": _all,
}


def _divide(samples: Sequence[Sample], share: float, seed: str) -> tuple[list[Sample], list[Sample]]:
    """Divide images into shares of `share` and 1 - `share`, by patient, each stratum in the same proportion.

    Systematic sampling: the patients of each stratum are spread evenly over [0, 1) from a random start. All
    strata are merged into one line, which is cut once. So rounding errors of small strata can't add up.
    """
    line = []
    for stratum in _strata(samples, seed):
        start = _number(f"{seed}:{stratum[0][0].source}:{stratum[0][0].label}")
        for rank, patient in enumerate(stratum):
            line.append(((rank + start) / len(stratum), patient[0].patient, patient))
    first: list[Sample] = []
    second: list[Sample] = []
    seen = 0
    for _, _, patient in sorted(line, key=lambda entry: entry[:2]):
        middle = seen + len(patient) / 2
        (first if middle < share * len(samples) else second).extend(patient)
        seen += len(patient)
    return first, second


def _strata(samples: Sequence[Sample], seed: str) -> list[list[list[Sample]]]:
    """Strata of patients of images: a stratum has one source and label, its patients in random order.

    A patient's source and label are those of the first image by id.
    """
    patients: dict[str, list[Sample]] = {}
    for sample in sorted(samples, key=lambda sample: sample.id):
        patients.setdefault(sample.patient, []).append(sample)
    strata: dict[tuple[str, str], list[list[Sample]]] = {}
    for name in sorted(patients, key=lambda name: (_number(f"{seed}:{name}"), name)):
        images = patients[name]
        strata.setdefault((images[0].source, images[0].label), []).append(images)
    return [strata[key] for key in sorted(strata)]


def _number(text: str) -> float:
    """A reproducible random number in [0, 1) that depends only on the text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]) / 2**48


def _split(rule: str, fold: int, *sides: Iterable[Sample]) -> Split:
    return Split(rule, fold, *(tuple(sorted(sample.id for sample in side)) for side in sides))
