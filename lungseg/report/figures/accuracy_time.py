"""Draw accuracy against the time of one image, with names that cover neither each other nor what is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

from lungseg.report.contents import Contents
from lungseg.report.figures.style import (
    DOUBLE,
    assign_colours,
    darken,
    lay_out_figure,
    make_figure,
    set_dice_scale,
    set_log_ticks,
)
from lungseg.report.numbers.quality import collect_main_rows

DEVICE_MARKERS = {"cpu": "o", "cuda": "D"}

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


def draw_accuracy_time(contents: Contents) -> Figure | None:
    """Draw mean Dice with its interval against the time of one image: a marker per device, with names."""
    frame = collect_main_rows(contents)
    frame = frame[frame["ms_per_image"].notna() & (frame["ms_per_image"] > 0)]
    if frame.empty:
        return None
    figure = make_figure(DOUBLE, 3.6)
    axes = figure.subplots()
    palette = assign_colours(contents)
    set_dice_scale(axes, "y", frame[["dice", "dice_low", "dice_high"]].to_numpy().ravel())
    _set_time_axis(axes, frame["ms_per_image"])
    for name, rows in frame.groupby("approach", sort=False):
        look = {"linewidth": 0.6, "linestyle": ":", "zorder": 1}
        axes.plot(rows["ms_per_image"], rows["dice"], color=palette[name], **look)
        for row in rows.itertuples():
            _draw_measured(axes, row, palette[name])
    devices = list(dict.fromkeys(frame["device"]))
    axes.set_ylabel("mean Dice with 95 % interval\n(logarithmic in 1 − Dice)")
    axes.set_xlabel(f"ms per image at batch size 1{'' if len(devices) > 1 else f', {devices[0].upper()}'}")
    if len(devices) > 1:
        look = {"color": "#444444", "linestyle": "", "markersize": 4.5}
        handles = [
            Line2D([], [], **look, marker=DEVICE_MARKERS[device], label=device.upper()) for device in devices
        ]
        figure.legend(handles=handles, loc="outside upper right", ncols=len(handles))
    lay_out_figure(figure)  # labels are placed by pixel: nothing may move after this
    place_labels(axes, _make_labels(frame, palette), _find_obstacles(axes, frame))
    return figure


def _make_labels(frame: pd.DataFrame, palette: dict[str, str]) -> list[Label]:
    """Make a label per approach, to be beside one of its devices or the line that joins them."""
    labels = []
    for name, rows in frame.groupby("approach", sort=False):
        times = rows["ms_per_image"].sort_values(ascending=False).tolist()
        between = [float(np.sqrt(times[0] * times[-1]))] if len(times) > 1 else []
        anchors = [(time, rows["dice"].iloc[0]) for time in (*times, *between)]
        labels.append(Label(name, anchors, palette[name]))
    return labels


def _draw_measured(axes: Axes, row: tuple, colour: str) -> None:
    if pd.notna(row.dice_low):
        ends = [row.dice_low, row.dice_high]
        axes.plot([row.ms_per_image] * 2, ends, color=colour, linewidth=1.0, zorder=2)
    look = {"color": colour, "markersize": 5, "markeredgecolor": "white", "markeredgewidth": 0.5}
    axes.plot(row.ms_per_image, row.dice, DEVICE_MARKERS[row.device], **look)


def _set_time_axis(axes: Axes, times: pd.Series) -> None:
    """Make the x axis logarithmic, with space for names at both ends."""
    low, high = times.min(), times.max()
    margin = 10 ** (0.15 + 0.12 * np.log10(high / low))
    axes.set_xscale("log")
    axes.set_xlim(low / margin, high * margin)
    set_log_ticks(axes.xaxis, low / margin, high * margin)


def _find_obstacles(axes: Axes, frame: pd.DataFrame) -> list[Bbox]:
    """Return boxes in display coordinates of points, their intervals, and the lines between devices."""
    boxes = []
    for row in frame.itertuples():
        x, y = axes.transData.transform((row.ms_per_image, row.dice))
        boxes.append(Bbox.from_extents(x - 8, y - 8, x + 8, y + 8))
        if pd.notna(row.dice_low):
            ends = [(row.ms_per_image, end) for end in (row.dice_low, row.dice_high)]
            (_, low), (_, high) = axes.transData.transform(ends)
            boxes.append(Bbox.from_extents(x - 3, low, x + 3, high))
    for _, rows in frame.groupby("approach", sort=False):
        times, dice = rows["ms_per_image"], rows["dice"].iloc[0]
        (left, y), (right, _) = axes.transData.transform([(times.min(), dice), (times.max(), dice)])
        boxes.append(Bbox.from_extents(left, y - 2, right, y + 2))
    return boxes


def place_labels(axes: Axes, labels: Sequence[Label], obstacles: Sequence[Bbox]) -> None:
    """Write each label where it covers least, as near to an anchor as that allows.

    `obstacles` are boxes in pixels of the display that no label should cover. Labels are placed one after the
    other, from top to bottom, so the same figure comes out each time. The figure must have been laid out
    before (`lay_out_figure`).
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
