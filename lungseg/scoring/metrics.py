"""Everything that a row of scores.csv says of one image."""

from __future__ import annotations

import numpy as np

from lungseg.scoring.calibration import brier_score, check_map
from lungseg.scoring.distances import boundary_metrics, physical_size
from lungseg.scoring.lungs import lung_dice
from lungseg.scoring.overlap import binarise, confusion, overlap


def score_mask(
    prediction: np.ndarray, truth: np.ndarray, spacing: tuple[float, float] | None = None
) -> dict[str, float | str]:
    """All scores of one binary mask, in the order of scores.csv.

    Args:
        prediction, truth: bool, H x W, of one shape.
        spacing: (vertical, horizontal) distance of pixels in mm, if it is known.

    Returns:
        tp, fp, fn, tn (pixels); dice, iou, accuracy, precision, recall, specificity (`overlap`); dice_left,
        dice_right (`lung_dice`; NaN for a lung that the truth hasn't); area_error; distance_unit, "mm" with
        a spacing, else "px"; hausdorff, hd95, assd in that unit; surface_dice_1, surface_dice_2
        (`boundary_metrics`).

    Raises:
        ValueError: masks that aren't bool or differ in shape, or a spacing that isn't two positive numbers.
    """
    counts = confusion(prediction, truth)
    physical_size(truth.shape, spacing)  # refuses a bad spacing before any work
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
    probability: np.ndarray,
    truth: np.ndarray,
    threshold: float,
    spacing: tuple[float, float] | None = None,
) -> dict[str, float | str]:
    """The scores of `score_mask` for a map cut at a threshold, and the map's own `brier`.

    Args:
        probability: float, H x W, in [0, 1].
        truth: bool, H x W.
        threshold: a pixel at or above it is lung.
        spacing: (vertical, horizontal) distance of pixels in mm, if it is known.

    Raises:
        ValueError: as `score_mask`, or a map that isn't float or leaves [0, 1].
    """
    check_map(probability, truth)
    scores = score_mask(binarise(probability, threshold), truth, spacing)
    return {**scores, "brier": brier_score(probability, truth)}


def _area_error(predicted: int, true: int) -> float:
    """Relative area error, | predicted - true area | / true area; 0 if both are empty, 1 if just one is.

    As the volumetric similarity of Taha and Hanbury (2015), which divides by the sum of the areas, it doesn't
    see where the pixels lie: never to be read without an overlap metric.
    """
    if predicted == 0 or true == 0:
        return float(predicted != true)
    return abs(predicted - true) / true
