"""All scores of one image, as a row of scores.csv has them.

A new metric: its function in a file of this folder, its call here, its column in `results.TABLES`, its range
and direction in `statistics`; then `report/numbers/quality.py` and `report/tables/quality.py` show it.
"""

from __future__ import annotations

import numpy as np

from lungseg.scoring.calibration import brier_score
from lungseg.scoring.distances import boundary_metrics
from lungseg.scoring.lungs import lung_dice
from lungseg.scoring.overlap import binarise, confusion, overlap


def score_mask(
    prediction: np.ndarray, truth: np.ndarray, spacing: tuple[float, float] | None = None
) -> dict[str, float | str]:
    """Return all scores of a binary mask, in the order of scores.csv.

    They are those of `confusion`, `overlap`, `lung_dice` and `boundary_metrics`, the area error, and the unit
    of distances: "mm" with a spacing, else "px".

    Args:
        prediction, truth: bool, H x W, of one shape.
        spacing: (vertical, horizontal) distance of pixels in mm, if it is known.

    Raises:
        ValueError: masks that aren't bool or differ in shape, or a spacing that isn't two positive numbers.
    """
    counts = confusion(prediction, truth)
    left, right = lung_dice(prediction, truth)
    return {
        **counts,
        **overlap(**counts),
        "dice_left": left,
        "dice_right": right,
        "area_error": _area_error(counts["tp"] + counts["fp"], counts["tp"] + counts["fn"]),
        "distance_unit": "px" if spacing is None else "mm",
        **boundary_metrics(prediction, truth, spacing),
    }


def score_map(
    probability: np.ndarray, truth: np.ndarray, threshold: float, spacing: tuple[float, float] | None = None
) -> dict[str, float | str]:
    """Return the scores of a map (float, H x W, in [0, 1]): `score_mask` of its mask, and `brier` of the map.

    A pixel at or above the threshold is lung. Raises ValueError as `score_mask`, or for another map.
    """
    brier = brier_score(probability, truth)  # first, because it checks the map
    return {**score_mask(binarise(probability, threshold), truth, spacing), "brier": brier}


def _area_error(predicted: int, true: int) -> float:
    """| predicted - true area | / true area; 0 if both are empty, 1 if just one is.

    Like the volumetric similarity of Taha and Hanbury (2015), which divides by the sum of the areas, it
    ignores where the pixels lie: never read it without an overlap metric.
    """
    return abs(predicted - true) / true if predicted and true else float(predicted != true)
