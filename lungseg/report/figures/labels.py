"""Labels beside points, placed so that they cover neither each other nor what is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

NEAR = 8  # points: a label farther from its anchor is joined to it by a line
RADII = (6, 14, 24, 36, 50, 66)


@dataclass(frozen=True)
class Label:
    """A text that may stand beside any of its anchors, (x, y) in data coordinates, the preferred first."""

    text: str
    anchors: Sequence[tuple[float, float]]
    colour: tuple[float, float, float]


@dataclass(frozen=True)
class _Place:
    anchor: tuple[float, float]
    offset: tuple[float, float]  # points
    align: tuple[str, str]  # horizontal, vertical
    far: bool


def place_labels(axes: Axes, labels: Sequence[Label], obstacles: Sequence[Bbox], fontsize: float = 7) -> None:
    """Writes each label where it covers least, as near to an anchor as that allows.

    Greedy from top to bottom: with a dozen labels there is always room somewhere, and the order is fixed,
    so the same figure comes out each time. The figure must have been laid out before
    (`Figure.draw_without_rendering`).

    Args:
        obstacles: boxes in display coordinates (pixels) that no label may cover.
    """
    renderer = axes.figure.canvas.get_renderer()
    frame, taken = axes.get_window_extent(renderer), list(obstacles)
    for label in sorted(labels, key=lambda one: (-one.anchors[0][1], one.anchors[0][0])):
        trials = []
        for place in _places(label):
            text = _write(axes, label, place, fontsize)
            box = Annotation.get_window_extent(text, renderer)
            text.remove()
            trials.append((_cost(axes, place, box, taken, frame), len(trials), place, box))
        _, _, place, box = min(trials, key=lambda trial: trial[:2])
        _write(axes, label, place, fontsize, line=place.far)
        taken.append(box)


def _places(label: Label) -> list[_Place]:
    found = []
    for radius in RADII:
        slant, far = 0.75 * radius, radius > NEAR
        for anchor in label.anchors:
            found += [_Place(anchor, (side * radius, 0), (at, "center"), far) for side, at in _SIDES]
            found += [_Place(anchor, (0, side * radius), ("center", at), far) for side, at in _LEVELS]
            found += [
                _Place(anchor, (x * slant, y * slant), (at_x, at_y), far)
                for x, at_x in _SIDES
                for y, at_y in _LEVELS
            ]
    return found


_SIDES = ((1, "left"), (-1, "right"))
_LEVELS = ((1, "bottom"), (-1, "top"))


def _write(axes: Axes, label: Label, place: _Place, fontsize: float, line: bool = False) -> Annotation:
    arrow = {"arrowstyle": "-", "color": label.colour, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}
    return axes.annotate(
        label.text,
        place.anchor,
        place.offset,
        textcoords="offset points",
        ha=place.align[0],
        va=place.align[1],
        fontsize=fontsize,
        color=label.colour,
        arrowprops={**arrow, "relpos": _relpos(place)} if line else None,
    )


def _relpos(place: _Place) -> tuple[float, float]:
    """Where on the text's box its line starts: the side or corner that faces the anchor."""
    x = {"left": 0.0, "center": 0.5, "right": 1.0}[place.align[0]]
    return x, {"bottom": 0.0, "center": 0.5, "top": 1.0}[place.align[1]]


def _cost(axes: Axes, place: _Place, box: Bbox, taken: Sequence[Bbox], frame: Bbox) -> float:
    """Square pixels that are covered or outside, what a line crosses, and a little for the distance."""
    area = sum(_overlap(box, other) for other in taken)
    outside = box.width * box.height - _overlap(box, frame)
    return (
        area
        + 10 * outside
        + float(np.hypot(*place.offset))
        + (_crossed(axes, place, taken) if place.far else 0)
    )


def _crossed(axes: Axes, place: _Place, taken: Sequence[Bbox]) -> float:
    """A penalty of some label's size for a line that runs over what is drawn."""
    start = axes.transData.transform(place.anchor)
    end = start + np.array(place.offset) * axes.figure.dpi / 72
    path = start + np.linspace(0.25, 1, 16)[:, None] * (end - start)
    return 60.0 * sum(any(box.contains(*point) for box in taken) for point in path)


def _overlap(one: Bbox, other: Bbox) -> float:
    shared = Bbox.intersection(one, other)
    return 0.0 if shared is None else float(np.prod(shared.size))
