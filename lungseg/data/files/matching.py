"""Find the image files of folders, and match images to their masks by name."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lungseg.data.files import dicom
from lungseg.system.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif")
_LINK = "link"  # to nothing; no ending is called so, for it starts with a dot
_OF_SYSTEMS = ("thumbs.db", "desktop.ini", "dicomdir")  # which Windows, and DICOM's discs, put into folders


@dataclass
class Matches:
    """Images and masks of a dataset, matched by name."""

    # (name, image, masks) of each image that has all its masks, sorted by name.
    pairs: list[tuple[str, Path, tuple[Path, ...]]] = field(default_factory=list)
    images_without_mask: list[str] = field(default_factory=list)  # names of files
    masks_without_image: list[str] = field(default_factory=list)
    # Sentences, each of two files that claim the same id or the same image.
    ambiguous: list[str] = field(default_factory=list)


def normalise_name(name: str) -> str:
    """Return a name in Unicode NFC; a Mac may have written it decomposed (NFD)."""
    return unicodedata.normalize("NFC", name)


def name_file(path: Path, folder: Path) -> str:
    """Return a file's path below a folder: NFC, with "/", without its ending."""
    below = path.relative_to(folder)
    return normalise_name((below.parent / drop_ending(below)).as_posix())


def drop_ending(path: Path) -> str:
    """Return a file's name without its ending; a number, as in "1.2.840.7", is no ending."""
    return path.name if path.suffix[1:].isdigit() else path.stem


def is_image_file(path: Path) -> bool:
    """Return whether a file is visible and has an image's ending, or is DICOM without an ending."""
    suffix = path.suffix.lower()
    if path.name.startswith(".") or path.name.lower() in _OF_SYSTEMS or not path.is_file():
        return False
    if suffix in SUFFIXES or suffix in dicom.SUFFIXES:
        return True
    return (suffix == "" or suffix[1:].isdigit()) and dicom.is_dicom(path)


def list_image_files(folder: Path, recursive: bool = False) -> list[Path]:
    """List the image files directly in a folder, sorted by name, without hidden ones (`._x.png`).

    With `recursive` also those in its sub-folders, but for hidden and linked ones. Raises InputError if the
    folder is missing, can't be read, or holds no image; it says what it does hold.
    """
    try:
        inside = sorted(folder.iterdir())
        files = [path for path in _list_visible(folder, recursive) if is_image_file(path)]
    except FileNotFoundError:
        raise InputError(f"the folder {folder} doesn't exist: check the path") from None
    except OSError as error:
        raise InputError(f"the folder {folder} can't be read ({error.strerror}): check the path") from error
    if not files:
        held = _count_kinds(inside)
        more = f", but {held}: convert them, or check the path" if held else ": check the path"
        raise InputError(f"the folder {folder} holds no image ({', '.join(SUFFIXES)} or DICOM){more}")
    return files


def describe_unread(
    folder: Path, recursive: bool, read: Collection[Path], apart: Collection[Path] = ()
) -> str | None:
    """Say how many files of a folder aren't read, of which kinds, and three of their names; None if none.

    Args:
        folder: where to look, hidden files left out.
        recursive: whether sub-folders are read too; if not, the images in them count as not read.
        read: files that are read.
        apart: files, and folders with all that is in them, that are something else.
    """
    kinds: Counter[str] = Counter()
    names: list[str] = []
    read, skipped = set(read), set(apart)
    for path in _list_visible(folder, True):
        places = (path, *path.parents)
        inside = path.parent == folder
        if path in read or not skipped.isdisjoint(places[: places.index(folder)]):
            continue
        if path.is_dir():  # what is linked isn't searched: a link may lead back to where it lies
            linked = path.is_symlink() and any(map(is_image_file, path.glob("*")))
            kind = "linked folder" if linked else None
        elif not recursive and not inside:
            kind = "in sub-folders: set recursive = true" if is_image_file(path) else None
        else:
            kind = _name_kind(path)
        if kind is not None and path.name.lower() not in _OF_SYSTEMS:
            kinds[kind] += 1
            names.append(path.relative_to(folder).as_posix())
    if not names:
        return None
    count, total = len(names), len(names) + len(read)
    which = ", ".join(
        _count_links(number) if kind == _LINK else f"{number} {kind}" for kind, number in kinds.most_common()
    )
    more = f" and {count - 3} more" if count > 3 else ""
    verb = "aren't" if count > 1 else "isn't"
    shown = ", ".join(names[:3]) + more
    return f"{count} of {total} files in {folder.resolve().name}/ {verb} read: {which} ({shown})"


