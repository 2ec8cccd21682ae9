"""Draw an ablation: a panel for each group of rows that the spec names."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lungseg.report.contents import Contents
from lungseg.report.figures.style import (
    DARK,
    DOUBLE,
    GREYS,
    PALETTE,
    format_n,
    make_figure,
    name_rows,
    set_dice_scale,
    wrap_name,
)
from lungseg.report.markup import format_score
from lungseg.report.numbers.ablation import collect_ablation

ROW, HEAD = 0.19, 0.62  # inches: of a row, and of a panel's title and axis
MOST_INCHES = 4.5  # of panels in one column; more take two
LETTERS = 26  # on a line of a name


def draw_ablation(contents: Contents) -> Figure | None:
    """Draw the mean Dice of each row with its 95 % interval, a panel per group, the spec's first row on top.

    Each panel has its own scale: the differences within a group are small beside those between groups.
    """
    frame = collect_ablation(contents)
    if frame.empty:
        return None
    columns = _split_columns([rows for _, rows in frame.groupby("group", sort=False)])
    heights = [[_compute_height(rows) for rows in column] for column in columns]
    tallest = max(map(sum, heights))
    figure = make_figure(DOUBLE, tallest + 0.3)
    grid = figure.add_gridspec(1, len(columns))
    for place, (column, inches) in enumerate(zip(columns, heights, strict=True)):
        # The end of a shorter column stays empty, so that rows have the same height in both.
        rest = tallest - sum(inches)
        ratios = [*inches, rest] if rest > 0 else inches
        cells = grid[place].subgridspec(len(ratios), 1, height_ratios=ratios)
        for number, rows in enumerate(column):
            _draw_panel(figure.add_subplot(cells[number]), rows, contents.baselines)
    scale = f"mean Dice (logarithmic in 1 − Dice) with its 95 % interval, {format_n(frame['n'])}"
    figure.supxlabel(scale, fontsize=8)
    return figure


def _compute_height(rows: pd.DataFrame) -> float:
    lines = sum(wrap_name(name, LETTERS).count("\n") + 1 for name in rows["approach"])
    return ROW * lines + HEAD


def _split_columns(panels: list[pd.DataFrame]) -> list[list[pd.DataFrame]]:
    """Put the panels into one column, or into two of about the same height if one would be too tall."""
    heights = [_compute_height(rows) for rows in panels]
    if sum(heights) <= MOST_INCHES or len(panels) == 1:
        return [panels]
    cut = min(range(1, len(panels)), key=lambda place: max(sum(heights[:place]), sum(heights[place:])))
    return [panels[:cut], panels[cut:]]


def _draw_panel(axes: Axes, rows: pd.DataFrame, baselines: set[str]) -> None:
    set_dice_scale(axes, "x", rows[["dice", "dice_low", "dice_high"]].to_numpy(float).ravel())
    for place, row in enumerate(rows.itertuples()):
        colour = GREYS[0] if row.approach in baselines else PALETTE[0]
        axes.plot([row.dice_low, row.dice_high], [place, place], color=colour, linewidth=1.4)
        axes.plot(row.dice, place, "o", color=colour, markersize=4)
        look = {"fontsize": 6.5, "va": "center", "color": DARK, "transform": axes.get_yaxis_transform()}
        axes.text(1.02, place, format_score(row.dice).removeprefix("0"), **look)
    texts = [wrap_name(name, LETTERS) for name in rows["approach"]]
    name_rows(axes, texts, ["black"] * len(rows), linespacing=1)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_title(rows["group"].iloc[0], loc="left", fontweight="bold")
