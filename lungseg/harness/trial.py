"""What a benchmark computes: a trial is an entry of the spec x a fold x a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lungseg.approaches.base import Approach
from lungseg.approaches.network import NetworkApproach
from lungseg.data.loading import LoadedDataset
from lungseg.data.sample import Sample
from lungseg.data.splits import Split
from lungseg.learning.weights import WeightsInfo
from lungseg.spec import ApproachSpec
from lungseg.system.errors import InputError
from lungseg.system.hashing import hash_value
from lungseg.system.runtime import Runtime


@dataclass(frozen=True)
class TestSet:
    """A further dataset that every fit is scored on: its name in tables, and its samples."""

    dataset: str
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class Fold:
    """What is trained on, chosen by and evaluated.

    Attributes:
        split: ids of the evaluated dataset by side.
        dataset, train_set: names of the dataset that is evaluated, and of the one that is trained on.
        train, validation, evaluated: samples.
        further: test sets beside the evaluated samples.
    """

    split: Split
    dataset: str
    train_set: str
    train: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    evaluated: tuple[Sample, ...]
    further: tuple[TestSet, ...] = ()

    @property
    def sha256(self) -> str:
        """Of the ids of the three sides, and of what the rows of a table say of each image."""
        further = [each.samples for each in self.further]
        return _hash_of_sides(self.train, self.validation, self.evaluated, *further)

    @property
    def scored(self) -> tuple[TestSet, ...]:
        """All that a fit is scored on, the evaluated samples first."""
        return (TestSet(self.dataset, self.evaluated), *self.further)

    @property
    def fit_sha256(self) -> str:
        """The same of what a fit sees."""
        return _hash_of_sides(self.train, self.validation)

    def draw(self, count: int, seed: int) -> Fold:
        """Return the fold with `count` of its training images, and validation images in proportion.

        The order in which images are drawn depends on the seed and the patients' names alone, so a larger
        number has the images of a smaller one and more. A patient's images follow each other.

        Raises:
            InputError: there are fewer training images.
        """
        if count > len(self.train):
            raise InputError(
                f"train_images is {count}, and only {len(self.train)} images are for training: lower it"
            )
        share = count / len(self.train)
        kept = max(1, round(share * len(self.validation)))
        return replace(
            self, train=_draw(self.train, count, seed), validation=_draw(self.validation, kept, seed)
        )


def _draw(samples: Sequence[Sample], count: int, seed: int) -> tuple[Sample, ...]:
    """The first samples in an order by the seed, sorted as they were."""
    ordered = sorted(
        samples, key=lambda sample: (hash_value([seed, sample.source, sample.patient]), sample.id)
    )
    chosen = {id(sample) for sample in ordered[:count]}
    return tuple(sample for sample in samples if id(sample) in chosen)


def _hash_of_sides(*sides: Sequence[Sample]) -> str:
    return hash_value([[(s.id, s.patient, s.source, s.label, s.spacing) for s in side] for side in sides])


@dataclass(frozen=True)
class Entry:
    """A row of the spec, resolved: its class, settings, folds, seeds and weights, or why it can't run here.

    Attributes:
        trained: the dataset that it is trained on.
        seeds: those that it is trained with, in order.
        skipped: why it can't run here, or None.
    """

    spec: ApproachSpec
    approach_class: type[Approach]
    settings: Any
    runtime: Runtime
    trained: LoadedDataset
    folds: tuple[Fold, ...]
    seeds: tuple[int, ...]
    weights: WeightsInfo | None = None
    skipped: str | None = None

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def depends_on_seed(self) -> bool:
        """Whether its training is random, or the images are that it is trained on."""
        drawn = self.spec.train_images is not None
        return drawn or self.approach_class.depends_on_seed(self.settings)

    @property
    def is_network(self) -> bool:
        """Whether its fits are shared by all processes of a run."""
        return issubclass(self.approach_class, NetworkApproach)

    def pick_training(self, fold: Fold, seed: int) -> Fold:
        """Return the fold as it is trained on with a seed."""
        count = self.spec.train_images
        return fold if count is None else fold.draw(count, seed)

    def new(self) -> Approach:
        """Make the approach, not yet fitted."""
        return self.approach_class(self.settings, self.runtime)


@dataclass(frozen=True)
class Keys:
    """sha256 of all that something stored depends on; it is used again only under the same key.

    Attributes:
        fit: of the fitted approach.
        score: of its rows in scores.csv; a change of a metric needs no new fit.
    """

    fit: str
    score: str


@dataclass(frozen=True)
class Trial:
    """One entry fitted on one fold with one seed, and scored."""

    entry: Entry
    fold: Fold
    seed: int
    keys: Keys

    @property
    def label(self) -> str:
        return f"{self.entry.name}, fold {self.fold.split.fold}, seed {self.seed}"

    @property
    def row(self) -> dict[str, Any]:
        """The columns that say in any table which trial a row is of."""
        return {"approach": self.entry.name, "fold": self.fold.split.fold, "seed": self.seed}

    @property
    def keeps_maps(self) -> bool:
        """Whether its maps and its model are stored for figures and timings: those of the first seed are."""
        return self.seed == self.entry.seeds[0]

    def folder(self, directory: Path) -> Path:
        return directory / "trials" / self._place

    def model(self, directory: Path) -> Path:
        return directory / "models" / self._place

    def maps(self, directory: Path) -> Path:
        return directory / "predictions" / "maps" / self._place

    @property
    def _place(self) -> Path:
        return Path(self.entry.name) / f"f{self.fold.split.fold}-s{self.seed}"
