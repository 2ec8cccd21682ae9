"""Draw ranks by Dice: their means with Nemenyi's test, and how stable they are over samples of patients."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MultipleLocator

from lungseg.report.contents import Contents
from lungseg.report.figures.comparisons import find_centres
from lungseg.report.figures.style import (
    DARK,
    SINGLE,
    add_legend_below,
    assign_colours,
    make_figure,
    name_rows,
    wrap_name,
)
from lungseg.report.numbers.comparisons import read_ranking
from lungseg.report.numbers.ranks import RankStability, resample_ranks
from lungseg.report.sentences.images import find_unit

ROW = 0.3  # inches between approaches
SMALLEST = 0.005  # of the samples: a blob of less can't be seen
LEGEND_SHARES = (0.1, 0.5, 1.0)


def draw_critical_difference(contents: Contents) -> Figure | None:
    """Draw mean ranks by Dice on one axis; bars join what the Nemenyi test finds no difference in.

    The diagram is that of Demsar (2006), but with all names on the left, each joined to its rank: so names of
    any length fit into one column.
    """
    found = read_ranking(contents)
    if not found or pd.isna(found["critical_difference"]):
        return None
    ranks, distance = found["ranks"], float(found["critical_difference"])
    groups = join_groups(list(ranks.values()), distance)
    names = [wrap_name(name, 30) for name in ranks]
    first = 0.7 * len(groups) + 1.2
    places, total = find_centres(names)
    places = places + first
    figure = make_figure(SINGLE, 0.16 * (total + first + 3.2) + 0.55)
    axes = figure.subplots()
    palette = assign_colours(contents)
    axes.set_xlim(0.8, max(len(ranks), 1 + distance) + 0.2)
    axes.set_ylim(total + first - 0.4, -2.6)
    for (name, rank), place in zip(ranks.items(), places, strict=True):
        axes.plot([axes.get_xlim()[0], rank, rank], [place, place, 0], color=palette[name], linewidth=1)
        axes.plot(rank, 0, "o", color=palette[name], markersize=4, clip_on=False, zorder=3)
    for level, (low, high) in enumerate(groups):
        ends, heights = [low - 0.04, high + 0.04], [0.7 * (level + 1)] * 2
        axes.plot(ends, heights, color=DARK, linewidth=2.5, solid_capstyle="butt")
    _draw_rank_axis(axes, distance)
    texts = [f"{name}  {rank:.2f}" for name, rank in zip(names, ranks.values(), strict=True)]
    name_rows(axes, texts, [palette[name] for name in ranks], places, linespacing=1.0)
    count = contents.find_statistic(next(iter(ranks)), "dice", "rank")["n"]
    title = f"Mean rank per {find_unit(contents)} by Dice, 1 is best (n = {count:.0f})\n"
    title += "Bars: not separated by Nemenyi's test. It asks about ranks,\n"
    title += "the tables about mean Dice, so groups may differ"
    figure.suptitle(title, fontsize=7)
    return figure


def join_groups(ranks: list[float], distance: float) -> list[tuple[float, float]]:
    """Return the first and last of each largest run of `ranks` (ascending) within less than `distance`."""
    groups, reached = [], 0
    for first, low in enumerate(ranks):
        last = max(place for place, rank in enumerate(ranks) if rank - low < distance)
        if last > max(first, reached):
            groups.append((low, ranks[last]))
            reached = last
    return groups


def _draw_rank_axis(axes: Axes, distance: float) -> None:
    """Draw the axis of ranks above the diagram, and above that a bar as long as the critical difference."""
    axes.spines["bottom"].set_visible(False)
    axes.spines["top"].set(visible=True, position=("data", 0))
    axes.xaxis.tick_top()
    axes.xaxis.set_major_locator(MultipleLocator(1))
    axes.plot([1, 1 + distance], [-2.1, -2.1], "|-", color=DARK, markersize=4, linewidth=1)
    look = {"textcoords": "offset points", "va": "bottom", "fontsize": 6.5}
    axes.annotate(f"critical difference {distance:.2f}", (1, -2.1), (0, 3), **look)


def draw_rank_stability(contents: Contents) -> Figure | None:
    """Draw the ranks that each approach has in bootstrap samples of the patients; None with fewer than three.

    The plot is that of challengeR (Wiesenfarth et al., Scientific Reports 2021), turned so that names of any
    length fit: a row an approach, best on top, and blobs as large as the share of samples with that rank.
    """
    found = resample_ranks(contents)
    return found and draw_blobs(found, assign_colours(contents))


def draw_blobs(found: RankStability, palette: dict[str, str]) -> Figure:
    """Draw the blobs of `draw_rank_stability`, the median rank as a cross, and the middle 95 % as a line."""
    k = len(found.names)
    figure = make_figure(SINGLE, ROW * k + 1.0)
    axes = figure.subplots()
    # The largest blob fits between two rows, and between two ranks beside the names.
    size = 72 * min(0.2, 1.9 / k)  # points
    for place, name in enumerate(found.names):
        ranks = np.flatnonzero(found.shares[place] >= SMALLEST)
        areas = size**2 * found.shares[place, ranks]
        axes.scatter(
            ranks + 1, np.full(len(ranks), place), areas, color=palette[name], alpha=0.55, linewidths=0
        )
        axes.plot([found.low[place], found.high[place]], [place, place], color=DARK, linewidth=0.9)
        axes.plot(found.median[place], place, "x", color=DARK, markersize=4.5, markeredgewidth=1.2)
    texts = [wrap_name(name, 20) for name in found.names]
    name_rows(axes, texts, [palette[name] for name in found.names], fontsize=6.5, linespacing=1.0)
    axes.set(xlim=(0.4, k + 0.6), ylim=(k - 0.4, -0.6), xlabel="rank by mean Dice, 1 is best")
    axes.set_xticks(range(1, k + 1))
    axes.grid()
    middle, low, high = found.tau
    title = f"Ranks in {found.samples:,} bootstrap samples of the patients (n = {found.n})"
    if np.isfinite(middle):
        title += f"\nKendall's τ with the order of the rows: {middle:.2f} [{low:.2f}, {high:.2f}]"
    figure.suptitle(title, fontsize=7)
    look = {"linestyle": "", "marker": "o", "color": "#888888", "markeredgewidth": 0}
    handles = [
        Line2D([], [], **look, markersize=size * share**0.5, label=f"{100 * share:.0f} %")
        for share in LEGEND_SHARES
    ]
    handles.append(Line2D([], [], linestyle="", marker="x", color=DARK, markersize=4.5, label="median"))
    handles.append(Line2D([], [], color=DARK, linewidth=0.9, label="middle 95 %"))
    add_legend_below(figure, handles, "Blob: share of the samples with that rank")
    return figure
