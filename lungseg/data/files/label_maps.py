"""Read masks that are maps of labels, of which some are lung."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lungseg.data.files.raster import read_raster
from lungseg.system.errors import InputError

_JPEG = b"\xff\xd8\xff"


def read_labels(path: Path) -> np.ndarray:
    """Read a map of labels, H x W: the grey value of each pixel, or its index in a palette with colours.

    Transparent pixels are 0. Raises InputError as `read_raster`, and for JPEG, colours without a palette, and
    values that are not whole numbers.
    """
    raster = read_raster(path)
    with path.open("rb") as file:
        if file.read(3) == _JPEG:
            raise InputError(f"{path} is a JPEG, whose compression changes labels: save label maps as PNG")
    values = raster.values
    if raster.indices is not None:
        # A program that reduces greys numbers them as it likes; one that colours labels keeps their numbers.
        used = np.unique(raster.indices)
        colours = raster.palette[used]
        is_grey = (colours == colours[:, :1]).all() and len(np.unique(colours[:, 0])) == len(used)
        values = raster.values if is_grey else raster.indices
    elif raster.colourful:
        raise InputError(
            f"{path} has colours and no palette: save the labels as grey values, such as 0, 1, 2"
        )
    if values.dtype.kind == "f" and not (np.isfinite(values) & (values == np.round(values))).all():
        raise InputError(f"{path} has values that are no whole numbers, so no labels: remove lung_labels")
    return values if raster.alpha is None else np.where(raster.alpha > 0, values, 0)


def require_labels(labels: Sequence[int], paths: Sequence[Path]) -> None:
    """Require that each label occurs in a mask. Masks are read until all labels were seen.

    Masks that can't be read are passed over, as they are refused elsewhere. Raises InputError for a label
    that occurs in none.
    """
    missing, seen, count = set(labels), set[int](), 0
    for path in paths:
        if not missing:
            return
        try:
            found = np.unique(read_labels(path)).astype(int).tolist()
        except InputError:
            continue
        count += 1
        seen.update(found)
        missing.difference_update(found)
    if missing and count:
        held = ", ".join(map(str, sorted(seen)[:8])) + (", ..." if len(seen) > 8 else "")
        raise InputError(
            f"lung_labels has {min(missing)}, which is in none of {count} masks (their values are {held}): "
            "correct lung_labels"
        )
