"""Place labels beside points so that they cover neither each other nor what is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

from lungseg.report.figures.style import darken

FONT_SIZE = 7  # points
NEAR = 8  # points: a label farther from its anchor is joined to it by a line
RADII = (6, 14, 24, 36, 50, 66)
# Where a label is from its anchor: 1 right or above, -1 left or below. The preferred side first.
SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
HORIZONTAL = {1: "left", 0: "center", -1: "right"}
VERTICAL = {1: "bottom", 0: "center", -1: "top"}


@dataclass(frozen=True)
class Label:
    """A text that may be beside any of its anchors, (x, y) in data coordinates, the preferred first."""

    text: str
    anchors: Sequence[tuple[float, float]]
    colour: str  # written in a dark tone of it


@dataclass(frozen=True)
class _Place:
    """Where a label may be: on a side of an anchor, `radius` points away."""

    radius: int
    anchor: tuple[float, float]
    side: tuple[int, int]

    @property
    def far(self) -> bool:
        return self.radius > NEAR

    @property
    def offset(self) -> np.ndarray:
        """From the anchor to the nearest point of the label, in points."""
        return np.array(self.side) * self.radius * (0.75 if all(self.side) else 1)

    @property
    def nearest(self) -> np.ndarray:
        """The side or corner of the label that faces the anchor, as fractions of its width and height."""
        return (1 - np.array(self.side)) / 2


def place_labels(axes: Axes, labels: Sequence[Label], obstacles: Sequence[Bbox]) -> None:
    """Write each label where it covers least, as near to an anchor as that allows.

    `obstacles` are boxes in pixels of the display that no label should cover. Labels are placed one after the
    other, from top to bottom, so the same figure comes out each time. The figure must have been laid out
    before (`Figure.draw_without_rendering`).
    """
    frame = axes.get_window_extent().extents
    taken = np.array([box.extents for box in obstacles])
    for label in sorted(labels, key=lambda one: (-one.anchors[0][1], one.anchors[0][0])):
        size = _measure(axes, label)
        places = [_Place(*place) for place in product(RADII, label.anchors, SIDES)]
        place = min(places, key=lambda one: _compute_cost(axes, one, size, taken, frame))
        _write(axes, label, place)
        taken = np.vstack([taken, _find_box(axes, place, size)])


def _measure(axes: Axes, label: Label) -> np.ndarray:
    """Return the width and height of a label in pixels."""
    text = axes.text(*label.anchors[0], label.text, fontsize=FONT_SIZE)
    box = text.get_window_extent()
    text.remove()
    return box.size


def _write(axes: Axes, label: Label, place: _Place) -> None:
    colour = darken(label.colour)
    look = {"ha": HORIZONTAL[place.side[0]], "va": VERTICAL[place.side[1]], "color": colour}
    if place.far:
        line = {"arrowstyle": "-", "color": colour, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}
        look["arrowprops"] = line | {"relpos": tuple(place.nearest)}
    look |= {"fontsize": FONT_SIZE, "textcoords": "offset points"}
    axes.annotate(label.text, place.anchor, place.offset, **look)


def _find_box(axes: Axes, place: _Place, size: np.ndarray) -> np.ndarray:
    """Return x0, y0, x1, y1 in pixels of a label of this size."""
    start = axes.transData.transform(place.anchor) + place.offset * axes.figure.dpi / 72
    low = start - place.nearest * size
    return np.concatenate([low, low + size])


def _compute_cost(axes: Axes, place: _Place, size: np.ndarray, taken: np.ndarray, frame: np.ndarray) -> float:
    """Add up the square pixels that are covered or outside, a penalty for crossings, and the distance."""
    box = _find_box(axes, place, size)
    covered = _compute_overlaps(box, taken).sum()
    outside = size.prod() - _compute_overlaps(box, frame[None])[0]
    crossed = _penalise_crossing(axes, place, taken) if place.far else 0
    # Of equal places the first is chosen: errors of floating point must not make a difference.
    return round(covered + 10 * outside + np.hypot(*place.offset) + crossed, 6)


def _compute_overlaps(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the area that each of `others` (n x 4) shares with `box`."""
    shared = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    return np.clip(shared, 0, None).prod(axis=1)


def _penalise_crossing(axes: Axes, place: _Place, taken: np.ndarray) -> float:
    """Return a penalty, in the order of a label's area, for a line that runs over what is drawn."""
    start = axes.transData.transform(place.anchor)
    path = start + np.linspace(0.25, 1, 16)[:, None] * place.offset * axes.figure.dpi / 72
    inside = (path[:, None] >= taken[:, :2]) & (path[:, None] <= taken[:, 2:])
    return 60.0 * inside.all(axis=2).any(axis=1).sum()
