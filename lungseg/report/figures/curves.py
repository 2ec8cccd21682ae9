"""Draw the curves of training."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from lungseg.report.contents import Contents
from lungseg.report.figures.style import DOUBLE, add_legend_below, assign_colours, darken, make_figure

MEASURES = ("loss", "accuracy", "dice")
LINES = {"train": {"linestyle": (0, (3, 1.5)), "alpha": 0.75}, "validation": {"linestyle": "-"}}
LABELS = {"loss": "loss", "accuracy": "pixel accuracy", "dice": "validation Dice"}
KEPT = {"marker": "o", "markersize": 3.5, "markerfacecolor": "white", "linestyle": ""}
MOST_ROWS = 8
MOST_INCHES = 8.2  # of all rows


def draw_curves(contents: Contents) -> Figure | None:
    """Draw loss, pixel accuracy and validation Dice against rounds or epochs: a row of panels per approach.

    The step whose weights were kept is marked. An approach that is fitted in one step has no curve and is
    left out; of more than MOST_ROWS approaches, the best are drawn.
    """
    history = contents.history
    later = history[history["step"] > 1]
    columns = [column for measure in MEASURES for column in _find_columns(later, measure).values()]
    recorded = later[later[columns].notna().any(axis=1)]["approach"]
    best = contents.sort_names(recorded)[:MOST_ROWS]
    names = [name for name in contents.names if name in best]
    if not names:
        return None
    figure = make_figure(DOUBLE, min(1.4, MOST_INCHES / len(names)) * len(names) + 0.3)
    palette = assign_colours(contents)
    grid = figure.add_gridspec(len(names), 1)
    for place, name in enumerate(names):
        fits = history[history["approach"] == name]
        measures = [measure for measure in MEASURES if _find_columns(fits, measure)]
        cells = grid[place].subgridspec(1, len(measures))
        row = [figure.add_subplot(cells[column]) for column in range(len(measures))]
        row[0].set_title(name, color=darken(palette[name]), fontweight="bold", loc="left")
        kept = contents.training[contents.training["approach"] == name]
        for axes, measure in zip(row, measures, strict=True):
            _draw_curve_panel(axes, fits, measure, kept, palette[name])
    handles = [Line2D([], [], color="#444444", **LINES[kind], label=kind) for kind in LINES]
    handles.append(Line2D([], [], color="#444444", **KEPT, label="step that was kept"))
    total = recorded.nunique()
    few = f"Best {len(names)} of {total} approaches with a curve" if len(names) < total else None
    add_legend_below(figure, handles, few)
    return figure


def _find_columns(rows: pd.DataFrame, measure: str) -> dict[str, str]:
    """Return the columns that hold a measure by kind of images, "train" first."""
    columns = {kind: f"{kind}_{measure}" for kind in LINES}
    return {kind: name for kind, name in columns.items() if name in rows and rows[name].notna().any()}


def _draw_curve_panel(axes: Axes, rows: pd.DataFrame, measure: str, kept: pd.DataFrame, colour: str) -> None:
    steps = kept.set_index(["fold", "seed"])["best_step"]
    fits = rows.groupby(["fold", "seed"], sort=True)
    width = 1.2 if fits.ngroups == 1 else 0.7
    for kind, column in _find_columns(rows, measure).items():
        for fit, part in fits:
            line = part[["step", column]].dropna().sort_values("step")
            marker = "." if len(line) == 1 else None
            axes.plot(line["step"], line[column], color=colour, linewidth=width, marker=marker, **LINES[kind])
            best = line[line["step"] == steps.get(fit)]
            if kind == "validation":
                axes.plot(best["step"], best[column], color=colour, **KEPT, zorder=3)
    axes.set_xlabel(str(rows["unit"].iloc[0]), labelpad=1, fontsize=7)
    axes.set_ylabel(LABELS[measure], fontsize=7)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.grid(axis="y")
