"""Find samples that show the same file, picture or patient; `harness.leaks` judges a run by them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from lungseg.data.audit.cache import Compared, find_audit_folder, recall, store
from lungseg.data.audit.descriptor import describe_picture
from lungseg.data.audit.packs import KeptPictures, ReadPicture
from lungseg.data.audit.pictures import LOOKALIKE, NEAR_DUPLICATE, Progress, compare_blocks, prepare_picture
from lungseg.data.files.file_sample import FileSample
from lungseg.data.sample import Sample
from lungseg.system.errors import InputError

KINDS = ("same file", "same pixels", "near-duplicate", "same patient")  # the strongest first
STORE_EVERY_S = 5.0  # what an interruption may lose
_SHA256_BYTES = 32


@dataclass(frozen=True)
class Pair:
    """Two samples that show the same picture or person."""

    kind: str  # one of KINDS, or "look-alike": two X-rays that may be of one person
    first: tuple[str, str]  # (name of the dataset, id of the sample)
    second: tuple[str, str]
    similarity: float | None = None  # of near-duplicates and look-alikes, 0 to 1

    def describe(self) -> str:
        """Return a sentence that says which two they are and what they share; without a full stop."""
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
class PictureFindings:
    """What pictures showed, by hashes (hex), not by names, so that it holds for copies of a dataset too."""

    pixels: dict[str, str]  # hash of each file -> hash of its decoded pixels
    alike: list[tuple[str, str, float]]  # (hash of pixels, hash of pixels, similarity) from LOOKALIKE up
    uncompared: set[str]  # hashes of the pixels of pictures that show too little to be compared


@dataclass(frozen=True)
class Findings:
    """What comparing all samples with each other showed."""

    pairs: list[Pair]  # each pair of one of KINDS, with its strongest kind
    # Pairs under two patients' names that are no copies but more alike than two persons are. Most are two
    # X-rays of one person. They must be looked at; by themselves they are no leak.
    lookalikes: list[Pair]
    uncompared: list[tuple[str, str]]  # (name of the dataset, id) of pictures that show too little


def compare_samples(
    groups: Mapping[str, Sequence[Sample]], progress: Progress | None = None, pictures: bool = True
) -> Findings:
    """Compare all samples of all datasets with each other.

    - Same file: the bytes of the image's file are the same, whatever the masks. Samples that don't lie in
      files are compared by `content()`.
    - Same pixels: the decoded images are the same.
    - Near-duplicate: copies that are resized, compressed, shown with another gamma, mirrored, cropped by up
      to 10 %, shifted, or turned by up to 3 degrees; see `lungseg.data.audit.pictures`.
    - Same patient: `source` and `patient` are the same.

    What was found in pictures is cached by the bytes of their files and by the code that compares them, as it
    is found: a run that was interrupted goes on, and a picture added later is read and compared alone.

    Args:
        groups: the samples of each dataset, by its name. Two datasets may share ids.
        progress: called with (done, total, text); `done` restarts with each text.
        pictures: False leaves near-duplicates out; samples that don't lie in files are then not decoded.

    Raises:
        InputError: an image can't be read.
    """
    entries = [(name, sample) for name, samples in groups.items() for sample in samples]
    keys = [(name, sample.id) for name, sample in entries]
    files = _hash_files([sample for _, sample in entries])
    by_file = {file: sample for file, (_, sample) in zip(files, entries, strict=True)}
    seen = _examine_pictures(by_file, progress, pictures)
    pixels = [seen.pixels.get(file, file) for file in files]
    patients = [(sample.source, sample.patient) for _, sample in entries]

    found: dict[tuple[int, int], Pair] = {}
    lookalikes: dict[tuple[int, int], Pair] = {}

    def enter(kind: str, pairs: Iterable[tuple[int, int]], similarity: float | None = None) -> None:
        into = lookalikes if kind == "look-alike" else found
        for first, second in pairs:
            pair = min(first, second), max(first, second)
            if pair not in found and keys[first] != keys[second]:
                into[pair] = Pair(kind, keys[pair[0]], keys[pair[1]], similarity)

    enter("same file", _pairs_of_equals(files))
    enter("same pixels", _pairs_of_equals(pixels))
    places = _find_places(pixels)
    for first, second, similarity in seen.alike:
        if similarity >= NEAR_DUPLICATE:
            enter("near-duplicate", product(places[first], places[second]), similarity)
    enter("same patient", _pairs_of_equals(patients))
    for first, second, similarity in seen.alike:
        if similarity < NEAR_DUPLICATE:
            enter("look-alike", product(places[first], places[second]), similarity)
    return Findings(
        [found[pair] for pair in sorted(found)],
        [lookalikes[pair] for pair in sorted(lookalikes)],
        [key for key, pixel in zip(keys, pixels, strict=True) if pixel in seen.uncompared],
    )


def find_leaks(pairs: Sequence[Pair], sides: Mapping[tuple[str, str], str]) -> list[Pair]:
    """Return the pairs whose two samples are on different sides of a split.

    `sides` has "train", "validation" or "test" of each (dataset, id); other samples don't count.
    """
    placed = [pair for pair in pairs if pair.first in sides and pair.second in sides]
    return [pair for pair in placed if sides[pair.first] != sides[pair.second]]


def _hash_files(samples: Sequence[Sample]) -> list[str]:
    """A hash (hex) of each image's file, or of the content of a sample that doesn't lie in files."""

    def hash_one(sample: Sample) -> str:
        content = sample.content()
        if isinstance(sample, FileSample):
            return content[:_SHA256_BYTES].hex()  # the image's file comes first, its masks after it
        return hashlib.sha256(content).hexdigest()

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(hash_one, samples))


def _examine_pictures(
    samples: Mapping[str, Sample], progress: Progress | None, compare: bool
) -> PictureFindings:
    """Read and compare the pictures, or recall what they showed; `samples` by the hash of the file."""
    chosen = {file: sample for file, sample in samples.items() if compare or isinstance(sample, FileSample)}
    if not chosen:
        return PictureFindings({}, [], set())
    folder = find_audit_folder()
    kept = _read_pictures(folder, chosen, progress, compare)
    pixels = {file: kept.pixels[file] for file in chosen}
    if not compare:
        return PictureFindings(pixels, [], set())
    shown = {pixel: chosen[file] for file, pixel in pixels.items()}
    return PictureFindings(pixels, _compare_pictures(folder, kept, shown, progress), kept.uncompared)


def _read_pictures(
    folder: Path | None, samples: Mapping[str, Sample], progress: Progress | None, compare: bool
) -> KeptPictures:
    """Read the pictures that aren't kept, in the order of their hashes."""
    kept = KeptPictures(folder, samples, compare)
    missing = sorted(samples.keys() - kept.pixels.keys())
    # Phantoms share a cache of one picture: threads would remove each other's from it.
    threads = 2 if all(isinstance(samples[file], FileSample) for file in missing) else 1
    try:
        # The threads are these; further ones for products of small matrices would only wait for each other.
        with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
            found = pool.map(lambda file: _read_picture(samples[file], compare), missing)
            for done, (file, read) in enumerate(zip(missing, found, strict=True), start=1):
                kept.add(file, read)
                if progress:
                    progress(done, len(missing), "reading pictures")
    finally:
        kept.flush()  # a picture that can't be read costs none of those before it
    return kept


