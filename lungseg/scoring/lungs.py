"""Split a mask of both lungs into left and right, and compute the Dice of each.

Sides are the patient's. A frontal X-ray shows the patient face to face, so the right lung lies on the image's
left.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import label

from lungseg.scoring.overlap import bounding_box, overlap

SPECKS = 0.02  # share of the larger side's area: a side with less is specks, no lung
BRIDGED = 0.7  # a component with at least this share of all pixels may be both lungs
# Width / height. Of 704 masks by readers, 97 % of pairs of lungs are broader, and 0.3 % of single lungs.
BROAD = 0.85
# A cut divides two lungs if it costs less than this share of the peak height of either side.
VALLEY, VALLEY_IF_BROAD = 0.5, 0.8
SIDESTEP = 0.5  # pixels, so that a slanting cut costs more than a straight one
COARSE = 128  # longer side, in pixels, of the image in which a cut is searched


def split_lungs(truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the left and the right lung of a mask, in the patient's sense.

    Connected components (8-connected) are assigned to two sides by the columns of their centroids, so that
    the sides differ most (Otsu's criterion, IEEE Trans. SMC 9:62, 1979). The image's middle plays no part.

    A component that holds most pixels may be two lungs that touch. It is cut along the path from top to
    bottom that crosses the fewest mask pixels, if columns on both sides of the path are much higher than the
    path is long inside the mask.

    If one side lies above the other instead of beside it, or consists of specks, there is only one lung. It
    is the right one if its centroid lies in the image's left half, else the left one.

    Both are bool, H x W, without a common pixel, and together the mask; a missing lung is empty. Raises
    ValueError if the mask isn't bool or hasn't two axes.
    """
    if truth.dtype != bool or truth.ndim != 2:
        raise ValueError(f"the mask must be bool, H x W, got {truth.dtype} with {truth.ndim} axes")
    left, right = np.zeros_like(truth), np.zeros_like(truth)
    box = bounding_box(truth)
    if box is not None:
        on_left_of_image = _image_left(truth[box], truth.shape[1] / 2 - box[1].start)
        right[box] = truth[box] & on_left_of_image
        left[box] = truth[box] & ~on_left_of_image
    return left, right


