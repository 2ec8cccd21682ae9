"""Draw violins of Dice per image, with the same images joined between approaches."""

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
    add_legend_below,
    assign_colours,
    format_n,
    from_digits,
    make_figure,
    name_rows,
    set_dice_scale,
    to_digits,
    wrap_name,
)

MOST = 6
HALF = 0.27  # a violin's half height; the rest of the row is for the lines
PALE, WORSE = "#999999", "#B2182B"
MEDIAN = {
    "marker": "o",
    "linestyle": "",
    "color": "white",
    "markeredgecolor": DARK,
    "markeredgewidth": 0.7,
    "markersize": 3.5,
}


def draw_dice_violins(contents: Contents) -> Figure | None:
    """Draw violins of Dice per image of the best approaches, the same images joined between neighbours."""
    images = contents.image_dice
    names = [name for name in contents.ranked if name in images][:MOST]
    if not names:
        return None
    figure = make_figure(SINGLE, 0.6 * len(names) + 0.75)
    axes = figure.subplots()
    palette = assign_colours(contents.names, contents.baselines)
    set_dice_scale(axes, "x", images[names].to_numpy().ravel())
    images = images[names].clip(*axes.get_xlim())
    for row, (upper, lower) in enumerate(pairwise(names)):
        _draw_joins(axes, images[[upper, lower]].dropna().to_numpy(), row)
    for row, name in enumerate(names):
        _draw_violin(axes, images[name].dropna().to_numpy(), row, palette[name])
    name_rows(axes, [wrap_name(name, 16) for name in names], [palette[name] for name in names])
    axes.set_ylim(len(names) - 0.55, -0.45)
    axes.set_xlabel(f"Dice (logarithmic in 1 − Dice), {format_n(images.count())} images")
    handles = [
        Line2D([], [], color=DARK, linewidth=2.5, label="quartiles"),
        Line2D([], [], **MEDIAN, label="median"),
    ]
    if len(names) > 1:
        handles += [Line2D([], [], color=PALE, label="image, upper ≥ lower")]
        handles += [Line2D([], [], color=WORSE, label="image, upper < lower")]
    add_legend_below(figure, handles)
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
        axes.fill_between(
            from_digits(places), row - width, row + width, color=colour, alpha=0.45, linewidth=0, zorder=2
        )
    axes.plot([low, high], [row, row], color=DARK, linewidth=2.5, solid_capstyle="butt", zorder=3)
    axes.plot(middle, row, **MEDIAN, zorder=4)


def _draw_joins(axes: Axes, values: np.ndarray, row: int) -> None:
    """Draw lines from the violin in `row` to the one below; `values` has a row an image: upper, lower."""
    heights = (row + HALF + 0.02, row + 1 - HALF - 0.02)
    strength = float(np.clip(40 / max(len(values), 1), 0.15, 0.6))
    for worse, colour in ((False, PALE), (True, WORSE)):
        chosen = values[(values[:, 1] > values[:, 0]) == worse]
        lines = np.stack([chosen, np.broadcast_to(heights, chosen.shape)], axis=2)
        axes.add_collection(
            LineCollection(list(lines), colors=colour, linewidths=0.4, alpha=strength, zorder=1)
        )
