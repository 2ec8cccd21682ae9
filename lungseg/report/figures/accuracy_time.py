"""Draw accuracy against the time of one image."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

from lungseg.report.contents import Contents
from lungseg.report.figures.labels import Label, place_labels
from lungseg.report.figures.style import DOUBLE, assign_colours, make_figure, set_dice_scale, set_log_ticks
from lungseg.report.numbers.quality import collect_main_rows

DEVICE_MARKERS = {"cpu": "o", "cuda": "D"}


def draw_accuracy_time(contents: Contents) -> Figure | None:
    """Draw mean Dice with its interval against the time of one image: a marker per device, with names."""
    frame = collect_main_rows(contents)
    frame = frame[frame["ms_per_image"].notna() & (frame["ms_per_image"] > 0)]
    if frame.empty:
        return None
    figure = make_figure(DOUBLE, 3.6)
    axes = figure.subplots()
    palette = assign_colours(contents.names, contents.baselines)
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
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # labels are placed by pixel: nothing may move after this
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
