"""Draw the curves of training."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from lungseg.report.contents import Contents
from lungseg.report.figures.style import DOUBLE, assign_colours, darken, make_figure

MEASURES = ("loss", "accuracy", "dice")
LINES = {"train": {"linestyle": (0, (3, 1.5)), "alpha": 0.75}, "validation": {"linestyle": "-"}}


def draw_curves(contents: Contents) -> Figure | None:
    """Draw loss, accuracy and validation Dice against rounds or epochs: a row of panels per approach.

    An approach that is fitted in one step has no curve and is left out.
    """
    history = contents.history
    columns = [f"{part}_{measure}" for part in ("train", "validation") for measure in MEASURES]
    columns = [column for column in columns if column in history and history[column].notna().any()]
    measures = [measure for measure in MEASURES if any(column.endswith(measure) for column in columns)]
    shown = history[columns].notna().any(axis=1) & (history["step"] > 1)
    recorded = history[shown]["approach"] if columns else []
    names = [name for name in contents.names if name in set(recorded)]
    if not names:
        return None
    figure = make_figure(DOUBLE * (len(measures) + 0.4) / 3.4, 1.4 * len(names) + 0.3)
    palette = assign_colours(contents.names, contents.baselines)
    grid = figure.subplots(len(names), len(measures), squeeze=False)
    for row, name in zip(grid, names, strict=True):
        row[0].set_title(name, color=darken(palette[name]), fontweight="bold", loc="left")
        fits = history[history["approach"] == name]
        for axes, measure in zip(row, measures, strict=True):
            _draw_curve_panel(axes, fits, measure, palette[name])
    handles = [Line2D([], [], color="#444444", **LINES[kind], label=kind) for kind in ("train", "validation")]
    figure.legend(handles=handles, loc="outside upper right", ncols=2)
    return figure


def _draw_curve_panel(axes: Axes, rows: pd.DataFrame, measure: str, colour: str) -> None:
    fits = rows.groupby(["fold", "seed"], sort=True)
    width, drawn = 1.2 if fits.ngroups == 1 else 0.7, False
    for kind, look in LINES.items():
        column = f"{kind}_{measure}"
        if column not in rows:
            continue
        for _, fit in fits:
            line = fit[["step", column]].dropna().sort_values("step")
            drawn |= len(line) > 0
            marker = "." if len(line) == 1 else None
            axes.plot(line["step"], line[column], color=colour, linewidth=width, marker=marker, **look)
    if not drawn:
        axes.axis("off")
        return
    axes.set_xlabel(str(rows["unit"].iloc[0]), labelpad=1)
    axes.set_ylabel("validation Dice" if measure == "dice" else measure)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.grid(axis="y")
