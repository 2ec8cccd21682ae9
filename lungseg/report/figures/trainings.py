"""Draw how approaches do by what they were trained on: a matrix of datasets, and curves of image numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from lungseg.report.contents import Contents, list_further_contents
from lungseg.report.figures.style import DOUBLE, SINGLE, assign_colours, make_figure, wrap_name
from lungseg.report.numbers.trainings import collect_learning, collect_transfer

ROW, MARGIN = 0.32, 0.75  # inches: a row of a matrix, and all around it
MOST_BESIDE = 4  # matrices in a row
LEAST_RANGE = 0.02  # of the colours: differences below it are pale


def draw_transfer(contents: Contents) -> Figure | None:
    """Draw a matrix per approach: trained on (rows), tested on (columns), with the mean Dice in each cell.

    The colour is the difference from the same approach trained on the dataset that is tested.
    """
    if contents.scores["train_set"].nunique() < 2:
        return None
    frame = collect_transfer([contents, *list_further_contents(contents)])
    if frame.empty:
        return None
    families = list(dict.fromkeys(frame["family"]))
    tables = {name: _pivot(frame[frame["family"] == name]) for name in families}
    gaps = {name: table - _find_own(table) for name, table in tables.items()}
    values = np.concatenate([gap.to_numpy(float).ravel() for gap in gaps.values()])
    limit = max(LEAST_RANGE, float(np.nanmax(np.abs(values), initial=0)))
    columns = min(MOST_BESIDE, len(families))
    rows = -(-len(families) // columns)
    height = rows * (MARGIN + ROW * max(len(table) for table in tables.values())) + 0.2
    figure = make_figure(DOUBLE, height)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[len(families) :]:
        axes.set_axis_off()
    for axes, name in zip(panels, families, strict=False):
        image = _draw_matrix(axes, tables[name], gaps[name], limit)
        axes.set_title(wrap_name(name, 26), fontsize=7.5)
    for axes in panels[::columns]:
        axes.set_ylabel("trained on")
    bar = figure.colorbar(image, ax=list(panels), shrink=0.8, aspect=25, pad=0.01)
    bar.set_label("Dice minus that of training\non the tested dataset", fontsize=7)
    return figure


def _pivot(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean Dice by training dataset (rows) and test set (columns), in the order of the spec."""
    table = frame.pivot_table(index="train_set", columns="dataset", values="dice", sort=False)
    return table[list(dict.fromkeys(frame["dataset"]))]


def _find_own(table: pd.DataFrame) -> pd.Series:
    """The Dice of training on the tested dataset, by test set; NaN where no row was."""
    return pd.Series({name: table[name].get(name, np.nan) for name in table.columns})


def _draw_matrix(axes: Axes, table: pd.DataFrame, gap: pd.DataFrame, limit: float) -> AxesImage:
    image = axes.imshow(gap.to_numpy(float), cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
    for (row, column), value in np.ndenumerate(table.to_numpy(float)):
        pale = not abs(gap.iloc[row, column]) > 0.6 * limit
        colour = "#222222" if pale else "white"
        axes.text(column, row, f"{value:.3f}", ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(len(table.columns)), [wrap_name(name, 10) for name in table.columns])
    axes.set_yticks(range(len(table.index)), [wrap_name(name, 12) for name in table.index])
    axes.set_xlabel("tested on")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return image


def draw_learning(contents: Contents) -> Figure | None:
    """Draw mean Dice against the number of training images: a line per approach with its 95 % interval.

    A dot is the mean of one draw of the training images.
    """
    frame = collect_learning(contents)
    if frame.empty:
        return None
    figure = make_figure(SINGLE * 1.35, 3.0)
    axes = figure.subplots()
    palette = assign_colours(contents)
    draws = contents.scores.groupby(["approach", "seed"])["dice"].mean()
    for family, part in frame.groupby("family", sort=False):
        colour = palette[part["approach"].iloc[-1]]
        axes.fill_between(
            part["n_train"], part["dice_low"], part["dice_high"], color=colour, alpha=0.15, lw=0
        )
        axes.plot(part["n_train"], part["dice"], color=colour, label=wrap_name(family, 30))
        for row in part.to_dict("records"):
            dots = draws[row["approach"]]
            axes.plot([row["n_train"]] * len(dots), dots, ".", color=colour, markersize=3)
    sizes = sorted(frame["n_train"].unique())
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    axes.set_xlabel("training images")
    axes.set_ylabel("mean Dice")
    axes.grid(axis="y")
    axes.legend(loc="lower right")
    return figure
