"""The leak audit of every run: no picture and no patient on two sides of a split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lungseg.data.audit.compare import Pair, compare_samples, find_leaks
from lungseg.data.loading import LoadedDataset
from lungseg.harness.plan import Plan
from lungseg.harness.trial import Fold
from lungseg.system.errors import InputError

SHOWN = 5


@dataclass(frozen=True)
class Audit:
    """What was compared and found.

    Attributes:
        checked: images that were compared with one another.
        pictures: near-duplicates were looked for too, not only equal files, pixels and patients.
        uncompared: of the checked images, those too small, blank or blurred to look for near-duplicates of.
        twins: pairs that show the same picture, on whichever side; two pictures of one patient are none.
        leaks: sentences: pairs on two sides of a split, or in training and evaluated dataset.
        lookalikes: sentences: pairs on two sides that may show one person under two names. No leak until
            somebody has looked at them, so they are told and end no run.
    """

    checked: int
    pictures: bool
    uncompared: int
    twins: int
    leaks: tuple[str, ...]
    lookalikes: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """Describe it for run.json."""
        kinds = ["same file", "same pixels", "same patient", *(["near-duplicate"] if self.pictures else [])]
        audit = {
            "checked": self.checked,
            "kinds": kinds,
            "twins": self.twins,
            "uncompared": self.uncompared,
            "lookalikes": list(self.lookalikes),
        }
        return {"audit": audit, "leaks": list(self.leaks), "leaks_allowed": bool(self.leaks)}


def audit_plan(plan: Plan, progress: Callable[[int, int, str], None] | None = None) -> Audit:
    """Compare all pictures of a plan and look on which sides of its splits equal ones are.

    Raises:
        InputError: some are on two sides, and `data.allow_leaks` is not set. It names the pairs.
    """
    found = audit_folds(plan.evaluated, plan.trained, _folds(plan), progress)
    if found.leaks and not plan.spec.data.allow_leaks:
        raise InputError(refuse(found.leaks, plan.evaluated, plan.trained))
    return found


def audit_folds(
    evaluated: LoadedDataset,
    trained: LoadedDataset,
    folds: Sequence[Fold],
    progress: Callable[[int, int, str], None] | None = None,
) -> Audit:
    """Compare all pictures and look on which sides of the folds equal ones are, whether allowed or not."""
    names = [evaluated.name, trained.name]
    if trained is not evaluated and names[0] == names[1]:
        names[1] += " (training_data)"
    groups = dict(zip(names, [m.samples.values() for m in (evaluated, trained)], strict=True))
    pictures = evaluated.dataset.real and trained.dataset.real
    found = compare_samples({name: list(group) for name, group in groups.items()}, progress, pictures)
    sides = [_sides(fold, names, trained is evaluated) for fold in folds]
    sentences = _apart(found.pairs, sides)
    checked = sum(len(group) for group in groups.values())
    shown_twice = sum(pair.kind != "same patient" for pair in found.pairs)
    lookalikes = _apart(found.lookalikes, sides)
    return Audit(checked, pictures, len(found.uncompared), shown_twice, sentences, lookalikes)


def _apart(pairs: Sequence[Pair], sides: Sequence[dict[tuple[str, str], str]]) -> tuple[str, ...]:
    """Sentences of the pairs that stand on two sides in some fold, each once."""
    return tuple(dict.fromkeys(pair.describe() for side in sides for pair in find_leaks(pairs, side)))


def _folds(plan: Plan) -> list[Fold]:
    """Every fold of the plan, also those that one approach has for itself."""
    own = [fold for entry in plan.entries for fold in entry.folds]
    return list({id(fold): fold for fold in (*plan.folds, *own)}.values())


def _sides(fold: Fold, names: list[str], one_dataset: bool) -> dict[tuple[str, str], str]:
    """(dataset, id) -> side."""
    if one_dataset:
        split = fold.split
        ids = {"train": split.train, "validation": split.validation, "test": split.test}
        return {(names[0], name): side for side, members in ids.items() for name in members}
    return {
        **{(names[1], sample.id): "train" for sample in fold.train},
        **{(names[1], sample.id): "validation" for sample in fold.validation},
        **{(names[0], sample.id): "test" for sample in fold.evaluated},
    }


def refuse(sentences: Sequence[str], evaluated: LoadedDataset, trained: LoadedDataset) -> str:
    """Return a sentence that names the leaks and what to do about them."""
    keys = dict.fromkeys(filter(None, (evaluated.dataset.regrouping, trained.dataset.regrouping)))
    one_patient = f"one patient: set {' or '.join(keys)}; " if keys else ""
    more = f"; and {len(sentences) - SHOWN} more pairs" if len(sentences) > SHOWN else ""
    return (
        f"the split is not clean, {len(sentences)} pair(s) stand on two sides of it: "
        f"{'; '.join(sentences[:SHOWN])}{more}. Remove or regroup them ({one_patient}two people of one name: "
        "give each dataset a source of its own), or set data.allow_leaks=true and have every table say so"
    )
