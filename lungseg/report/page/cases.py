"""Prepare the page's browser of cases: each X-ray with what every approach got right and wrong."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from lungseg.report.contents import Contents
from lungseg.report.figures.style import AGREES, FALSE, MISSED
from lungseg.report.figures.xrays.stored import find_image_ids, read_image, read_prediction, read_truth

SIDE = 288  # pixels of the longer side of a picture
MOST_CASES = 200  # more make a page that no browser likes
_QUALITY = 80  # of JPEG
_CLEAR, _STRENGTH = 0, {AGREES: 90, FALSE: 215, MISSED: 215}  # how opaque an area is, of 255


def collect_cases(contents: Contents) -> dict[str, Any] | None:
    """Return the X-rays that are stored with their true masks, and an overlay for each approach.

    Keys: "approaches" (names, best first), "total" (stored cases), and "cases", worst mean Dice first: the
    worst MOST_CASES / 2 and others evenly spaced if there are more. A case has "id", "source", "image" (a
    data: address), "dice" and "overlays" by approach (None where no map is stored), and "disagreement": the
    share of pixels that are lung to some approaches but not to all, baselines left out, of those that are
    lung to any. None if no picture is stored.

    Raises InputError if a stored picture is damaged.
    """
    dice = contents.image_dice
    stored = [name for name in find_image_ids(contents) if name in dice.index]
    names = [name for name in contents.ranked if name in dice]
    if not stored or not names:
        return None
    ranked = dice.loc[stored].mean(axis=1).sort_values(kind="stable").index
    cases = [_make_case(contents, image_id, names) for image_id in _choose(list(ranked))]
    return {"approaches": names, "total": len(stored), "cases": cases}


def _choose(ranked: list[str]) -> list[str]:
    if len(ranked) <= MOST_CASES:
        return ranked
    half = MOST_CASES // 2
    places = np.linspace(half, len(ranked) - 1, half).round().astype(int)
    return [*ranked[:half], *(ranked[place] for place in places)]


def _make_case(contents: Contents, image_id: str, names: list[str]) -> dict[str, Any]:
    image = _shrink(np.rint(read_image(contents, image_id) * 255).astype(np.uint8), Image.Resampling.BOX)
    truth = read_truth(contents, image_id, image.shape)
    found = {name: read_prediction(contents, name, image_id, image.shape) for name in names}
    masks = [one.mask for name, one in found.items() if one and name not in contents.baselines]
    return {
        "id": str(image_id),
        "source": str(contents.sources.get(image_id, "")),
        "image": _encode(Image.fromarray(image), "JPEG", quality=_QUALITY),
        "truth": _draw_overlay(truth, truth),
        "dice": [_round(contents.image_dice.at[image_id, name]) for name in names],
        "overlays": [None if one is None else _draw_overlay(truth, one.mask) for one in found.values()],
        "disagreement": _compute_disagreement(masks),
    }


def _compute_disagreement(masks: list[np.ndarray]) -> float | None:
    if len(masks) < 2:
        return None
    some, all_of_them = np.any(masks, axis=0).sum(), np.all(masks, axis=0).sum()
    return round(float(1 - all_of_them / some), 4) if some else 0.0


def _round(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def _shrink(image: np.ndarray, how: Image.Resampling) -> np.ndarray:
    scale = min(1.0, SIDE / max(image.shape))
    height, width = (max(1, round(side * scale)) for side in image.shape)
    return np.asarray(Image.fromarray(image).resize((width, height), how))


def _draw_overlay(truth: np.ndarray, mask: np.ndarray) -> str:
    """Draw what agrees, what is too much and what is missed, clear elsewhere, as a PNG of four colours."""
    areas = np.select([truth & mask, mask & ~truth, truth & ~mask], [1, 2, 3], default=_CLEAR)
    picture = Image.fromarray(areas.astype(np.uint8), "P")
    colours = ["#000000", *_STRENGTH]
    picture.putpalette([int(colour[place : place + 2], 16) for colour in colours for place in (1, 3, 5)])
    return _encode(picture, "PNG", bits=2, transparency=bytes([0, *_STRENGTH.values()]), optimize=True)


def _encode(picture: Image.Image, form: str, **options: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
