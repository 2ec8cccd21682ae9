"""Figures that show no X-ray: curves of training, Dice of every image, accuracy against time."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from lungseg.report.contents import Contents
from lungseg.report.figures.labels import Label, place_labels
from lungseg.report.figures.style import DOUBLE, colours, dice_scale, ink, log_ticks, new_figure, wrap_name
from lungseg.report.numbers.quality import main_frame

MEASURES = ("loss", "accuracy", "dice")
DEVICE_MARKERS = {"cpu": "o", "cuda": "D"}
NAME_WIDTH = 26  # letters on a line of a name beside a plot


def curves(contents: Contents) -> Figure | None:
    """Loss, accuracy and validation Dice against rounds or epochs: a row of panels per approach.

    An approach that is fitted in one step has no curve, and is left out.
    """
    history = contents.history
    columns = [f"{part}_{measure}" for part in ("train", "validation") for measure in MEASURES]
    columns = [column for column in columns if column in history and history[column].notna().any()]
    measures = [measure for measure in MEASURES if any(column.endswith(measure) for column in columns)]
    shown = history[columns].notna().any(axis=1) & (history["step"] > 1)
    recorded = history[shown]["approach"] if columns else []
    names = [name for name in contents.names if name in set(recorded)]
    if not names:
        return None
    figure = new_figure(DOUBLE * (len(measures) + 0.4) / 3.4, 1.4 * len(names) + 0.3)
    palette = colours(contents.names, contents.baselines)
    grid = figure.subplots(len(names), len(measures), squeeze=False)
    for row, name in zip(grid, names, strict=True):
        row[0].set_title(name, color=ink(palette[name]), fontweight="bold", loc="left")
        fits = history[history["approach"] == name]
        for axes, measure in zip(row, measures, strict=True):
            _curve_panel(axes, fits, measure, palette[name])
    handles = [
        Line2D([], [], color="#444444", **_LINES[kind], label=kind) for kind in ("train", "validation")
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=2)
    return figure


_LINES = {"train": {"linestyle": (0, (3, 1.5)), "alpha": 0.75}, "validation": {"linestyle": "-"}}


def _curve_panel(axes: Axes, rows: pd.DataFrame, measure: str, colour: str) -> None:
    fits = rows.groupby(["fold", "seed"], sort=True)
    drawn = False
    for kind, look in _LINES.items():
        column = f"{kind}_{measure}"
        if column not in rows:
            continue
        for _, fit in fits:
            line = fit[["step", column]].dropna().sort_values("step")
            drawn |= len(line) > 0
            axes.plot(
                line["step"],
                line[column],
                color=colour,
                linewidth=1.2 if fits.ngroups == 1 else 0.7,
                marker="." if len(line) == 1 else None,
                **look,
            )
    if not drawn:
        axes.axis("off")
        return
    axes.set_xlabel(str(rows["unit"].iloc[0]), labelpad=1)
    axes.set_ylabel("validation Dice" if measure == "dice" else measure)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.grid(axis="y")


def dice(contents: Contents) -> Figure | None:
    """Dice of every image as a point, a row per approach, best mean on top, with box and mean."""
    images = contents.image_dice()
    names = [name for name in contents.ranked() if name in images]
    if not names:
        return None
    figure = new_figure(DOUBLE, 0.42 * len(names) + 0.8)
    axes = figure.subplots()
    palette = colours(contents.names, contents.baselines)
    dice_scale(axes, "x", images[names].to_numpy().ravel())
    limits = axes.get_xlim()
    for row, name in enumerate(names):
        values = np.clip(images[name].dropna().to_numpy(), *limits)
        _box(axes, values, row, contents.statistic(name, "dice")["value"])
        heights = row + _swarm(axes.transData.transform(np.column_stack([values, values * 0]))[:, 0])
        axes.scatter(
            values,
            heights,
            s=8,
            color=palette[name],
            alpha=0.6,
            linewidths=0,
            zorder=2,
            rasterized=len(values) > 2000,
        )
    axes.set_yticks(range(len(names)), [wrap_name(name, NAME_WIDTH) for name in names])
    for tick, name in zip(axes.get_yticklabels(), names, strict=True):
        tick.set_color(ink(palette[name]))
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    seeds = ", the mean of its seeds" if len(contents.scores["seed"].unique()) > 1 else ""
    axes.set_xlabel("Dice (logarithmic in 1 − Dice)")
    figure.suptitle(f"Points: one image each{seeds}. Box: quartiles and median. Diamond: mean")
    return figure


def _box(axes: Axes, values: np.ndarray, row: int, mean: float) -> None:
    """Quartiles, median and mean over the points, which show the tails themselves."""
    dark, half = "#222222", 0.31
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    box = Rectangle(
        (low, row - half), high - low, 2 * half, fill=False, edgecolor=dark, linewidth=0.7, zorder=3
    )
    axes.add_patch(box)
    axes.plot([middle, middle], [row - half, row + half], color=dark, linewidth=1.4, zorder=3)
    axes.plot(
        mean, row, "D", markersize=3.5, color="white", markeredgecolor=dark, markeredgewidth=0.8, zorder=4
    )


def _swarm(places: np.ndarray, step: float = 9.0, reach: float = 0.26) -> np.ndarray:
    """Heights around 0 for points at `places` (pixels): those of one bin are spread, so that none hides."""
    bins = np.round(places / step).astype(int)
    heights = np.zeros(len(places))
    for value in np.unique(bins):
        members = np.flatnonzero(bins == value)
        spread = min(reach, 0.04 * (len(members) - 1))
        # Neighbours in value get far apart heights: alternate between both sides of the middle.
        order = members[np.argsort(places[members], kind="stable")]
        levels = np.linspace(-spread, spread, len(members))
        heights[order] = levels[np.argsort(np.abs(levels), kind="stable")]
    return heights


def accuracy_time(contents: Contents) -> Figure | None:
    """Mean Dice with its interval against the time of one image: a marker per device, names beside it."""
    frame = main_frame(contents)
    frame = frame[frame["ms_per_image"].notna() & (frame["ms_per_image"] > 0)]
    if frame.empty:
        return None
    figure = new_figure(DOUBLE, 3.6)
    axes = figure.subplots()
    palette = colours(contents.names, contents.baselines)
    dice_scale(axes, "y", frame[["dice", "dice_low", "dice_high"]].to_numpy().ravel())
    _time_axis(axes, frame["ms_per_image"])
    for name, rows in frame.groupby("approach", sort=False):
        axes.plot(
            rows["ms_per_image"], rows["dice"], color=palette[name], linewidth=0.6, linestyle=":", zorder=1
        )
        for row in rows.itertuples():
            _measured(axes, row, palette[name])
    devices = list(dict.fromkeys(frame["device"]))
    axes.set_ylabel("mean Dice with 95 % interval\n(logarithmic in 1 − Dice)")
    axes.set_xlabel(f"ms per image at batch size 1{'' if len(devices) > 1 else f', {devices[0].upper()}'}")
    if len(devices) > 1:
        handles = [_device_handle(device) for device in devices]
        figure.legend(handles=handles, loc="outside upper right", ncols=len(handles))
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # what is placed by pixel must not move any more
    place_labels(axes, _labels(frame, palette), _obstacles(axes, frame))
    return figure


def _labels(frame: pd.DataFrame, palette: dict[str, str]) -> list[Label]:
    """A label per approach, to stand beside one of its devices or on the line that joins them."""
    labels = []
    for name, rows in frame.groupby("approach", sort=False):
        times = rows["ms_per_image"].sort_values(ascending=False).tolist()
        between = [float(np.sqrt(times[0] * times[-1]))] if len(times) > 1 else []
        anchors = [(time, rows["dice"].iloc[0]) for time in (*times, *between)]
        labels.append(Label(name, anchors, ink(palette[name])))
    return labels


def _device_handle(device: str) -> Line2D:
    marker = DEVICE_MARKERS.get(device, "s")
    return Line2D([], [], color="#444444", linestyle="", marker=marker, markersize=4.5, label=device.upper())


def _measured(axes: Axes, row: tuple, colour: str) -> None:
    if pd.notna(row.dice_low):
        axes.plot(
            [row.ms_per_image] * 2, [row.dice_low, row.dice_high], color=colour, linewidth=1.0, zorder=2
        )
    marker = DEVICE_MARKERS.get(row.device, "s")
    axes.plot(
        row.ms_per_image,
        row.dice,
        marker,
        color=colour,
        markersize=5,
        markeredgecolor="white",
        markeredgewidth=0.5,
    )


def _time_axis(axes: Axes, times: pd.Series) -> None:
    """A logarithmic axis with room for names."""
    low, high = times.min(), times.max()
    margin = 10 ** (0.15 + 0.12 * np.log10(high / low))
    axes.set_xscale("log")
    axes.set_xlim(low / margin, high * margin)
    log_ticks(axes.xaxis, low / margin, high * margin)


def _obstacles(axes: Axes, frame: pd.DataFrame) -> list[Bbox]:
    """Boxes in display coordinates of the points, their intervals, and the lines that join devices."""
    boxes = []
    for row in frame.itertuples():
        x, y = axes.transData.transform((row.ms_per_image, row.dice))
        boxes.append(Bbox.from_extents(x - 8, y - 8, x + 8, y + 8))
        if pd.notna(row.dice_low):
            ends = axes.transData.transform(
                [(row.ms_per_image, end) for end in (row.dice_low, row.dice_high)]
            )
            boxes.append(Bbox.from_extents(x - 3, ends[0, 1], x + 3, ends[1, 1]))
    for _, rows in frame.groupby("approach", sort=False):
        (left, y), (right, _) = axes.transData.transform(
            [
                (time, rows["dice"].iloc[0])
                for time in (rows["ms_per_image"].min(), rows["ms_per_image"].max())
            ]
        )
        boxes.append(Bbox.from_extents(left, y - 2, right, y + 2))
    return boxes
