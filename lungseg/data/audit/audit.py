"""Leaks: the same file, picture or patient on two sides of a split or in two datasets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np

from lungseg.data.audit.cache import recall, store
from lungseg.data.audit.pictures import LOOKALIKE, NEAR_DUPLICATE, Progress, alike_pairs, picture
from lungseg.data.files.files import FileSample
from lungseg.data.sample import Sample

KINDS = ("same file", "same pixels", "near-duplicate", "same patient")  # the strongest first
_SHA256_BYTES = 32


@dataclass(frozen=True)
class Twin:
    """Two samples that show the same picture or person.

    Attributes:
        kind: one of KINDS, or "look-alike": two X-rays that may be of one person.
        first, second: (name of the dataset, id of the sample).
        similarity: of near-duplicates and look-alikes, 0 to 1; else None.
    """

    kind: str
    first: tuple[str, str]
    second: tuple[str, str]
    similarity: float | None = None

    def sentence(self) -> str:
        """Which two, and what they have in common; without a full stop."""
        (first_set, first), (second_set, second) = self.first, self.second
        if first_set == second_set:
            names = f"{first} and {second} ({first_set})"
        else:
            names = f"{first} ({first_set}) and {second} ({second_set})"
        alike = "" if self.similarity is None else f", similarity {self.similarity:.2f}"
        if self.kind == "same patient":
            return f"{names} are of the same patient"
        if self.kind == "look-alike":
            return f"{names} may show the same person ({self.kind}{alike})"
        return f"{names} show the same picture ({self.kind}{alike})"


@dataclass(frozen=True)
class Findings:
    """What comparing all samples with each other showed.

    Attributes:
        twins: a Twin of one of KINDS for each pair that has something in common, of its strongest kind.
        lookalikes: pairs under two patients' names that are no copies but more alike than two persons are;
            most are two X-rays of one person. To be looked at, not a leak by themselves.
        uncompared: ids with their datasets of pictures that show too little to look for copies of.
    """

    twins: list[Twin]
    lookalikes: list[Twin]
    uncompared: list[tuple[str, str]]


def examine(
    groups: Mapping[str, Sequence[Sample]], progress: Progress | None = None, pictures: bool = True
) -> Findings:
    """Compares all samples of all datasets with each other.

    - Same file: the bytes of the image's file are the same, whatever the masks. Samples that don't lie in
      files are compared by `content()`.
    - Same pixels: the decoded images are the same.
    - Near-duplicate: copies that are resized, compressed, shown with another gamma, mirrored, cropped by up
      to 10 %, shifted, or turned by up to 3 degrees; see `lungseg.data.audit.pictures`.
    - Same patient: `source` and `patient` are the same.

    What was found in the pictures is cached by the bytes of the files and of this code.

    Args:
        groups: the samples of each dataset, by its name. Two datasets may share ids.
        progress: called with (done, total, text); `done` starts anew with each text.
        pictures: False leaves near-duplicates out; samples that don't lie in files are then not decoded.

    Raises InputError for an image that can't be read.
    """
    entries = [(name, sample) for name, samples in groups.items() for sample in samples]
    keys = [(name, sample.id) for name, sample in entries]
    files = _file_hashes([sample for _, sample in entries])
    seen = _look({file: sample for file, (_, sample) in zip(files, entries, strict=True)}, progress, pictures)
    pixels = [seen.pixels.get(file, file) for file in files]
    patients = [(sample.source, sample.patient) for _, sample in entries]

    found: dict[tuple[int, int], Twin] = {}
    lookalikes: dict[tuple[int, int], Twin] = {}

    def enter(kind: str, pairs: Iterable[tuple[int, int]], similarity: float | None = None) -> None:
        into = lookalikes if kind == "look-alike" else found
        for first, second in pairs:
            pair = min(first, second), max(first, second)
            if pair not in found and keys[first] != keys[second]:
                into[pair] = Twin(kind, keys[pair[0]], keys[pair[1]], similarity)

    enter("same file", _pairs_of_equals(files))
    enter("same pixels", _pairs_of_equals(pixels))
    places = _places(pixels)
    for first, second, similarity in seen.alike:
        if similarity >= NEAR_DUPLICATE:
            enter("near-duplicate", product(places[first], places[second]), similarity)
    enter("same patient", _pairs_of_equals(patients))
    for first, second, similarity in seen.alike:
        if similarity < NEAR_DUPLICATE:
            enter("look-alike", product(places[first], places[second]), similarity)
    return Findings(
        [twin for _, twin in sorted(found.items(), key=lambda entry: entry[0])],
        [twin for _, twin in sorted(lookalikes.items(), key=lambda entry: entry[0])],
        [key for key, pixel in zip(keys, pixels, strict=True) if pixel in seen.uncompared],
    )


def leaks(twins: Sequence[Twin], sides: Mapping[tuple[str, str], str]) -> list[Twin]:
    """The twins whose two samples stand on different sides.

    Args:
        twins: as `examine` gives them.
        sides: "train", "validation" or "test" of each (dataset, id); samples not in it don't count.
    """
    placed = [twin for twin in twins if twin.first in sides and twin.second in sides]
    return [twin for twin in placed if sides[twin.first] != sides[twin.second]]


@dataclass(frozen=True)
class _Seen:
    """What the pictures showed, by hashes (hex) alone, so that it holds under any names.

    Attributes:
        pixels: hash of a file -> hash of its decoded pixels.
        alike: (hash of pixels, hash of pixels, similarity) from LOOKALIKE up.
        uncompared: hashes of pixels.
    """

    pixels: dict[str, str]
    alike: list[tuple[str, str, float]]
    uncompared: set[str]


def _file_hashes(samples: Sequence[Sample]) -> list[str]:
    def hashed(sample: Sample) -> str:
        content = sample.content()
        if isinstance(sample, FileSample):
            return content[:_SHA256_BYTES].hex()  # the image's file comes first, its masks behind
        return hashlib.sha256(content).hexdigest()

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(hashed, samples))


def _look(samples: Mapping[str, Sample], progress: Progress | None, compare: bool) -> _Seen:
    """Reads and compares the pictures, or recalls what they showed; `samples` by the hash of the file."""
    chosen = {file: sample for file, sample in samples.items() if compare or isinstance(sample, FileSample)}
    if not chosen:
        return _Seen({}, [], set())
    files = sorted(chosen)
    recalled = recall(files, compare)
    if recalled is not None:
        return _Seen(recalled[0], recalled[1], set(recalled[2]))
    pixels: dict[str, str] = {}
    kept: dict[str, np.ndarray | None] = {}
    for file, (pixel, small) in zip(files, _read([chosen[file] for file in files], progress), strict=True):
        pixels[file] = pixel
        kept[pixel] = small
    compared = [pixel for pixel, small in kept.items() if small is not None] if compare else []
    pairs = alike_pairs([kept[pixel] for pixel in compared], LOOKALIKE, progress)
    alike = [(compared[first], compared[second], similarity) for first, second, similarity in pairs]
    uncompared = {pixel for pixel, small in kept.items() if small is None} if compare else set()
    store(files, compare, (pixels, alike, sorted(uncompared)))
    return _Seen(pixels, alike, uncompared)


def _read(samples: Sequence[Sample], progress: Progress | None) -> Iterator[tuple[str, np.ndarray | None]]:
    """The hash of the pixels of each image, and what is compared of it."""

    def look(sample: Sample) -> tuple[str, np.ndarray | None]:
        image = np.ascontiguousarray(sample.image(), np.float32)
        return hashlib.sha256(str(image.shape).encode() + image.tobytes()).hexdigest(), picture(image)

    # What is generated may keep its last picture only; threads would throw each other's out.
    workers = 2 if all(isinstance(sample, FileSample) for sample in samples) else 1
    with ThreadPoolExecutor(workers) as pool:
        for done, result in enumerate(pool.map(look, samples), start=1):
            yield result
            if progress:
                progress(done, len(samples), "reading pictures")


def _places(values: Sequence[object]) -> dict[object, list[int]]:
    """Where each value stands."""
    places: dict[object, list[int]] = {}
    for index, value in enumerate(values):
        places.setdefault(value, []).append(index)
    return places


def _pairs_of_equals(values: Sequence[object]) -> Iterator[tuple[int, int]]:
    for same in _places(values).values():
        yield from combinations(same, 2)
