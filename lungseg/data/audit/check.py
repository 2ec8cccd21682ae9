"""Check a dataset on disk for `lungseg data check`: missing and unreadable files, wrong masks, duplicates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lungseg.data.audit.compare import KINDS, Pair, compare_samples
from lungseg.data.audit.pictures import Progress
from lungseg.data.audit.sizes import SizePair, describe_sizes, measure_mismatch
from lungseg.data.audit.unlike import describe_picture, find_unlike
from lungseg.data.files.images import SizeMismatch
from lungseg.data.sample import Dataset, Sample, explain_unsafe_id, is_safe_id
from lungseg.system.errors import InputError

_SHOWN = 3  # names in a row; of further ones it gives the number


@dataclass
class CheckReport:
    """What was found. Lists of sentences are ready to print; the other lists hold ids or names of files."""

    root: Path | None  # the dataset's folder, None if it has none
    count: int = 0  # images that have a mask
    patients: int = 0  # among these
    sources: Counter[str] = field(default_factory=Counter)  # number of images of each
    labels: Counter[str] = field(default_factory=Counter)  # likewise
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)  # (height, width), of readable images
    lung_shares: list[float] = field(default_factory=list)  # lung pixels over all, of each readable mask
    images_without_mask: list[str] = field(default_factory=list)  # names of files
    masks_without_image: list[str] = field(default_factory=list)
    ambiguous: list[str] = field(default_factory=list)  # sentences: two masks for one image, a duplicate id
    unreadable: list[str] = field(default_factory=list)  # sentences: images and masks that can't be used
    size_mismatches: list[SizePair] = field(default_factory=list)
    empty_masks: list[str] = field(default_factory=list)  # ids
    full_masks: list[str] = field(default_factory=list)
    blank_images: list[str] = field(default_factory=list)
    duplicates: list[Pair] = field(default_factory=list)  # of one picture, not only of one patient
    lookalikes: list[Pair] = field(default_factory=list)  # under two patients' names; may show one person
    cautions: list[str] = field(default_factory=list)  # sentences: what somebody should look at
    uncompared: list[str] = field(default_factory=list)  # ids; they show too little to look for copies
    inverted: list[str] = field(default_factory=list)  # ids
    turned: list[tuple[str, int]] = field(default_factory=list)  # (id, degrees clockwise)
    foreign: list[str] = field(default_factory=list)  # ids

    @property
    def problems(self) -> list[str]:
        """Sentences: what would stop a training or mislead it."""
        sentences = [] if self.count else ["no image has a mask: check the names of the masks"]
        if self.count and self._lacks_half:
            total = self.count + len(self.images_without_mask)
            sentences.append(
                f"{len(self.images_without_mask)} of {total} images have no mask: "
                f"check the names of the masks ({_some(self.images_without_mask)})"
            )
        sentences += self.ambiguous + self.unreadable + describe_sizes(self.size_mismatches)
        sentences += [f"the mask of {name} is empty: correct or remove it" for name in self.empty_masks]
        sentences += [f"the mask of {name} is all lung: correct or remove it" for name in self.full_masks]
        sentences += [f"the image {name} is blank: copy it again or remove it" for name in self.blank_images]
        return sentences

    @property
    def notes(self) -> list[str]:
        """Sentences: what is left out, and pictures that a split must keep together."""
        sentences = []
        names = self.images_without_mask
        if names and not (self.count and self._lacks_half):
            sentences.append(f"images without a mask, left out: {len(names)} ({_some(names)})")
        if names := self.masks_without_image:
            sentences.append(f"masks without an image, left out: {len(names)} ({_some(names)})")
        for kind in KINDS:
            if names := _format_pairs([pair for pair in self.duplicates if pair.kind == kind]):
                sentences.append(
                    f"duplicate pictures ({kind}): {_some(names)}; "
                    "keep each pair on one side of a split, or remove one"
                )
        if names := _format_pairs(self.lookalikes):
            sentences.append(
                f"pictures that may show one person under two names: {_some(names)}; "
                "look at them, and give the two one patient if they do"
            )
        sentences += self._describe_unlike() + self.cautions
        if names := self.uncompared:
            sentences.append(
                f"{len(names)} images are too small, blank or blurred to look for near-duplicates of: "
                f"{_some(names)}"
            )
        return sentences

    @property
    def _lacks_half(self) -> bool:
        return len(self.images_without_mask) >= self.count

    def _describe_unlike(self) -> list[str]:
        """Sentences about pictures that look wrong beside the others."""
        sentences = []
        if names := self.inverted:
            sentences.append(f"{_count_images(names)} inverted (light lungs): {_some(names)}")
        for degrees in (90, 180, 270):
            if names := [name for name, angle in self.turned if angle == degrees]:
                way = "upside down" if degrees == 180 else f"turned by {degrees} degrees clockwise"
                sentences.append(f"{_count_images(names)} {way}: {_some(names)}")
        if names := self.foreign:
            sentences.append(
                f"{_count_images(names)} unlike the rest: {_some(names)}; "
                "look at them, and remove what is no frontal chest X-ray"
            )
        return sentences

    @property
    def ok(self) -> bool:
        """Whether nothing would stop or mislead a training."""
        return not self.problems

    def rows(self) -> list[tuple[str, str]]:
        """Return rows to print, each a name and a value, the counts first."""
        sizes = Counter({f"{height} x {width}": n for (height, width), n in self.sizes.items()})
        rows = [
            ("folder", str(self.root) if self.root else "none: made by a generator"),
            ("images with a mask", str(self.count)),
            ("patients", str(self.patients)),
            ("sources", _counts(self.sources)),
            ("labels", _counts(self.labels)),
            ("sizes (height x width)", _counts(sizes)),
            ("lung share of an image", _spread(self.lung_shares)),
        ]
        lists = (
            ("images without a mask", self.images_without_mask),
            ("masks without an image", self.masks_without_image),
            ("ambiguous", self.ambiguous),
            ("unusable files", self.unreadable),
            ("masks of another size", [pair.id for pair in self.size_mismatches]),
            ("empty masks", self.empty_masks),
            ("masks that are all lung", self.full_masks),
            ("blank images", self.blank_images),
            ("duplicate pictures", _format_pairs(self.duplicates)),
            ("pictures that may show one person", _format_pairs(self.lookalikes)),
        )
        return rows + [(name, f"{len(found)}: {_some(found)}" if found else "0") for name, found in lists]


def check_dataset(dataset: Dataset, progress: Progress | None = None) -> CheckReport:
    """Read every image and mask of a dataset, two at a time, and compare all pictures with each other.

    Near-duplicates are looked for only if the dataset shows real people. The progress is called with (done,
    total, id) after each image, then as by `compare_samples`. Raises InputError if the dataset isn't there (a
    missing or empty folder).
    """
    inventory = dataset.inventory()
    samples = sorted(inventory.samples, key=lambda sample: sample.id)
    report = CheckReport(
        inventory.root,
        count=len(samples),
        patients=len({sample.patient for sample in samples}),
        sources=Counter(sample.source for sample in samples),
        labels=Counter(sample.label for sample in samples if sample.label),
        images_without_mask=list(inventory.images_without_mask),
        masks_without_image=list(inventory.masks_without_image),
        ambiguous=inventory.conflicts,
        cautions=list(inventory.notes),
        unreadable=[explain_unsafe_id(sample.id) for sample in samples if not is_safe_id(sample.id)],
    )
    sound: list[Sample] = []
    described: dict[str, np.ndarray] = {}
    with ThreadPoolExecutor(2) as pool:
        findings = zip(samples, pool.map(_read, samples), strict=True)
        for done, (sample, finding) in enumerate(findings, start=1):
            _enter(report, sample, finding)
            if not finding.error:
                sound.append(sample)
            if finding.description is not None:
                described[sample.id] = finding.description
            if progress:
                progress(done, len(samples), sample.id)
    found = compare_samples({"": sound}, progress, pictures=dataset.real)
    report.duplicates = [pair for pair in found.pairs if pair.kind != "same patient"]
    report.lookalikes = found.lookalikes
    report.uncompared = [name for _, name in found.uncompared]
    names, unlike = list(described), find_unlike(list(described.values()))
    report.inverted = [names[index] for index in unlike.inverted]
    report.turned = [(names[index], degrees) for index, degrees in unlike.turned.items()]
    report.foreign = [names[index] for index in unlike.foreign]
    return report


@dataclass(frozen=True)
class _Finding:
    """What reading one sample showed; `error` says why it could not be read."""

    size: tuple[int, int] | None = None
    blank: bool = False
    description: np.ndarray | None = None  # of `describe_picture`, of readable images that are not blank
    lung_share: float | None = None
    caution: str | None = None
    mismatch: SizePair | None = None
    error: InputError | None = None


def _read(sample: Sample) -> _Finding:
    size, blank, description = None, False, None
    try:
        image = sample.image()
        size, blank = image.shape, bool(image.min() == image.max())
        description = None if blank else describe_picture(image)
        mask = sample.mask()
        if mask.shape != size:
            raise SizeMismatch(
                f"the mask of {sample.id} has {mask.shape[0]} x {mask.shape[1]} pixels but its image "
                f"{size[0]} x {size[1]}: give a mask of the image's size"
            )
        return _Finding(size, blank, description, float(np.mean(mask)), sample.caution)
    except SizeMismatch as error:
        mismatch = measure_mismatch(sample, size, str(error)) if size else None
        return _Finding(size, blank, description, mismatch=mismatch, error=error)
    except InputError as error:
        return _Finding(size, blank, description, error=error)


def _enter(report: CheckReport, sample: Sample, finding: _Finding) -> None:
    if finding.size:
        report.sizes[finding.size] += 1
    if finding.caution:
        report.cautions.append(f"{sample.id} {finding.caution}")
    if finding.blank:
        report.blank_images.append(sample.id)
    if finding.mismatch:
        report.size_mismatches.append(finding.mismatch)
    elif finding.error:
        report.unreadable.append(str(finding.error))
    if finding.lung_share is not None:
        report.lung_shares.append(finding.lung_share)
        if finding.lung_share == 0:
            report.empty_masks.append(sample.id)
        elif finding.lung_share == 1:
            report.full_masks.append(sample.id)


def _count_images(names: Sequence[str]) -> str:
    return f"{len(names)} images look" if len(names) > 1 else "1 image looks"


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _format_pairs(pairs: Sequence[Pair]) -> list[str]:
    alike = ("" if pair.similarity is None else f" ({pair.similarity:.2f})" for pair in pairs)
    return [f"{pair.first[1]} = {pair.second[1]}{shown}" for pair, shown in zip(pairs, alike, strict=True)]


def _counts(counter: Counter[str]) -> str:
    return _some([f"{name}: {n}" for name, n in counter.most_common()]) or "none"


def _spread(shares: Sequence[float]) -> str:
    if not shares:
        return "none"
    return f"{np.median(shares):.0%} (median), {min(shares):.0%} to {max(shares):.0%}"
