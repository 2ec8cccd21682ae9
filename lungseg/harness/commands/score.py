"""Score masks that other programs made: the spec of a benchmark without any training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lungseg.data.loading import find_data_root, find_dataset
from lungseg.harness.folds import divide_options
from lungseg.spec import Spec, parse_changes
from lungseg.system.errors import InputError
from lungseg.system.plugins import validate

NAME = "score"


def make_score_spec(
    words: Sequence[str],
    truth: Path,
    images: Path | None,
    missing: str = "refuse",
    threshold: float = 0.5,
    changes: Sequence[str] = (),
) -> Spec:
    """Make the spec that scores given masks: one row for each, all images tested.

    Args:
        words: "NAME=FOLDER" for each row, or "FOLDER", whose own name is the row's then.
        truth: folder of the true masks.
        images: folder of the images, which figures show; None if there are none.
        missing: "refuse" or "empty", for an image without a mask.
        threshold: of probability maps.
        changes: keys of the dataset, as "patient_pattern=^([^_]+)_".

    Raises:
        InputError: a folder is missing, a name is given twice or can't be used, or a key is unknown.
    """
    data: dict[str, Any] = {"dataset": "truth", "masks": str(_require_folder(truth)), "split": "all"}
    if images is not None:
        data |= {"dataset": "folder", "images": str(_require_folder(images))}
    data |= parse_changes(changes)
    rows = [_make_row(word, missing, threshold, data.get("suffix", "")) for word in words]
    names = [row["name"] for row in rows]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"the name {name!r} is given twice: give each folder its own, as NAME=FOLDER")
    return validate(Spec, {"name": NAME, "data": data, "approach": rows}, "the command")


def require_all_images(spec: Spec) -> None:
    """Raise InputError if a true mask has no image, where there are images: it would be left out."""
    if spec.data.dataset != "folder":
        return
    dataset = find_dataset("folder", divide_options(spec.data)[0], find_data_root())
    orphans = dataset.inventory().masks_without_image
    if orphans:
        raise InputError(
            f"{len(orphans)} true masks have no image, such as {orphans[0]}: give their images, or leave out "
            "--images"
        )


def require_apart(out: Path, spec: Spec) -> None:
    """Raise InputError if results would be written into a folder that is read."""
    read = [spec.data.options[key] for key in ("masks", "images") if key in spec.data.options]
    read += [row.options["folder"] for row in spec.approach]
    for folder in read:
        if out.resolve() == Path(folder):
            raise InputError(f"--out {out} is a folder of masks or images: choose another one")


def _make_row(word: str, missing: str, threshold: float, suffix: str) -> dict[str, Any]:
    name, equals, folder = word.partition("=")
    place = _require_folder(Path(folder if equals else word))
    return {
        "use": "masks",
        "name": name if equals else place.name,
        "folder": str(place),
        "suffix": suffix,
        "missing": missing,
        "threshold": threshold,
    }


def _require_folder(place: Path) -> Path:
    if not place.is_dir():
        raise InputError(f"there is no folder {place}: check the path")
    return place.resolve()
