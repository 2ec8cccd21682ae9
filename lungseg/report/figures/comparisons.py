"""Draw the tests between approaches: paired differences of mean Dice, and mean ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MultipleLocator

from lungseg.report.contents import Contents
from lungseg.report.figures.style import (
    DARK,
    DOUBLE,
    SINGLE,
    add_legend_below,
    assign_colours,
    format_n,
    make_figure,
    name_rows,
    wrap_name,
)
from lungseg.report.numbers.comparisons import collect_pairs, read_ranking

ALPHA = 0.05
LINEAR = 0.01  # differences up to this are on a linear scale, larger ones on a logarithmic one
DIFFERENCE_TICKS = (0.01, 0.03, 0.1, 0.3)
MOST_TICKS = 6  # that fit beside one another in one column of a page
MOST_LINES = 50  # of text in one column of a page


@dataclass(frozen=True)
class Line:
    """A row of a forest plot: the name of a block's approach, or of one it is compared with."""

    name: str
    text: str
    pair: Any = None  # the stored difference; None for the first line of a block

    @property
    def height(self) -> int:
        return self.text.count("\n") + 1


def draw_differences(contents: Contents) -> Figure | None:
    """Draw a forest plot of the paired differences of mean Dice: a block per approach, a row per worse one.

    In each pair the better mean comes first, and the best approach is on top. A filled marker means p < .05
    by the permutation test after Holm's correction; a hollow one p >= .05, or not tested. Many pairs take
    both columns of a page.
    """
    pairs = collect_pairs(contents, "dice").dropna(subset=["value"])
    if pairs.empty:
        return None
    columns = _split_forest(pairs)
    tallest = max(sum(line.height for line in column) for column in columns)
    figure = make_figure(SINGLE if len(columns) == 1 else DOUBLE, 0.15 * tallest + 0.95)
    palette = assign_colours(contents.names, contents.baselines)
    for axes, column in zip(figure.subplots(1, len(columns), squeeze=False)[0], columns, strict=True):
        _set_difference_scale(axes, pairs)
        _draw_forest(axes, column, palette)
        axes.set_ylim(tallest - 0.2, -0.8)
        axes.set_xlabel(f"difference of mean Dice,\n95 % interval, {format_n(pairs['n'])}")
    handles = [_make_handle("p < .05 after Holm's correction"), _make_handle("not distinguishable", "white")]
    add_legend_below(figure, handles, f"Scale: linear within ±{LINEAR:g}, logarithmic beyond")
    return figure


def _split_forest(pairs: pd.DataFrame) -> list[list[Line]]:
    """Return the lines from top to bottom, in two columns of whole blocks if there are many."""
    blocks = []
    for name, block in pairs.groupby("approach", sort=False):
        head = Line(name, wrap_name(name, 24) + " minus")
        rest = [Line(pair.other, wrap_name(pair.other, 24), pair) for pair in block.itertuples()]
        blocks.append([head, *rest])
    total = sum(line.height for block in blocks for line in block)
    columns: list[list[Line]] = [[]]
    for block in blocks:
        used = sum(line.height for line in columns[0])
        if total > MOST_LINES and len(columns) == 1 and used >= 0.45 * total:
            columns.append([])
        columns[-1] += block
    return columns


def _draw_forest(axes: Axes, lines: list[Line], palette: dict[str, str]) -> None:
    """Draw a column: markers and intervals in the colour of the block's approach."""
    places, _ = _find_centres([line.text for line in lines])
    for place, line in zip(places, lines, strict=True):
        if line.pair is None:
            axes.axhline(place - line.height / 2, color="#DDDDDD", linewidth=0.5)
            continue
        colour = palette[line.pair.approach]
        axes.plot([line.pair.low, line.pair.high], [place, place], color=colour, linewidth=1.2)
        face = colour if line.pair.p_holm < ALPHA else "white"
        axes.plot(line.pair.value, place, "o", markersize=4, color=colour, markerfacecolor=face)
    axes.axvline(0, color=DARK, linewidth=0.7, zorder=1)
    texts, tones = [line.text for line in lines], [palette[line.name] for line in lines]
    name_rows(axes, texts, tones, places, fontsize=6.5, linespacing=1.0)
    for tick, line in zip(axes.get_yticklabels(), lines, strict=True):
        tick.set_fontweight("bold" if line.pair is None else "normal")


def _find_centres(texts: Sequence[str]) -> tuple[np.ndarray, int]:
    """Return the middles of texts below one another, and the height of all, in lines; 0 is the first line."""
    heights = np.array([text.count("\n") + 1 for text in texts])
    return np.cumsum(heights) - heights + (heights - 1) / 2, int(heights.sum())


def _set_difference_scale(axes: Axes, pairs: pd.DataFrame) -> None:
    """Set a scale on which differences of .01 and of .5 can both be read, with their sign."""
    values = pairs[["value", "low", "high"]].to_numpy(float)
    low, high = min(np.nanmin(values), 0.0), max(np.nanmax(values), 0.0)
    axes.set_xscale("symlog", linthresh=LINEAR)
    nearest = next((tick for tick in DIFFERENCE_TICKS if tick >= high), high)
    axes.set_xlim(min(1.25 * low, -LINEAR / 2), 1.25 * nearest)
    ticks = _choose_difference_ticks(*axes.get_xlim())
    axes.set_xticks(ticks, [_format_difference(tick) for tick in ticks])
    axes.grid(axis="x")


def _choose_difference_ticks(low: float, high: float) -> list[float]:
    """Return the ticks between two ends; only those of whole decades if all would be too many."""
    both = [*(-tick for tick in reversed(DIFFERENCE_TICKS)), 0.0, *DIFFERENCE_TICKS]
    inside = [tick for tick in both if low <= tick <= high]
    return inside if len(inside) <= MOST_TICKS else [tick for tick in inside if abs(tick) in (0, 0.01, 0.1)]


def _format_difference(value: float) -> str:
    return f"{value:+g}".replace("0.", ".").replace("-", "−") if value else "0"


def _make_handle(label: str, face: str = DARK) -> Line2D:
    look = {"linestyle": "", "marker": "o", "markersize": 4, "color": DARK, "markerfacecolor": face}
    return Line2D([], [], **look, label=label)


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
    places, total = _find_centres(names)
    places = places + first
    figure = make_figure(SINGLE, 0.16 * (total + first + 3.2) + 0.3)
    axes = figure.subplots()
    palette = assign_colours(contents.names, contents.baselines)
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
    title = f"Mean rank by Dice, 1 is best (n = {count:.0f})\nJoined: not distinguishable"
    figure.suptitle(f"{title} (Nemenyi test, α = .05)", fontsize=7)
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
