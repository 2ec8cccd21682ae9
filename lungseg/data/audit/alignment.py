"""Measure how alike two pictures are by affine registration of their local contrast.

Positions run from -1 to 1 across a picture, so they hold at any size. A placement is a 2 x 3 matrix that
maps (row, column, 1) of a `fixed` picture to (row, column) of a `moving` one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

SIDE = 128  # pixels, of pictures that are aligned exactly
ROUGH_SIDE = 64
ROUGH_DETAIL, FINE_DETAIL = 4.0, 2.0  # sigma (pixels at SIDE) of the Gaussian blur that is subtracted
_NEIGHBOURHOOD = 6.0  # sigma (pixels at SIDE) of the Gaussian over which contrast is normalised
_LEAST_CONTRAST = 0.1  # of a picture's mean contrast: areas with less are flat
_STEPS = 8  # Gauss-Newton steps at each size
_LARGEST_STEP = 0.06  # change of a placement's numbers in one step
_PROMISING = 0.72  # correlation at ROUGH_SIDE below which pictures are not aligned any further
_LEAST_OVERLAP = 0.5  # share of a picture that must overlap the other


@dataclass(frozen=True)
class View:
    """A picture ready to be aligned: `rough` is 64 x 64, `fine` and `texture` are 128 x 128, all float32.

    `texture` is near 1 where there is detail and 0 where the picture is flat, such as saturated or black.
    """

    rough: np.ndarray
    fine: np.ndarray
    texture: np.ndarray

    def mirrored(self) -> View:
        """Return the view of the picture mirrored left to right."""
        return View(self.rough[:, ::-1], self.fine[:, ::-1], self.texture[:, ::-1])


def shrink(picture: np.ndarray, side: int) -> np.ndarray:
    """Resize an H x W float32 picture to side x side without aliasing; its aspect is lost."""
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BILINEAR))


def high_pass(picture: np.ndarray, detail: float) -> np.ndarray:
    """Subtract from a picture its blur by a Gaussian whose standard deviation is `detail` pixels."""
    return picture - gaussian_filter(picture, detail, mode="nearest")


def normalise_contrast(picture: np.ndarray, detail: float) -> tuple[np.ndarray, np.ndarray]:
    """Divide the `high_pass` of a picture by the contrast around it, and show where there is detail at all.

    Brightness, gain and gamma change a picture's local mean and contrast but hardly this ratio. It is the
    divisive normalisation of Jarrett et al. 2009 (What is the best multi-stage architecture for object
    recognition?), with a floor, so that noise in flat areas isn't amplified.

    Returns:
        the detail (float32, about -3 to 3) and the texture (float32, 0 to 1), both SIDE x SIDE.
    """
    high = high_pass(picture, detail)
    contrast = np.sqrt(gaussian_filter(high * high, _NEIGHBOURHOOD, mode="nearest"))
    floor = _LEAST_CONTRAST * float(contrast.mean()) + 1e-6
    squared = contrast * contrast
    return high / (contrast + floor), squared / (squared + 4 * floor * floor)


def make_view(picture: np.ndarray) -> View:
    """Make the view of a SIDE x SIDE float32 picture."""
    rough = shrink(normalise_contrast(picture, ROUGH_DETAIL)[0], ROUGH_SIDE)
    return View(rough, *normalise_contrast(picture, FINE_DETAIL))


def measure_similarity(moving: View, fixed: View, placement: np.ndarray) -> float:
    """Align two pictures and return the correlation of their fine detail, -1 to 1, where both have texture.

    The alignment starts at `placement`. The result is 0 if the pictures overlap too little, or if a coarse
    alignment shows that they can't be copies.
    """
    found, placement = _align(moving.rough, fixed.rough, placement)
    if found < _PROMISING:
        return 0.0
    _, placement = _align(moving.fine, fixed.fine, placement)
    where, inside = _positions(placement, SIDE)
    weight = map_coordinates(moving.texture, where, order=1) * fixed.texture.ravel()[inside]
    if weight.sum() < _LEAST_OVERLAP * min(moving.texture.sum(), fixed.texture.sum()):
        return 0.0
    return _correlation(map_coordinates(moving.fine, where, order=1), fixed.fine.ravel()[inside], weight)


def _positions(placement: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions (2 x k) in the moving picture of the fixed pixels that it covers, and a mask of these."""
    rows, columns = _grid(side)
    where = (placement[:, :1] * rows + placement[:, 1:2] * columns + placement[:, 2:] + 1) * side / 2 - 0.5
    inside = ((where >= 0) & (where <= side - 1)).all(axis=0)
    return where[:, inside], inside


def _grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    line = (np.arange(side) + 0.5) / side * 2 - 1
    return np.repeat(line, side), np.tile(line, side)


def _align(moving: np.ndarray, fixed: np.ndarray, placement: np.ndarray) -> tuple[float, np.ndarray]:
    """The best correlation on a Gauss-Newton descent, and its placement.

    Least squares of the brightness difference over an affine placement, a gain and an offset: Lucas and
    Kanade's registration (1981) in its forward additive form (Baker and Matthews 2004).
    """
    side = fixed.shape[0]
    slopes = np.gradient(moving, 2 / side)
    rows, columns = _grid(side)
    best, best_placement = -1.0, placement
    for step in range(_STEPS + 1):
        where, inside = _positions(placement, side)
        if inside.mean() < _LEAST_OVERLAP:
            break
        seen, wanted = map_coordinates(moving, where, order=1), fixed.ravel()[inside]
        found = _correlation(seen, wanted, np.ones_like(seen))
        if found > best:
            best, best_placement = found, placement
        if step == _STEPS:
            break
        down, right = (map_coordinates(slope, where, order=1) for slope in slopes)
        y, x, one = rows[inside], columns[inside], np.ones_like(seen)
        jacobian = np.stack([down * y, down * x, down, right * y, right * x, right, seen, one])
        normal = jacobian @ jacobian.T
        normal += 1e-3 * np.trace(normal) / 8 * np.eye(8)  # damping: flat pictures have no unique solution
        solution = np.linalg.solve(normal, jacobian @ wanted)
        change = (solution[:6] / max(solution[6], 0.2)).reshape(2, 3)  # as at a gain of 1
        placement = placement + np.clip(change, -_LARGEST_STEP, _LARGEST_STEP)
    return best, best_placement


def _correlation(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> float:
    total = float(weight.sum()) + 1e-12
    first = first - (first * weight).sum() / total
    second = second - (second * weight).sum() / total
    energy = float((first * first * weight).sum()) * float((second * second * weight).sum())
    return float((first * second * weight).sum()) / energy**0.5 if energy > 1e-12 else 0.0