def lung_dice(prediction: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Return the Dice of the left and of the right lung, in the patient's sense.

    Only the truth decides which pixel belongs to which lung (`split_lungs`), so that all predictions of an
    image are judged alike. A predicted pixel inside the truth belongs to the truth's lung there. Any other
    belongs to the side of the dividing curve on which it lies (`dividing_columns`).

    If the truth lacks a lung, its Dice is NaN, and pixels predicted on its side count only in the Dice of the
    whole image. Raises ValueError if the masks aren't bool, H x W, or differ in shape.
    """
    if prediction.dtype != bool or prediction.shape != truth.shape:
        raise ValueError(f"masks must be bool and of one shape, got {prediction.shape} and {truth.shape}")
    left, right = split_lungs(truth)
    outside = prediction & ~truth
    on_left_of_image = np.arange(truth.shape[1]) < dividing_columns(left, right)[:, None]
    wrong_right = int(np.count_nonzero(outside & on_left_of_image))
    wrong_left = int(np.count_nonzero(outside)) - wrong_right
    return _dice(prediction, left, wrong_left), _dice(prediction, right, wrong_right)


def _dice(prediction: np.ndarray, lung: np.ndarray, wrong: int) -> float:
    area = int(np.count_nonzero(lung))
    if area == 0:
        return float("nan")
    hit = int(np.count_nonzero(prediction & lung))
    return overlap(tp=hit, fp=wrong, fn=area - hit, tn=0)["dice"]


def dividing_columns(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return for each row the column (float64, H) before which the right lung's side lies, the image's left.

    Lungs are as `split_lungs` returns them. In rows that show both it is midway between them. Elsewhere it is
    interpolated between such rows, and constant before the first and after the last of them. Without any it
    is the image's middle. Where it would cross a lung it is moved to the lung's edge, unless the lungs
    overlap in that row.
    """
    width = left.shape[1]
    end = np.where(right.any(axis=1), width - right[:, ::-1].argmax(axis=1), 0)  # of the right lung
    start = np.where(left.any(axis=1), left.argmax(axis=1), width)  # of the left lung
    both = np.flatnonzero((end > 0) & (start < width))
    if len(both) == 0:
        middle = np.full(len(left), width / 2)
    else:
        middle = np.interp(np.arange(len(left)), both, (end[both] + start[both]) / 2)
    free = end <= start  # else the lungs overlap in this row, and midway is the best choice
    return np.where(free, np.clip(middle, end, np.maximum(start, end)), middle)


def _image_left(mask: np.ndarray, middle: float) -> np.ndarray:
    """bool, H x W: the pixels of the lung on the image's left, for a mask that touches its box's four sides.

    `middle` is the column of the image's middle.
    """
    parts, count = label(mask, structure=np.ones((3, 3)))
    areas, centres = _areas_and_centres(parts, count)
    largest = int(areas.argmax())
    if areas[largest] >= BRIDGED * areas.sum():
        cut = _cut_between_lungs(parts == largest + 1)
        if cut is not None:
            count += 1
            parts[(parts == largest + 1) & (np.arange(mask.shape[1]) >= cut[:, None])] = count
            areas, centres = _areas_and_centres(parts, count)
    on_left = _lower_class(areas, centres)
    sides = np.concatenate([[False], on_left])[parts]
    if not _beside(mask & sides, mask & ~sides):
        return np.full(mask.shape, areas @ centres / areas.sum() < middle)
    return sides


def _areas_and_centres(parts: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    labels = parts.ravel()
    columns = np.broadcast_to(np.arange(parts.shape[1], dtype=np.float64), parts.shape).ravel()
    areas = np.bincount(labels, minlength=count + 1)[1:].astype(np.float64)
    return areas, np.bincount(labels, weights=columns, minlength=count + 1)[1:] / areas


def _lower_class(areas: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """bool, one a component: those left of the limit that maximises the variance between both classes."""
    order = np.argsort(centres, kind="stable")
    weight, moment = areas[order].cumsum(), (areas * centres)[order].cumsum()
    rest = weight[-1] - weight[:-1]
    gap = moment[:-1] / weight[:-1] - (moment[-1] - moment[:-1]) / rest
    below = np.zeros(len(areas), bool)
    if len(areas) > 1:
        below[order[: int(np.argmax(weight[:-1] * rest * gap**2)) + 1]] = True
    return below


def _beside(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether both parts are lungs: neither is specks, and less than half of the smaller shares columns."""
    areas = sorted([np.count_nonzero(one), np.count_nonzero(other)])
    if areas[0] <= SPECKS * areas[1]:
        return False
    profiles = one.sum(axis=0), other.sum(axis=0)
    common = np.minimum(*profiles).sum()
    return bool(common < 0.5 * areas[0])


def _cut_between_lungs(mask: np.ndarray) -> np.ndarray | None:
    """int, H: the first column of each row that is the other lung's; None if the mask is a single lung."""
    step = -(-max(mask.shape) // COARSE)
    coarse = mask[step // 2 :: step, step // 2 :: step]
    if min(coarse.shape) < 3 or not coarse.any():
        return None
    heights = coarse.sum(axis=0)
    columns = np.repeat(np.arange(coarse.shape[1]), heights)
    first, last = np.quantile(columns, [0.1, 0.9]).astype(int)
    path, cost = _cheapest_path(coarse[:, first : last + 1])
    path += first
    before = np.arange(coarse.shape[1]) < path[:, None]
    peaks = [(coarse & side).sum(axis=0).max() for side in (before, ~before)]
    width, height = (np.ptp(np.flatnonzero(coarse.any(axis=axis))) for axis in (0, 1))
    broad = width > BROAD * height
    if cost > (VALLEY_IF_BROAD if broad else VALLEY) * min(peaks):
        return None
    rows = step // 2 + step * np.arange(len(path))
    return np.round(np.interp(np.arange(mask.shape[0]), rows, step * path + step // 2)).astype(int)


def _cheapest_path(mask: np.ndarray) -> tuple[np.ndarray, float]:
    """The path (int, H) from top to bottom that crosses the fewest True pixels, and its cost in pixels.

    By dynamic programming. It moves by one column a row at most, and each such step costs SIDESTEP pixels. Of
    equal paths it is the one nearest to the middle.
    """
    height, width = mask.shape
    # In sum less than one pixel, so that it only decides between equal paths.
    aside = np.abs(np.arange(width) - (width - 1) / 2) / (width * height)
    cost = mask + aside
    moves = np.empty((height, width), np.int8)
    totals = np.full((3, width), np.inf)  # coming from the left column, the same, and the right one
    total = cost[0]
    for row in range(1, height):
        totals[0, 1:], totals[1], totals[2, :-1] = total[:-1] + SIDESTEP, total, total[1:] + SIDESTEP
        moves[row] = totals.argmin(axis=0)
        total = cost[row] + totals.min(axis=0)
    path = np.empty(height, int)
    path[-1] = int(total.argmin())
    for row in range(height - 1, 0, -1):
        path[row - 1] = path[row] + moves[row, path[row]] - 1
    return path, float(total.min())
