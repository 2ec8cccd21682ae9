"""Draw Dice of every image."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lungseg.report.contents import Contents
from lungseg.report.figures.style import (
    DARK,
    DOUBLE,
    assign_colours,
    make_figure,
    name_rows,
    set_dice_scale,
    wrap_name,
)

NAME_WIDTH = 26  # letters on a line of a name beside a plot
BIN = 9  # pixels: points that are nearer get different heights
REACH = 0.26  # the largest such height, in rows


def draw_dice(contents: Contents) -> Figure | None:
    """Draw Dice of every image as a point, a row per approach, best mean on top, with box and mean."""
    images = contents.image_dice
    names = [name for name in contents.ranked if name in images]
    if not names:
        return None
    figure = make_figure(DOUBLE, 0.42 * len(names) + 0.8)
    axes = figure.subplots()
    palette = assign_colours(contents.names, contents.baselines)
    set_dice_scale(axes, "x", images[names].to_numpy().ravel())
    limits = axes.get_xlim()
    for row, name in enumerate(names):
        values = np.clip(images[name].dropna().to_numpy(), *limits)
        _draw_box(axes, values, row, contents.find_statistic(name, "dice")["value"])
        heights = row + _spread_points(axes.transData.transform(np.column_stack([values, values * 0]))[:, 0])
        look = {"s": 8, "alpha": 0.6, "linewidths": 0, "zorder": 2, "rasterized": len(values) > 2000}
        axes.scatter(values, heights, color=palette[name], **look)
    name_rows(axes, [wrap_name(name, NAME_WIDTH) for name in names], [palette[name] for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    seeds = ", the mean of its seeds" if len(contents.scores["seed"].unique()) > 1 else ""
    axes.set_xlabel("Dice (logarithmic in 1 − Dice)")
    figure.suptitle(f"Points: one image each{seeds}. Box: quartiles and median. Diamond: mean")
    return figure


def _draw_box(axes: Axes, values: np.ndarray, row: int, mean: float) -> None:
    """Draw quartiles, median and mean. No whiskers: the points show the tails."""
    half = 0.31
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    look = {"fill": False, "edgecolor": DARK, "linewidth": 0.7, "zorder": 3}
    axes.add_patch(Rectangle((low, row - half), high - low, 2 * half, **look))
    axes.plot([middle, middle], [row - half, row + half], color=DARK, linewidth=1.4, zorder=3)
    look = {"markersize": 3.5, "color": "white", "markeredgecolor": DARK, "markeredgewidth": 0.8, "zorder": 4}
    axes.plot(mean, row, "D", **look)


def _spread_points(places: np.ndarray) -> np.ndarray:
    """Return heights around 0 for points at `places` (pixels), so that no point hides another."""
    bins = np.round(places / BIN).astype(int)
    heights = np.zeros(len(places))
    for value in np.unique(bins):
        members = np.flatnonzero(bins == value)
        spread = min(REACH, 0.04 * (len(members) - 1))
        # Neighbours in value get heights far from each other: on both sides of the middle in turn.
        order = members[np.argsort(places[members], kind="stable")]
        levels = np.linspace(-spread, spread, len(members))
        heights[order] = levels[np.argsort(np.abs(levels), kind="stable")]
    return heights
