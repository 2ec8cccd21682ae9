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
    tested = plan.evaluated, *plan.further
    found = audit_folds(tested, plan.trained, _folds(plan), progress)
    if found.leaks and not plan.spec.data.allow_leaks:
        raise InputError(refuse(found.leaks, [*tested, plan.trained]))
    return found


def audit_folds(
    tested: Sequence[LoadedDataset],
    trained: LoadedDataset,
    folds: Sequence[Fold],
    progress: Callable[[int, int, str], None] | None = None,
) -> Audit:
    """Compare all pictures and look on which sides of the folds equal ones are, whether allowed or not.

    Args:
        tested: the evaluated dataset, then the further test sets.
        trained: the dataset for training; often the evaluated one.
        folds: of the evaluated dataset.
        progress: called with (done, total, text).
    """
    if not any(fold.train for fold in folds):
        return Audit(0, False, 0, 0, (), ())  # nothing is trained, so nothing can leak
    groups = {each.name: list(each.samples.values()) for each in tested}
    name = tested[0].name
    if trained is not tested[0]:
        name = trained.name if trained.name not in groups else f"{trained.name} (training_data)"
        groups[name] = list(trained.samples.values())
    pictures = trained.dataset.real and any(each.dataset.real for each in tested)
    found = compare_samples(groups, progress, pictures)
    own = trained is tested[0]  # a row may be trained on another of the tested datasets then
    sides = [_sides(fold, fold.train_set if own else name) for fold in folds]
    sentences = _apart(found.pairs, sides)
    shown_twice = sum(pair.kind != "same patient" for pair in found.pairs)
    lookalikes = _apart(found.lookalikes, sides)
    checked = sum(map(len, groups.values()))
    return Audit(checked, pictures, len(found.uncompared), shown_twice, sentences, lookalikes)


def join_audits(audits: Sequence[Audit]) -> Audit:
    """Join audits of one dataset against several that were trained on."""
    return Audit(
        sum(each.checked for each in audits),
        any(each.pictures for each in audits),
        sum(each.uncompared for each in audits),
        sum(each.twins for each in audits),
        tuple(dict.fromkeys(leak for each in audits for leak in each.leaks)),
        tuple(dict.fromkeys(pair for each in audits for pair in each.lookalikes)),
    )


def _apart(pairs: Sequence[Pair], sides: Sequence[dict[tuple[str, str], str]]) -> tuple[str, ...]:
    """Sentences of the pairs that stand on two sides in some fold, each once."""
    return tuple(dict.fromkeys(pair.describe() for side in sides for pair in find_leaks(pairs, side)))


def _folds(plan: Plan) -> list[Fold]:
    """Every fold of the plan, also those that one approach has for itself."""
    own = [fold for entry in plan.entries for fold in entry.folds]
    return list({id(fold): fold for fold in (*plan.folds, *own)}.values())


def _sides(fold: Fold, trained: str) -> dict[tuple[str, str], str]:
    """(dataset, id) -> side; `trained` is what the dataset for training is called."""
    sides = {(each.dataset, sample.id): "test" for each in fold.scored for sample in each.samples}
    if trained == fold.dataset:  # its test side may be another than the one that is evaluated
        split = fold.split
        ids = {"train": split.train, "validation": split.validation, "test": split.test}
        return sides | {(trained, name): side for side, members in ids.items() for name in members}
    sides |= {(trained, sample.id): "train" for sample in fold.train}
    return sides | {(trained, sample.id): "validation" for sample in fold.validation}


def refuse(
    sentences: Sequence[str], datasets: Sequence[LoadedDataset], consent: str = "data.allow_leaks=true"
) -> str:
    """Return a sentence that names the leaks and what to do about them, or how to allow them."""
    keys = dict.fromkeys(filter(None, (each.dataset.regrouping for each in datasets)))
    one_patient = f"one patient: set {' or '.join(keys)}; " if keys else ""
    more = f"; and {len(sentences) - SHOWN} more pairs" if len(sentences) > SHOWN else ""
    return (
        f"the split is not clean, {len(sentences)} pair(s) stand on two sides of it: "
        f"{'; '.join(sentences[:SHOWN])}{more}. Remove or regroup them ({one_patient}two people of one name: "
        f"give each dataset a source of its own), or set {consent} and have every table say so"
    )
