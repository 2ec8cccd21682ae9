"""Draw Dice of every image: as points, and as violins with the same images joined between approaches."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.mlab import GaussianKDE
from matplotlib.patches import Rectangle

from lungseg.report.contents import Contents
from lungseg.report.figures.style import (
    DARK,
    DOUBLE,
    SINGLE,
    add_legend_below,
    assign_colours,
    describe_n,
    from_digits,
    make_figure,
    name_rows,
    set_dice_scale,
    to_digits,
    wrap_name,
)

BIN = 9  # pixels: points that are nearer get different heights
REACH = 0.26  # the largest such height, in rows
MOST_VIOLINS = 6
FEWEST_IMAGES = 20  # of a violin: of fewer a density is a guess
HALF = 0.27  # a violin's half height; the rest of the row is for the lines
PALE, WORSE = "#999999", "#B2182B"
MEDIAN = {"marker": "o", "linestyle": "", "markersize": 3.5, "color": "white"}
MEDIAN |= {"markeredgecolor": DARK, "markeredgewidth": 0.7}


def draw_dice(contents: Contents) -> Figure | None:
    """Draw Dice of every image as a point, a row per approach, best mean on top, with box and mean."""
    images = contents.image_dice
    names = [name for name in contents.ranked if name in images]
    if not names:
        return None
    figure = make_figure(DOUBLE, 0.42 * len(names) + 0.8)
    axes = figure.subplots()
    palette = assign_colours(contents)
    set_dice_scale(axes, "x", images[names].to_numpy().ravel())
    limits = axes.get_xlim()
    for row, name in enumerate(names):
        values = np.clip(images[name].dropna().to_numpy(), *limits)
        _draw_box(axes, values, row, contents.find_statistic(name, "dice")["value"])
        heights = row + spread_points(axes.transData.transform(np.column_stack([values, values * 0]))[:, 0])
        look = {"s": 8, "alpha": 0.6, "linewidths": 0, "zorder": 2, "rasterized": len(values) > 2000}
        axes.scatter(values, heights, color=palette[name], **look)
    name_rows(axes, [wrap_name(name, 26) for name in names], [palette[name] for name in names])
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


def spread_points(places: np.ndarray) -> np.ndarray:
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


def draw_dice_violins(contents: Contents) -> Figure | None:
    """Draw violins of Dice per image of the best approaches, the same images joined between neighbours.

    None if one of them was scored on fewer than FEWEST_IMAGES.
    """
    images = contents.image_dice
    ranked = [name for name in contents.ranked if name in images]
    names = ranked[:MOST_VIOLINS]
    if not names or images[names].count().min() < FEWEST_IMAGES:
        return None
    figure = make_figure(SINGLE, 0.6 * len(names) + 0.75)
    axes = figure.subplots()
    palette = assign_colours(contents)
    set_dice_scale(axes, "x", images[names].to_numpy().ravel())
    images = images[names].clip(*axes.get_xlim())
    for row, (upper, lower) in enumerate(pairwise(names)):
        _draw_joins(axes, images[[upper, lower]].dropna().to_numpy(), row)
    for row, name in enumerate(names):
        _draw_violin(axes, images[name].dropna().to_numpy(), row, palette[name])
    name_rows(axes, [wrap_name(name, 16) for name in names], [palette[name] for name in names])
    axes.set_ylim(len(names) - 0.55, -0.45)
    axes.set_xlabel(f"Dice (logarithmic in 1 − Dice),\n{describe_n(contents, images.count())}")
    handles = [Line2D([], [], color=DARK, linewidth=2.5, label="quartiles")]
    handles.append(Line2D([], [], **MEDIAN, label="median"))
    if len(names) > 1:
        handles.append(Line2D([], [], color=PALE, label="image, upper ≥ lower"))
        handles.append(Line2D([], [], color=WORSE, label="image, upper < lower"))
    few = f"Best {len(names)} of {len(ranked)} approaches" if len(names) < len(ranked) else None
    add_legend_below(figure, handles, few)
    return figure


def _draw_violin(axes: Axes, values: np.ndarray, row: int, colour: str) -> None:
    """Draw the density, quartiles as a bar, and the median as a dot.

    The density is estimated on the scale of the axis, so that equal areas are equal numbers of images.
    """
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    digits = to_digits(values)
    if np.ptp(digits) > 1e-9:
        places = np.linspace(digits.min(), digits.max(), 200)
        density = GaussianKDE(digits)(places)
        width = HALF * density / density.max()
        look = {"color": colour, "alpha": 0.45, "linewidth": 0, "zorder": 2}
        axes.fill_between(from_digits(places), row - width, row + width, **look)
    axes.plot([low, high], [row, row], color=DARK, linewidth=2.5, solid_capstyle="butt", zorder=3)
    axes.plot(middle, row, **MEDIAN, zorder=4)


def _draw_joins(axes: Axes, values: np.ndarray, row: int) -> None:
    """Draw lines from the violin in `row` to the one below; `values` has a row an image: upper, lower."""
    heights = (row + HALF + 0.02, row + 1 - HALF - 0.02)
    look = {"linewidths": 0.4, "alpha": float(np.clip(40 / max(len(values), 1), 0.15, 0.6)), "zorder": 1}
    for worse, colour in ((False, PALE), (True, WORSE)):
        chosen = values[(values[:, 1] > values[:, 0]) == worse]
        lines = np.stack([chosen, np.broadcast_to(heights, chosen.shape)], axis=2)
        axes.add_collection(LineCollection(list(lines), colors=colour, **look))
