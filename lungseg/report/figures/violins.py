"""Violins of Dice per image, with the same images joined between approaches."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.mlab import GaussianKDE

from lungseg.report.contents import Contents
from lungseg.report.figures.style import (
    DARK,
    SINGLE,
    colours,
    dice_of,
    dice_scale,
    error_digits,
    ink,
    legend_below,
    n_text,
    new_figure,
    wrap_name,
)

MOST = 6
HALF = 0.27  # a violin's half height; the rest of its row is for the lines
PALE, WORSE = "#999999", "#B2182B"
MEDIAN = {
    "marker": "o",
    "linestyle": "",
    "color": "white",
    "markeredgecolor": DARK,
    "markeredgewidth": 0.7,
    "markersize": 3.5,
}


def dice_violins(contents: Contents) -> Figure | None:
    """Violins of Dice per image, of the best approaches, the same images joined between neighbours."""
    images = contents.image_dice()
    names = [name for name in contents.ranked() if name in images][:MOST]
    if not names:
        return None
    figure = new_figure(SINGLE, 0.6 * len(names) + 0.75)
    axes = figure.subplots()
    palette = colours(contents.names, contents.baselines)
    dice_scale(axes, "x", images[names].to_numpy().ravel())
    images = images[names].clip(*axes.get_xlim())
    for row, (upper, lower) in enumerate(pairwise(names)):
        _join(axes, images[[upper, lower]].dropna().to_numpy(), row)
    for row, name in enumerate(names):
        _violin(axes, images[name].dropna().to_numpy(), row, palette[name])
    axes.set_yticks(range(len(names)), [wrap_name(name, 16) for name in names])
    for tick, name in zip(axes.get_yticklabels(), names, strict=True):
        tick.set_color(ink(palette[name]))
    axes.set_ylim(len(names) - 0.55, -0.45)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"Dice (logarithmic in 1 − Dice), {n_text(images.count())} images")
    handles = [
        Line2D([], [], color=DARK, linewidth=2.5, label="quartiles"),
        Line2D([], [], **MEDIAN, label="median"),
    ]
    if len(names) > 1:
        handles += [Line2D([], [], color=PALE, label="image, upper ≥ lower")]
        handles += [Line2D([], [], color=WORSE, label="image, upper < lower")]
    legend_below(figure, handles)
    return figure


def _violin(axes: Axes, values: np.ndarray, row: int, colour: str) -> None:
    """Density, quartiles as a bar, and the median as a dot.

    The density is estimated where the axis is linear: elsewhere its shape would not be that of an area.
    """
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    digits = error_digits(values)
    if np.ptp(digits) > 1e-9:
        places = np.linspace(digits.min(), digits.max(), 200)
        density = GaussianKDE(digits)(places)
        width = HALF * density / density.max()
        axes.fill_between(
            dice_of(places), row - width, row + width, color=colour, alpha=0.45, linewidth=0, zorder=2
        )
    axes.plot([low, high], [row, row], color=DARK, linewidth=2.5, solid_capstyle="butt", zorder=3)
    axes.plot(middle, row, **MEDIAN, zorder=4)


def _join(axes: Axes, values: np.ndarray, row: int) -> None:
    """Lines from the violin in `row` to the one below it; `values` has a row an image, upper and lower."""
    heights = (row + HALF + 0.02, row + 1 - HALF - 0.02)
    strength = float(np.clip(40 / max(len(values), 1), 0.15, 0.6))
    for worse, colour in ((False, PALE), (True, WORSE)):
        chosen = values[(values[:, 1] > values[:, 0]) == worse]
        lines = np.stack([chosen, np.broadcast_to(heights, chosen.shape)], axis=2)
        axes.add_collection(
            LineCollection(list(lines), colors=colour, linewidths=0.4, alpha=strength, zorder=1)
        )
