"""The figure of an ablation: a panel for each group of rows that the spec names."""

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
    dice_scale,
    n_text,
    new_figure,
    wrap_name,
)
from lungseg.report.markup import score
from lungseg.report.numbers.ablation import ablation_frame

ROW, HEAD = 0.19, 0.62  # inches: a row, and what a panel needs for its title and axis
MOST_INCHES = 4.5  # of panels below one another in one column
LETTERS = 26  # on a line of a name


def ablation(contents: Contents) -> Figure | None:
    """Mean Dice of each row with its 95 % interval, a panel per group, the spec's first row on top.

    Each panel has a scale of its own: what one part adds is small beside what a baseline lacks.
    """
    frame = ablation_frame(contents)
    if frame.empty:
        return None
    columns = _columns([rows for _, rows in frame.groupby("group", sort=False)])
    heights = [[_height(rows) for rows in column] for column in columns]
    tallest = max(map(sum, heights))
    figure = new_figure(DOUBLE, tallest + 0.3)
    grid = figure.add_gridspec(1, len(columns))
    for place, (column, inches) in enumerate(zip(columns, heights, strict=True)):
        # What a shorter column leaves stays empty, so that rows are equally far apart in both.
        rest = tallest - sum(inches)
        ratios = [*inches, rest] if rest > 0 else inches
        cells = grid[place].subgridspec(len(ratios), 1, height_ratios=ratios)
        for number, rows in enumerate(column):
            _panel(figure.add_subplot(cells[number]), rows, contents.baselines)
    scale = f"mean Dice (logarithmic in 1 − Dice) with its 95 % interval, {n_text(frame['n'])}"
    figure.supxlabel(scale, fontsize=8)
    return figure


def _height(rows: pd.DataFrame) -> float:
    lines = sum(wrap_name(name, LETTERS).count("\n") + 1 for name in rows["approach"])
    return ROW * lines + HEAD


def _columns(panels: list[pd.DataFrame]) -> list[list[pd.DataFrame]]:
    """The panels below one another, in two columns as even as their order allows if one would be too tall."""
    heights = [_height(rows) for rows in panels]
    if sum(heights) <= MOST_INCHES or len(panels) == 1:
        return [panels]
    cut = min(range(1, len(panels)), key=lambda place: max(sum(heights[:place]), sum(heights[place:])))
    return [panels[:cut], panels[cut:]]


def _panel(axes: Axes, rows: pd.DataFrame, baselines: set[str]) -> None:
    dice_scale(axes, "x", rows[["dice", "dice_low", "dice_high"]].to_numpy(float).ravel())
    for place, row in enumerate(rows.itertuples()):
        colour = GREYS[0] if row.approach in baselines else PALETTE[0]
        axes.plot([row.dice_low, row.dice_high], [place, place], color=colour, linewidth=1.4)
        axes.plot(row.dice, place, "o", color=colour, markersize=4)
        axes.text(
            1.02,
            place,
            score(row.dice).removeprefix("0"),
            transform=axes.get_yaxis_transform(),
            fontsize=6.5,
            va="center",
            color=DARK,
        )
    axes.set_yticks(range(len(rows)), [wrap_name(name, LETTERS) for name in rows["approach"]], linespacing=1)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_title(rows["group"].iloc[0], loc="left", fontweight="bold")
