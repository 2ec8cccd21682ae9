"""Cleans soft lung maps: smoothing, then the two lungs without specks, then their holes filled.

The usual recipe keeps the two largest connected components and fills every hole in them (so Bioengineering
9:351, 2022, algorithm 1, for chest X-rays). It fails where the lungs touch: both are one component then, and
the second largest is a blob outside them (a known problem of the lungmask tool: JoHof/lungmask, issue 22); if
they touch above and below the heart, the mediastinum is a hole. So what counts here is where a component lies
and how large it is, not how many there are.

The order: smoothing first, for it joins and removes specks of a pixel or two, and would blur what a later
step has cut; components before holes, so that a speck within a hole is part of the hole.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from scipy.ndimage import find_objects, gaussian_filter, label
from torch import Tensor

from lungseg.approaches.approach import Settings

THRESHOLD = 0.5  # above it a pixel counts as lung
# What is removed sinks to the highest of these above which it hangs together with a kept lung.
LEVELS = (0.5, 0.45, 0.4, 0.35, 0.3, 0.2, 0.1, 0.05)
EIGHT = np.ones((3, 3), bool)  # neighbours of a lung pixel; background hangs together by edges alone
# Width / height of a bounding box: of 563 readers' masks (training and validation images of
# cxr704-ovcharenko), 97 % of the pairs of lungs are broader, and 0.3 % of the single lungs.
BROAD = 0.85
# A third component is a part of a lung cut in two if it has this share of the other part's area.
FRAGMENT = 0.25


class PostprocessingSettings(Settings):
    """Keys of the post-processing; each of its three steps can be switched off.

    Attributes:
        smooth: blur the map first.
        sigma: standard deviation of the Gaussian, as a share of the map's shorter side. With the other steps
            on, values from 0.003 to 0.008 change mean Dice on 64 and 128 pixel maps by less than 0.0003.
        keep_lungs: remove what is no lung (`keep_lungs`).
        least_share: smallest component that can be a second lung or a part of one, as a share of the image.
            Of 563 readers' masks the smallest second lung has 0.0185.
        fill_holes: fill the holes of a lung (`fill_holes`).
        largest_hole: largest hole that is filled, as a share of the image. Between the two lungs of the same
            masks lies at least 0.036, so the mediastinum stays open where they touch.
    """

    smooth: bool = True
    sigma: Annotated[float, Field(gt=0, le=0.1)] = 0.005
    keep_lungs: bool = True
    least_share: Annotated[float, Field(ge=0, le=0.1)] = 0.01
    fill_holes: bool = True
    largest_hole: Annotated[float, Field(ge=0, le=0.03)] = 0.01


def postprocess(maps: Tensor, settings: PostprocessingSettings) -> Tensor:
    """Cleaned maps; each is treated alone, on the host.

    Args:
        maps: float32 N x 1 x H x W in [0, 1], on any device. It isn't changed.
        settings: which steps, and their limits.

    Returns:
        float32 N x 1 x H x W in [0, 1] on the device of `maps`. But for the smoothing, values change only in
        what is removed or filled and in its slopes, so a lung's boundary stays where it was between pixels.

    Raises:
        ValueError: another dtype or shape, or a value that isn't in [0, 1].
    """
    if maps.dtype != torch.float32 or maps.ndim != 4 or maps.shape[1] != 1:
        raise ValueError(f"maps must be float32, N x 1 x H x W, got {maps.dtype}, {tuple(maps.shape)}")
    values = maps.detach().cpu().numpy()
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("maps must lie in [0, 1]")
    cleaned = np.empty_like(values)
    for index in range(len(values)):
        cleaned[index, 0] = _clean(values[index, 0], settings)
    return torch.from_numpy(cleaned).to(maps.device)


def _clean(values: np.ndarray, settings: PostprocessingSettings) -> np.ndarray:
    if settings.smooth:
        sigma = settings.sigma * min(values.shape)
        values = gaussian_filter(values, sigma, mode="nearest", truncate=3.0).clip(0, 1)
    if settings.keep_lungs:
        values = keep_lungs(values, settings.least_share)
    if settings.fill_holes:
        values = fill_holes(values, settings.largest_hole)
    return values


def keep_lungs(values: np.ndarray, least_share: float) -> np.ndarray:
    """Sinks the components that are no lungs below the threshold.

    Components are 8-connected, above `THRESHOLD`. Kept are:

    - the largest, however small (an emptied map would be worse than a speck);
    - the second lung: the largest one beside the first (mostly in rows that the first spans, mostly in
      columns that it doesn't), unless the first is so broad that it holds both lungs;
    - parts of a lung cut in two: those with at least `FRAGMENT` of the area of the kept component whose
      columns they share, or of the largest one if they share none's.

    Args:
        values: float32, H x W, in [0, 1].
        least_share: all but the largest have at least this share of the image's area.

    Returns:
        float32, H x W: the map less the other components. Each sinks to the level at which it hangs together
        with a kept one (see `LEVELS`), else to 0.05; so it is away at any threshold near 0.5 at which it
        stands apart, and leaves no ring.
    """
    parts, count = label(values > THRESHOLD, EIGHT)
    if count < 2:
        return values
    areas = np.bincount(parts.ravel(), minlength=count + 1)
    areas[0] = 0
    kept = _lungs(parts, areas, least_share * values.size)
    return values if kept[1:].all() else _sink(values, kept[parts], ~kept[parts] & (parts > 0), EIGHT)


def _lungs(parts: np.ndarray, areas: np.ndarray, least: float) -> np.ndarray:
    """bool, one a label (the background's is False): which components are lungs or parts of one."""
    boxes = find_objects(parts)
    largest = int(areas.argmax())
    kept = np.zeros(len(areas), bool)
    kept[largest] = True
    rows, columns = boxes[largest - 1]
    broad = columns.stop - columns.start >= BROAD * (rows.stop - rows.start)
    second_missing = not broad
    for part in np.argsort(-areas, kind="stable")[1:]:
        if areas[part] < least or part == 0:
            break
        shape = parts == part
        if second_missing and _beside(shape, boxes[largest - 1]):
            kept[part], second_missing = True, False
        else:
            kept[part] = areas[part] >= FRAGMENT * areas[_over_or_under(shape, boxes, kept, largest)]
    return kept


def _beside(shape: np.ndarray, box: tuple[slice, slice]) -> bool:
    rows, columns = box
    area = np.count_nonzero(shape)
    return np.count_nonzero(shape[rows]) > area / 2 > np.count_nonzero(shape[:, columns])


def _over_or_under(
    shape: np.ndarray, boxes: list[tuple[slice, slice]], kept: np.ndarray, largest: int
) -> int:
    """Label of the kept component in whose columns most of the shape lies, or `largest` if there is none."""
    shared = np.zeros(len(kept), int)
    for part in np.flatnonzero(kept):
        shared[part] = np.count_nonzero(shape[:, boxes[part - 1][1]])
    return int(shared.argmax()) if shared.any() else largest


def fill_holes(values: np.ndarray, largest_hole: float) -> np.ndarray:
    """Raises the holes of a lung above the threshold.

    A hole is a 4-connected background region that doesn't touch the image's border, is no larger than
    `largest_hole`, and has at least as much lung as its own area in its columns. The last condition leaves
    a gap between two lungs that touch above and below it: it is high, and the bridges are low.

    Args:
        values: float32, H x W, in [0, 1].
        largest_hole: as a share of the image's area.

    Returns:
        float32, H x W: the map with the holes raised to 1 minus the level to which `keep_lungs` would sink
        them in the inverted map: to at least 0.55.
    """
    parts, count = label(values <= THRESHOLD)
    areas = np.bincount(parts.ravel(), minlength=count + 1)
    hole = areas <= largest_hole * values.size
    hole[[0, *parts[0], *parts[-1], *parts[:, 0], *parts[:, -1]]] = False
    boxes = find_objects(parts)
    for part in np.flatnonzero(hole):
        columns = boxes[part - 1][1]
        hole[part] = np.count_nonzero(parts[:, columns] == 0) >= areas[part]
    if not hole.any():
        return values
    # The threshold itself counts as background, so in the inverted map it must lie above the first level.
    inverted = np.where(values == THRESHOLD, np.nextafter(np.float32(THRESHOLD), np.float32(1)), 1 - values)
    sunk = _sink(inverted, ~hole[parts] & (parts > 0), hole[parts], None)
    # Not 1 - sunk everywhere: inverting twice would round the values that stay.
    return np.where(sunk < inverted, 1 - sunk, values)


def _sink(
    values: np.ndarray, kept: np.ndarray, removed: np.ndarray, neighbours: np.ndarray | None
) -> np.ndarray:
    """The map with its removed components lowered: an opening by reconstruction in steps.

    Reconstruction (Vincent, IEEE Trans. Image Processing 2:176, 1993) lowers every peak to the highest level
    at which a path joins it to a kept one. Here the levels are those of `LEVELS`, and a peak that isn't above
    the first of them stays (a faint lung may lie there), unless a path joins it to a removed one at a higher
    level than to a kept one.

    Args:
        values: float32, H x W.
        kept, removed: bool, H x W: components of the pixels above the first level.
        neighbours: 3 x 3, the structuring element of `scipy.ndimage.label`; None for edges alone.
    """
    lowered = values.copy()
    for level, below in zip(LEVELS, (*LEVELS[1:], LEVELS[-1]), strict=True):
        parts, count = label(values > level, neighbours)
        sinks = np.zeros(count + 1, bool)
        sinks[parts[removed]] = True
        sinks[parts[kept]] = False
        sinks[0] = False
        if not sinks.any():
            break
        lowered[sinks[parts]] = below
    return lowered
