"""Measure a predicted mask, and say what to look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lungseg.scoring.lungs import split_lungs

LITTLE, MUCH = 0.05, 0.6  # share of a chest X-ray: lungs outside of these are worth a look


def name_spacing(spacing: tuple[float, float] | None) -> str:
    """Return a spacing as the table has it: "0.2", or vertical and horizontal as in "0.2 0.18"."""
    return " ".join(f"{value:g}" for value in dict.fromkeys(spacing or ()))


def divide_lungs(mask: np.ndarray, mirrored: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the left and the right lung as `split_lungs` does, exchanged in a mirrored picture."""
    left, right = split_lungs(mask)
    return (right, left) if mirrored else (left, right)


def measure_mask(
    mask: np.ndarray, spacing: tuple[float, float] | None, mirrored: bool, warnings: Sequence[str]
) -> dict[str, Any]:
    """Return sizes, areas and warnings of a mask as columns of the table.

    Args:
        mask: bool, H x W.
        spacing: (vertical, horizontal) distance of pixels in mm; None if unknown, so that cells stay empty.
        mirrored: whether the patient's right side is at the right of the picture.
        warnings: what is known already.
    """
    left, right = (int(np.count_nonzero(lung)) for lung in divide_lungs(mask, mirrored))
    areas = {"right": right, "left": left, "lungs": left + right}
    found: dict[str, Any] = {"height": mask.shape[0], "width": mask.shape[1]}
    found |= {f"{name}_px": area for name, area in areas.items()}
    for name, area in areas.items():
        found[f"{name}_cm2"] = "" if spacing is None else f"{area * spacing[0] * spacing[1] / 100:.6g}"
    return found | {"warnings": "; ".join([*warnings, *_list_warnings(areas, mask.size)])}


def _list_warnings(areas: dict[str, int], pixels: int) -> Iterator[str]:
    share = areas["lungs"] / pixels
    if areas["lungs"] == 0:
        yield "no lung was found"
    elif not (areas["left"] and areas["right"]):
        yield "one lung alone was found"
    if 0 < share < LITTLE or share > MUCH:
        yield f"the lungs fill {share:.0%} of the picture"
