"""Figures of the tests between approaches: paired differences of mean Dice, and mean ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MultipleLocator, NullFormatter

from lungseg.report.contents import Contents
from lungseg.report.figures.style import (
    DARK,
    DOUBLE,
    SINGLE,
    colours,
    ink,
    legend_below,
    n_text,
    new_figure,
    wrap_name,
)
from lungseg.report.numbers.comparisons import paired_frame, ranking

ALPHA = 0.05
LINEAR = 0.01  # differences up to this are drawn on a linear scale, larger ones on a logarithmic one
DIFFERENCE_TICKS = (0.01, 0.03, 0.1, 0.3)
MOST_TICKS = 6  # that fit beside one another in one column of a page
MOST_LINES = 50  # of text in one column of a page


@dataclass(frozen=True)
class Line:
    """A line beside a forest plot: the name of a block, or of what is taken off it, with that difference."""

    name: str
    text: str
    pair: Any = None  # None: the line heads a block

    @property
    def height(self) -> int:
        return _height(self.text)


def differences(contents: Contents) -> Figure | None:
    """Forest plot of the paired differences of mean Dice: a block per approach, a row per worse one.

    Each pair stands with its better mean first, the best approach on top. A filled marker: p < .05 by the
    permutation test after Holm's correction; a hollow one: not so, or not tested. More than fits in one
    column of a page takes both.
    """
    pairs = paired_frame(contents, "dice").dropna(subset=["value"])
    if pairs.empty:
        return None
    columns = _forest_columns(pairs)
    tallest = max(sum(line.height for line in column) for column in columns)
    figure = new_figure(SINGLE if len(columns) == 1 else DOUBLE, 0.15 * tallest + 0.95)
    palette = colours(contents.names, contents.baselines)
    for axes, column in zip(figure.subplots(1, len(columns), squeeze=False)[0], columns, strict=True):
        _difference_scale(axes, pairs)
        _forest(axes, column, palette)
        axes.set_ylim(tallest - 0.2, -0.8)
        axes.set_xlabel(f"difference of mean Dice,\n95 % interval, {n_text(pairs['n'])}")
    handles = [_holm_handle("p < .05 after Holm's correction"), _holm_handle("not told apart", "white")]
    legend_below(figure, handles, f"Scale: linear within ±{LINEAR:g}, logarithmic beyond")
    return figure


def _forest_columns(pairs: pd.DataFrame) -> list[list[Line]]:
    """The lines from top to bottom, in two columns of whole blocks if they are too many for one."""
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


def _forest(axes: Axes, lines: list[Line], palette: dict[str, str]) -> None:
    """Draws a column: markers and intervals in the colour of the approach whose block it is."""
    places, _ = _centres([line.text for line in lines])
    for place, line in zip(places, lines, strict=True):
        if line.pair is None:
            axes.axhline(place - line.height / 2, color="#DDDDDD", linewidth=0.5)
            continue
        colour = palette[line.pair.approach]
        axes.plot([line.pair.low, line.pair.high], [place, place], color=colour, linewidth=1.2)
        face = colour if line.pair.p_holm < ALPHA else "white"
        axes.plot(line.pair.value, place, "o", markersize=4, color=colour, markerfacecolor=face)
    axes.axvline(0, color=DARK, linewidth=0.7, zorder=1)
    axes.set_yticks(places, [line.text for line in lines], fontsize=6.5)
    for tick, line in zip(axes.get_yticklabels(), lines, strict=True):
        weight = "bold" if line.pair is None else "normal"
        tick.set(color=ink(palette[line.name]), fontweight=weight, linespacing=1.0)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _height(text: str) -> int:
    return text.count("\n") + 1


def _centres(texts: Sequence[str]) -> tuple[np.ndarray, int]:
    """Where the middles of texts below one another lie, and how high all are, in lines; 0 is the first."""
    heights = np.array([_height(text) for text in texts])
    return np.cumsum(heights) - heights + (heights - 1) / 2, int(heights.sum())


def _difference_scale(axes: Axes, pairs: pd.DataFrame) -> None:
    """Steps of a hundredth and of a half both show, and so does their sign."""
    values = pairs[["value", "low", "high"]].to_numpy(float)
    low, high = min(np.nanmin(values), 0.0), max(np.nanmax(values), 0.0)
    axes.set_xscale("symlog", linthresh=LINEAR)
    nearest = next((tick for tick in DIFFERENCE_TICKS if tick >= high), high)
    axes.set_xlim(min(1.25 * low, -LINEAR / 2), 1.25 * nearest)
    axes.xaxis.set_major_locator(FixedLocator(_difference_ticks(*axes.get_xlim())))
    axes.xaxis.set_major_formatter(FuncFormatter(_difference_label))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="x")


def _difference_ticks(low: float, high: float) -> list[float]:
    """The ticks between two ends; those of whole decades alone where all would run into one another."""
    both = [*(-tick for tick in reversed(DIFFERENCE_TICKS)), 0.0, *DIFFERENCE_TICKS]
    inside = [tick for tick in both if low <= tick <= high]
    return inside if len(inside) <= MOST_TICKS else [tick for tick in inside if abs(tick) in (0, 0.01, 0.1)]


def _difference_label(value: float, _: int) -> str:
    return f"{value:+g}".replace("0.", ".").replace("-", "−") if value else "0"


def _holm_handle(label: str, face: str = DARK) -> Line2D:
    look = {"linestyle": "", "marker": "o", "markersize": 4, "color": DARK, "markerfacecolor": face}
    return Line2D([], [], **look, label=label)


def critical_difference(contents: Contents) -> Figure | None:
    """Mean ranks by Dice on one axis, bars joining what the Nemenyi test can't tell apart (Demsar 2006).

    All names stand on the left, each joined to its rank: names of any length fit in one column.
    """
    found = ranking(contents)
    if not found or pd.isna(found["critical_difference"]):
        return None
    ranks, distance = found["ranks"], float(found["critical_difference"])
    groups = joined_groups(list(ranks.values()), distance)
    names = [wrap_name(name, 30) for name in ranks]
    first = 0.7 * len(groups) + 1.2
    places, total = _centres(names)
    places = places + first
    figure = new_figure(SINGLE, 0.16 * (total + first + 3.2) + 0.3)
    axes = figure.subplots()
    palette = colours(contents.names, contents.baselines)
    axes.set_xlim(0.8, max(len(ranks), 1 + distance) + 0.2)
    axes.set_ylim(total + first - 0.4, -2.6)
    for (name, rank), place in zip(ranks.items(), places, strict=True):
        axes.plot([axes.get_xlim()[0], rank, rank], [place, place, 0], color=palette[name], linewidth=1)
        axes.plot(rank, 0, "o", color=palette[name], markersize=4, clip_on=False, zorder=3)
    for level, (low, high) in enumerate(groups):
        height = 0.7 * (level + 1)
        ends = [low - 0.04, high + 0.04]
        axes.plot(ends, [height, height], color=DARK, linewidth=2.5, solid_capstyle="butt")
    _rank_axis(axes, distance)
    texts = [f"{name}  {rank:.2f}" for name, rank in zip(names, ranks.values(), strict=True)]
    axes.set_yticks(places, texts, linespacing=1.0)
    for tick, name in zip(axes.get_yticklabels(), ranks, strict=True):
        tick.set_color(ink(palette[name]))
    count = contents.statistic(next(iter(ranks)), "dice", "rank")["n"]
    title = f"Mean rank by Dice, 1 is best (n = {count:.0f})\nJoined: not told apart (Nemenyi test, α = .05)"
    figure.suptitle(title, fontsize=7)
    return figure


def joined_groups(ranks: list[float], distance: float) -> list[tuple[float, float]]:
    """First and last of each largest run of `ranks` (ascending) that lie less than `distance` apart."""
    groups, reached = [], 0
    for first, low in enumerate(ranks):
        last = max(place for place, rank in enumerate(ranks) if rank - low < distance)
        if last > max(first, reached):
            groups.append((low, ranks[last]))
            reached = last
    return groups


def _rank_axis(axes: Axes, distance: float) -> None:
    """The axis of ranks above the diagram, and the critical difference as a bar of its length above that."""
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.spines["top"].set(visible=True, position=("data", 0))
    axes.xaxis.tick_top()
    axes.xaxis.set_major_locator(MultipleLocator(1))
    axes.tick_params(axis="y", length=0)
    axes.plot([1, 1 + distance], [-2.1, -2.1], "|-", color=DARK, markersize=4, linewidth=1)
    axes.annotate(
        f"critical difference {distance:.2f}",
        (1, -2.1),
        (0, 3),
        textcoords="offset points",
        va="bottom",
        fontsize=6.5,
    )