def match_by_stem(
    images: Sequence[Path], masks: Sequence[Sequence[Path]], image_stem: Callable[[str], str]
) -> Matches:
    """Match images to masks by the stems of their names, as `match_by_name`.

    `image_stem` gives the stem of the image that a mask's stem belongs to.
    """
    return match_by_name(
        {path: normalise_name(path.stem) for path in images},
        [{path: image_stem(normalise_name(path.stem)) for path in group} for group in masks],
    )


def match_by_name(images: Mapping[Path, str], masks: Sequence[Mapping[Path, str]]) -> Matches:
    """Match images to masks; each file comes with the name (NFC) of its image.

    An image needs one mask of each group of masks (one for each lung, say). Names that differ only by case
    are one where the disk doesn't tell them apart.
    """
    found = Matches()
    fold = str.casefold if any(_is_case_blind(path) for path in [*images][:1]) else str
    by_name = _group(images, fold)
    groups = [_group(group, fold) for group in masks]
    for name, files in sorted(by_name.items()):
        own = [group.get(name, []) for group in groups]
        if len(files) > 1:
            found.ambiguous.append(_clash(files, f"have the same id {images[files[0]]}"))
        elif several := next((claims for claims in own if len(claims) > 1), None):
            found.ambiguous.append(_clash(several, f"are both masks of {files[0].name}"))
        elif not all(own):
            found.images_without_mask.append(_locate(files[0], name))
        else:
            found.pairs.append((images[files[0]], files[0], tuple(claims[0] for claims in own)))
    for group in groups:
        orphans = (item for item in group.items() if item[0] not in by_name)
        found.masks_without_image += sorted(_locate(path, name) for name, files in orphans for path in files)
    return found


def _group(files: Mapping[Path, str], fold: Callable[[str], str]) -> dict[str, list[Path]]:
    groups: dict[str, list[Path]] = {}
    for path, name in files.items():
        groups.setdefault(fold(name), []).append(path)
    return groups


def _locate(path: Path, name: str) -> str:
    """A file's name with the sub-folder that is in the name of its image."""
    return "".join(name.rpartition("/")[:2]) + path.name


def _list_visible(folder: Path, recursive: bool) -> list[Path]:
    found = folder.rglob("*") if recursive else folder.iterdir()
    return sorted(
        path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _count_kinds(paths: Sequence[Path]) -> str:
    """What a folder holds, as in "14 .dcm files, 2 folders"; of many kinds the three most frequent."""
    visible = [path for path in paths if not path.name.startswith(".")]
    links = [path for path in visible if _is_dangling(path)]
    kinds = Counter(
        "folder" if path.is_dir() else f"{path.suffix.lower()} file".strip()
        for path in visible
        if path not in links
    )
    counts = [f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in kinds.most_common(3)]
    return ", ".join(counts + ([_count_links(len(links))] if links else []))


def _count_links(count: int) -> str:
    return f"{count} link{'s' if count > 1 else ''} to nothing"


def _name_kind(path: Path) -> str:
    if _is_dangling(path):
        return _LINK
    return path.suffix.lower() or "without an ending"


def _clash(files: Sequence[Path], what: str) -> str:
    first, second = files[0], files[1]
    if first.name != second.name and first.parent == second.parent:
        if normalise_name(first.name) == normalise_name(second.name):
            what += ", for their names differ only by their Unicode form"
        elif normalise_name(first.name).casefold() == normalise_name(second.name).casefold():
            what += ", for their names differ only by case"
    return f"{first} and {second} {what}: remove or rename one of them"


def _is_dangling(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def _is_case_blind(path: Path) -> bool:
    """Whether the disk of a file finds it by its name in the other case, too."""
    other = path.with_name(path.name.swapcase())
    return other.name != path.name and other.exists() and other.samefile(path)
