"""Find the pictures that a user names, and give each a name for what is made from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lungseg.data.files.matching import SUFFIXES
from lungseg.system.errors import InputError

MODEL_ENDINGS = (".pt", ".pth", ".pkl", ".joblib", ".onnx", ".safetensors", ".h5", ".ckpt")


@dataclass(frozen=True)
class Picture:
    """A file, and its name in the output: a path below it, without an ending, such as "ward-3/p1"."""

    file: Path
    name: str


def find_pictures(places: Sequence[Path], out: Path) -> list[Picture]:
    """List the pictures of files and folders, in the order given; those of a folder and of all in it by name.

    Files that are named are taken whatever their ending is, and each file once. Nothing below `out` and
    nothing hidden is taken from a folder. Two pictures that would have one name get "-2", "-3" and so on.

    Raises InputError if a place is missing or a folder holds no picture, or `out` is such a folder.
    """
    found: dict[Path, str] = {}
    taken: set[str] = set()
    for place in places:
        for file, name in _list_place(place, out):
            if file.resolve() not in found:
                found[file.resolve()] = _make_unique(name, taken)
    return [Picture(path, name) for path, name in found.items()]


def _list_place(place: Path, out: Path) -> Iterator[tuple[Path, str]]:
    """A place's files, each with its name."""
    if place.is_file():
        if place.suffix.lower() in MODEL_ENDINGS:
            raise InputError(explain_no_folder(place))
        yield place, place.stem
        return
    if not place.is_dir():
        raise InputError(f"there is no picture or folder {place}: check the path")
    if place.resolve() == out.resolve():
        raise InputError(f"{place} is the folder of the pictures and --out: choose another --out")
    inside = sorted(place.rglob("*"))
    if raw := [path for path in inside if path.suffix.lower() == ".img"]:
        # Beside JSRT's images lie their masks as GIF, which would be taken for the X-rays.
        raise InputError(
            f"the folder {place} holds {len(raw)} files without a header, such as {raw[0].name}, which "
            "aren't read here: convert them to PNG and name the folder of those"
        )
    files = [path for path in inside if _is_picture(path, place, out)]
    if not files and place.resolve().is_relative_to(out.resolve()):
        raise InputError(f"the folder {place} is inside --out {out}: choose another --out")
    if not files:
        raise InputError(f"the folder {place} holds no picture ({', '.join(SUFFIXES)}): check the path")
    for path in files:
        yield path, path.relative_to(place).with_suffix("").as_posix()


def _is_picture(path: Path, place: Path, out: Path) -> bool:
    inside = path.relative_to(place).parts
    return (
        path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in inside)
        and path.is_file()
        and not path.resolve().is_relative_to(out.resolve())
    )


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
