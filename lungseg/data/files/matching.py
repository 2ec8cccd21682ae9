"""Find the image files of folders, and match images to their masks by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lungseg.system.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


@dataclass
class Matches:
    """Images and masks of a dataset, matched by name."""

    # (stem, image, masks) of each image that has all its masks, sorted by stem.
    pairs: list[tuple[str, Path, tuple[Path, ...]]] = field(default_factory=list)
    images_without_mask: list[str] = field(default_factory=list)  # names of files
    masks_without_image: list[str] = field(default_factory=list)
    # Sentences, each of two files that claim the same id or the same image.
    ambiguous: list[str] = field(default_factory=list)


def list_image_files(folder: Path) -> list[Path]:
    """List the image files directly in a folder, sorted by name, without hidden ones (`._x.png`).

    Raises InputError if the folder is missing, can't be read, or holds no image; it says what it does hold.
    """
    try:
        inside = sorted(folder.iterdir())
        files = [path for path in inside if _is_image(path)]
    except FileNotFoundError:
        raise InputError(f"the folder {folder} doesn't exist: check the path") from None
    except OSError as error:
        raise InputError(f"the folder {folder} can't be read ({error.strerror}): check the path") from error
    if not files:
        held = _count_kinds(inside)
        more = f", but {held}: convert them, or check the path" if held else ": check the path"
        raise InputError(f"the folder {folder} holds no image ({', '.join(SUFFIXES)}){more}")
    return files


def match_by_stem(
    images: Sequence[Path], masks: Sequence[Sequence[Path]], image_stem: Callable[[str], str]
) -> Matches:
    """Match images to masks by the stems of their names.

    An image needs one mask of each group of masks (one for each lung, say). `image_stem` gives the stem of
    the image that a mask's stem belongs to.
    """
    found = Matches()
    by_stem = _group(images, lambda stem: stem)
    groups = [_group(group, image_stem) for group in masks]
    for stem, files in sorted(by_stem.items()):
        own = [group.get(stem, []) for group in groups]
        if len(files) > 1:
            found.ambiguous.append(_clash(files, f"have the same id {stem}"))
        elif several := next((claims for claims in own if len(claims) > 1), None):
            found.ambiguous.append(_clash(several, f"are both masks of {files[0].name}"))
        elif not all(own):
            found.images_without_mask.append(files[0].name)
        else:
            found.pairs.append((stem, files[0], tuple(claims[0] for claims in own)))
    for group in groups:
        orphans = (path for stem, files in group.items() if stem not in by_stem for path in files)
        found.masks_without_image += sorted(path.name for path in orphans)
    return found


def _group(files: Sequence[Path], key: Callable[[str], str]) -> dict[str, list[Path]]:
    groups: dict[str, list[Path]] = {}
    for path in files:
        groups.setdefault(key(path.stem), []).append(path)
    return groups


def _count_kinds(paths: Sequence[Path]) -> str:
    """What a folder holds, as in "14 .dcm files, 2 folders"; of many kinds the three most frequent."""
    kinds = Counter(
        "folder" if path.is_dir() else f"{path.suffix.lower()} file".strip()
        for path in paths
        if not path.name.startswith(".")
    )
    return ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in kinds.most_common(3))


def _clash(files: Sequence[Path], what: str) -> str:
    return f"{files[0]} and {files[1]} {what}: remove or rename one of them"


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