def _read_picture(sample: Sample, compare: bool) -> ReadPicture:
    image = np.ascontiguousarray(sample.image(), np.float32)
    pixels = hashlib.sha256(str(image.shape).encode() + image.tobytes()).hexdigest()
    small = prepare_picture(image) if compare else None
    return ReadPicture(pixels, compare, small, None if small is None else describe_picture(small))


def _compare_pictures(
    folder: Path | None, kept: KeptPictures, samples: Mapping[str, Sample], progress: Progress | None
) -> list[tuple[str, str, float]]:
    """Find the pairs from LOOKALIKE up. Only what was never compared is compared now."""
    wanted = sorted(samples.keys() & kept.descriptions.keys())
    compared = recall(folder, wanted)
    known, alike = len(compared.pictures), list(compared.alike)
    if known == len(wanted):
        return sorted(alike)
    ordered = [*compared.pictures, *sorted(set(wanted) - set(compared.pictures))]

    def picture_of(index: int) -> np.ndarray:
        pixel = ordered[index]
        return kept.read_small(pixel, lambda: _prepare_again(samples[pixel]))

    descriptions = np.stack([kept.descriptions[pixel] for pixel in ordered])
    stored_at = time.monotonic()
    for done, pairs in compare_blocks(descriptions, picture_of, known, LOOKALIKE, progress):
        alike += [(*sorted((ordered[i], ordered[j])), similarity) for i, j, similarity in pairs]
        if done == len(ordered) or time.monotonic() - stored_at >= STORE_EVERY_S:
            store(folder, wanted, Compared(ordered[:done], sorted(alike)))
            stored_at = time.monotonic()
    return sorted(alike)


def _prepare_again(sample: Sample) -> np.ndarray:
    small = prepare_picture(np.ascontiguousarray(sample.image(), np.float32))
    if small is None:
        raise InputError(
            f"the picture of {sample.id} changed while it was compared: run the same command again"
        )
    return small


def _find_places(values: Sequence[object]) -> dict[object, list[int]]:
    """The indices at which each value occurs."""
    places: dict[object, list[int]] = {}
    for index, value in enumerate(values):
        places.setdefault(value, []).append(index)
    return places


def _pairs_of_equals(values: Sequence[object]) -> Iterator[tuple[int, int]]:
    for same in _find_places(values).values():
        yield from combinations(same, 2)
