"""Draw systematic errors: lungs too large or too small, probabilities too sure or too unsure."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from lungseg.report.contents import Contents
from lungseg.report.figures.style import (
    DARK,
    DOUBLE,
    SINGLE,
    add_legend_below,
    assign_colours,
    darken,
    describe_n,
    make_figure,
    wrap_name,
)
from lungseg.report.markup import format_signed
from lungseg.report.numbers.quality import compute_calibration_error

MOST_PANELS = 6
FEWEST = 0.001  # of an approach's pixels: a bin with fewer isn't drawn, for its share of lung is chance
NORMAL_95 = 1.96


def draw_lung_area(contents: Contents) -> Figure | None:
    """Draw Bland-Altman plots of the lung area, a panel for each of the best approaches.

    Bland and Altman (Lancet 1986): difference against mean, with the mean difference (bias) and the limits of
    agreement, bias +- 1.96 SD, between which 95 % of normal differences lie. Baselines are drawn only if
    there is nothing else.
    """
    areas = collect_areas(contents.scores)
    known = contents.sort_names(areas["approach"])
    names = ([name for name in known if name not in contents.baselines] or known)[:MOST_PANELS]
    if not names:
        return None
    rows = 2 if len(names) == MOST_PANELS else 1
    columns = len(names) // rows
    figure = make_figure(SINGLE if columns < 3 else DOUBLE, 1.6 * rows + 0.45)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    palette = assign_colours(contents)
    for axes, name in zip(grid.flat, names, strict=True):
        _draw_agreement(axes, areas[areas["approach"] == name], palette[name])
        look = {"color": darken(palette[name]), "fontsize": 7, "fontweight": "bold"}
        axes.set_title(wrap_name(name, 22), loc="left", pad=20, **look)
    count = describe_n(contents, areas[areas["approach"].isin(names)].groupby("approach").size())
    figure.supxlabel(f"mean of true and predicted lung area,\n% of the image; {count}", fontsize=8)
    figure.supylabel("predicted − true area,\n% of the image", fontsize=8, multialignment="center")
    if len(names) < len(known):
        without = ", baselines left out" if contents.baselines & set(known) else ""
        figure.suptitle(f"Best {len(names)} of {len(known)} approaches{without}", fontsize=7)
    return figure


def collect_areas(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the lung area of each image by approach, in % of the image, averaged over seeds.

    Columns: approach; mean, of the true and the predicted area; difference, predicted minus true.
    """
    counts = scores[["tp", "fp", "fn", "tn"]].astype(float)
    total = counts.sum(axis=1, skipna=False).where(lambda pixels: pixels > 0)
    areas = scores[["approach", "image_id"]].assign(
        predicted=100 * (counts["tp"] + counts["fp"]) / total,
        true=100 * (counts["tp"] + counts["fn"]) / total,
    )
    by_image = areas.dropna().groupby(["approach", "image_id"], sort=False).mean().reset_index()
    predicted, true = by_image["predicted"], by_image["true"]
    return by_image[["approach"]].assign(mean=(predicted + true) / 2, difference=predicted - true)


def _draw_agreement(axes: Axes, areas: pd.DataFrame, colour: str) -> None:
    """Draw points, the bias as a line, the limits of agreement dashed, and their numbers above."""
    differences = areas["difference"]
    bias, spread = differences.mean(), NORMAL_95 * differences.std(ddof=1)
    axes.scatter(areas["mean"], differences, s=6, color=colour, alpha=0.5, linewidths=0)
    axes.axhline(0, color="#AAAAAA", linewidth=0.6, zorder=0)
    axes.axhline(bias, color=DARK, linewidth=1)
    text = f"bias {format_signed(bias)} % of the image"
    if np.isfinite(spread):
        for limit in (bias - spread, bias + spread):
            axes.axhline(limit, color=DARK, linewidth=0.8, linestyle=(0, (4, 2)))
        text += f"\nlimits {format_signed(bias - spread)} %, {format_signed(bias + spread)} %"
    axes.text(0, 1.03, text.replace("-", "−"), transform=axes.transAxes, fontsize=6, va="bottom", color=DARK)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))


def draw_reliability(contents: Contents) -> Figure | None:
    """Draw a reliability diagram: the share of lung among pixels by their probability, and their number.

    Bins with less than FEWEST of an approach's pixels are left out.
    """
    bins = collect_reliability(contents.calibration)
    bins["part"] = bins["count"] / bins.groupby("approach")["count"].transform("sum")
    bins = bins[bins["part"] >= FEWEST]
    names = contents.sort_names(bins["approach"])
    if not names:
        return None
    figure = make_figure(DOUBLE, 3.3)
    left, right = figure.subplots(1, 2)
    palette = assign_colours(contents)
    handles = []
    left.plot([0, 1], [0, 1], color="#888888", linewidth=0.8, linestyle=(0, (4, 2)))
    look = {"color": "#666666", "fontsize": 6.5, "rotation": 45, "rotation_mode": "anchor"}
    left.text(0.72, 0.74, "calibrated", transform_rotates_text=True, **look)
    for name in names:
        part = bins[bins["approach"] == name]
        look = {"color": palette[name], "marker": "o", "markersize": 2.5, "linewidth": 1}
        left.plot(part["mean_probability"], part["lung_share"], **look)
        right.plot(part["mean_probability"], 100 * part["part"], **look)
        error = 100 * compute_calibration_error(contents.calibration, name)
        handles.append(Line2D([], [], **look, label=f"{name}: ECE {error:.1f} %"))
    left.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="true share of lung pixels")
    right.set(xlim=(-0.02, 1.02), yscale="log", ylim=(100 * FEWEST / 1.3, 130), ylabel="pixels, %")
    right.yaxis.set_major_locator(LogLocator(numticks=6))
    right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    right.yaxis.set_minor_formatter(NullFormatter())
    for axes in (left, right):
        axes.set_xlabel("mean predicted probability of lung")
        axes.grid()
    note = "Bins with less than 0.1 % of an approach's pixels are left out"
    figure.suptitle(f"ECE: expected calibration error. {note}", fontsize=7)
    add_legend_below(figure, handles)
    return figure


def collect_reliability(calibration: pd.DataFrame) -> pd.DataFrame:
    """Return the bins with pixels, folds and seeds together: approach, bin, count, and the two means."""
    held = calibration[calibration["count"] > 0]
    means = ["mean_probability", "lung_share"]
    sums = held[["approach", "bin", "count"]].join(held[means].mul(held["count"], axis=0))
    bins = sums.groupby(["approach", "bin"], sort=True).sum().reset_index()
    bins[means] = bins[means].div(bins["count"], axis=0)
    return bins
