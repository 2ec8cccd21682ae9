"""Find the pictures that a user names, and give each a name for what is made from it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lungseg.data.files.film import is_film
from lungseg.data.files.matching import SUFFIXES, describe_unread, drop_ending, is_image_file
from lungseg.system.errors import InputError

# Sub-folders of masks, as datasets call them.
MASK_FOLDERS = ("mask", "masks", "manualmask", "label", "labels", "labelstr", "labelsts")
_MASK_NAME = re.compile(r"[_-](mask|label|seg)$", re.IGNORECASE)  # of a mask beside its image
TABLE = "predictions.csv"  # in a folder of what was predicted
MODEL_ENDINGS = (".pt", ".pth", ".pkl", ".joblib", ".onnx", ".safetensors", ".h5", ".ckpt")


@dataclass(frozen=True)
class Picture:
    """A file, and its name in the output: a path below it, without an ending, such as "ward-3/p1"."""

    file: Path
    name: str


@dataclass(frozen=True)
class Pictures:
    """What was found: the pictures, and sentences on what is left out."""

    pictures: list[Picture]
    notes: list[str]


def find_pictures(places: Sequence[Path], out: Path) -> Pictures:
    """List the pictures of files and folders, in the order given; those of a folder and of all in it by name.

    Files that are named are taken whatever their ending is, and each file once. Nothing below `out`, nothing
    hidden and nothing in a sub-folder of masks is taken from a folder. Two pictures that would have one name
    get "-2", "-3" and so on.

    Raises InputError if a place is missing or a folder holds no picture, or `out` is such a folder.
    """
    found: dict[Path, str] = {}
    taken: set[str] = set()
    notes: list[str] = []
    for place in places:
        for file, name in _list_file(place) if place.is_file() else _list_folder(place, out, notes):
            if file.resolve() not in found:
                found[file.resolve()] = _make_unique(name, taken)
    return Pictures([Picture(path, name) for path, name in found.items()], notes)


def _list_file(file: Path) -> list[tuple[Path, str]]:
    if file.suffix.lower() in MODEL_ENDINGS:
        raise InputError(explain_no_folder(file))
    return [(file, drop_ending(file))]


def _list_folder(place: Path, out: Path, notes: list[str]) -> Iterator[tuple[Path, str]]:
    """A folder's pictures, each with its name; sentences on what is left out are added to `notes`."""
    if not place.is_dir():
        raise InputError(f"there is no picture or folder {place}: check the path")
    if place.resolve() == out.resolve():
        raise InputError(f"{place} is the folder of the pictures and --out: choose another --out")
    if place.resolve().is_relative_to(out.resolve()):
        raise InputError(f"the folder {place} is inside --out {out}: choose another --out")
    inside = sorted(place.rglob("*"))
    # What was predicted before, into --out or elsewhere below, is no X-ray.
    apart = [path for path in inside if path.is_dir() and _holds_predictions(path, out)]
    pictures = [path for path in inside if _is_picture(path, place) and not set(apart) & set(path.parents)]
    files = [path for path in pictures if not _is_among_masks(path, place)]
    if not files:
        held = f"{len(pictures)} masks and no other" if pictures else "no"
        raise InputError(
            f"the folder {place} holds {held} picture ({', '.join(SUFFIXES)} or DICOM): check the path"
        )
    notes += _list_notes(place, pictures, files, apart)
    for path in files:
        yield path, (path.relative_to(place).parent / drop_ending(path)).as_posix()


def _list_notes(place: Path, pictures: list[Path], files: list[Path], apart: list[Path]) -> Iterator[str]:
    """Say what is left out of a folder, and what looks like a mask and isn't left out."""
    if masks := len(pictures) - len(files):
        yield (
            f"{masks} of the pictures in {place} are in a sub-folder of masks and left out: name that folder "
            "if they are X-rays"
        )
    if unread := describe_unread(place, True, pictures, apart):
        yield unread
    stems = {drop_ending(path) for path in files}
    alike = [
        path.name for path in files if _MASK_NAME.sub("", drop_ending(path)) in stems - {drop_ending(path)}
    ]
    if alike:
        yield f"masks are predicted as if they were X-rays: {len(alike)} by their names, such as {alike[0]}"


def _holds_predictions(folder: Path, out: Path) -> bool:
    return (folder / TABLE).is_file() or folder.resolve() == out.resolve()


def _is_picture(path: Path, place: Path) -> bool:
    if any(part.startswith(".") for part in path.relative_to(place).parts):
        return False
    return is_image_file(path) or (is_film(path) and path.is_file())


def _is_among_masks(path: Path, place: Path) -> bool:
    return any(part.lower() in MASK_FOLDERS for part in path.relative_to(place).parts[:-1])


def _make_unique(name: str, taken: set[str]) -> str:
    """A name that isn't taken, also where a file system knows no capitals."""
    number, unique = 1, name
    while unique.lower() in taken:
        number += 1
        unique = f"{name}-{number}"
    taken.add(unique.lower())
    return unique


def divide_words(
    models: Sequence[Path], rows: Sequence[str], words: Sequence[Path]
) -> tuple[list[tuple[Path | None, str | None]], list[Path]]:
    """Tell the models from the pictures in the words of a command line.

    The first word is the model if it is a folder of one and no --model is given.

    Args:
        models, rows: what --model and --approach name, in their order.
        words: the words without an option.

    Returns:
        One or two (place, row) as `load_model` takes them, and the places of the pictures.

    Raises:
        InputError: no picture is left, there are over two models, or rows that fit no model.
    """
    if not models and is_model(words[0]):
        models, words = words[:1], words[1:]
        if not words:
            raise InputError(f"{models[0]} is a model: name pictures or folders of pictures behind it")
    if rows and not models:
        raise InputError("--approach names a row of a results directory: give that too, with --model")
    if len(models) == 1 and len(rows) > 1:
        models = [*models] * len(rows)
    if rows and len(rows) != len(models):
        raise InputError(
            f"{len(models)} --model and {len(rows)} --approach don't fit: give one --approach for each"
        )
    if len(models) > 2:
        raise InputError(f"{len(models)} models are given, and at most two are compared: leave some out")
    found = list(zip(models, rows or [None] * len(models), strict=True))
    return found or [(None, None)], list(words)


def is_model(place: Path) -> bool:
    """Return whether a folder is a model or a results directory, by what lies in it."""
    return any((place / name).is_file() for name in ("model.json", "run.json"))


def explain_no_folder(place: Path) -> str:
    """Return a sentence on a file in the place of a model."""
    return (
        f"{place} is a file, and a model is a folder: give one that `lungseg export` wrote, or a results "
        "directory. A pickle (.pt, .pth, .pkl) is never opened, since it can run code"
    )
