"""Find a public dataset as its publisher packs it, and say what a folder holds where that isn't it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from lungseg.data.files.matching import SUFFIXES
from lungseg.system.errors import InputError

COVID_CLASSES = ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")


def find_layout(
    name: str,
    data_root: Path | None,
    folders: Sequence[str],
    is_layout: Callable[[Path], bool],
    lacks: str,
    advice: str,
) -> Path:
    """Return the folder below LUNGSEG_DATA that holds a dataset.

    Args:
        name: the dataset, for the message.
        data_root: the folder that LUNGSEG_DATA names, or None.
        folders: where the dataset may lie below it, the best place first; "." is the folder itself.
        is_layout: whether a folder holds the dataset.
        lacks: what is missing where `is_layout` is false, as in "no 'CXR_png'".
        advice: how to get the dataset and where to put it.

    Raises:
        InputError: LUNGSEG_DATA isn't set, or no folder holds the dataset; it says what is there instead.
    """
    if data_root is None:
        raise InputError(f"dataset {name} needs LUNGSEG_DATA, which isn't set: {advice}")
    places = [data_root / folder for folder in folders if (data_root / folder).is_dir()]
    for place in places:
        if is_layout(place):
            return place
    place = places[0] if places else data_root
    held = describe_holdings(place, name)
    raise InputError(
        f"{place} holds {lacks} of dataset {name}{held}{', or ' if ': use' in held else ': '}{advice}"
    )


def describe_holdings(folder: Path, name: str = "") -> str:
    """Return what a folder holds, as in ', but 247 .IMG files: use dataset "jsrt"'; "" if it is empty.

    A layout that is known by another dataset than `name` is named with it. Other files are only counted.
    """
    inside = _list_visible(folder)
    if not inside:
        return ""
    kinds = Counter("folder" if path.is_dir() else f"{path.suffix} file".strip() for path in inside)
    held = ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in kinds.most_common(3))
    fitting = name_layout(folder)
    return f", but {held}" + (f': use dataset "{fitting}"' if fitting not in (None, name) else "")


def name_layout(folder: Path) -> str | None:
    """Return the dataset whose layout a folder has, by the names in it, or None if it has none."""
    inside = _list_visible(folder)
    names = {path.name for path in inside if path.is_dir()}
    if any(path.suffix.upper() == ".IMG" and path.name.upper().startswith("JPC") for path in inside):
        return "jsrt"
    if {"CXR_png", "ManualMask"} <= names:
        return "montgomery"
    if {"CXR_png", "masks"} <= names:
        return "cxr704"
    if "CXR_png" in names:
        return "shenzhen"
    if any((folder / name / "images").is_dir() for name in COVID_CLASSES):
        return "covid19-radiography"
    return "folder" if {"images", "masks"} <= names else None


def require_images(files: Sequence[Path], folder: Path, kind: str, name: str) -> None:
    """Raise InputError if a list of files is empty; it names what its folder holds."""
    if not files:
        raise InputError(
            f"{folder} holds no {kind} of dataset {name}{describe_holdings(folder, name)}: unpack it again"
        )


def list_files(folder: Path, endings: Sequence[str] = SUFFIXES) -> list[Path]:
    """List the visible files of a folder with one of the endings (lower case); [] if it is missing."""
    return [path for path in _list_visible(folder) if path.suffix.lower() in endings and path.is_file()]


def _list_visible(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"the folder {folder} can't be read ({error.strerror}): check the path") from error
