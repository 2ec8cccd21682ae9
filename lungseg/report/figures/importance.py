"""Draw what fitted trees read: by kind, by scale and layer of a pyramid, and channel by channel."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec

from lungseg.report.contents import Contents
from lungseg.report.figures.style import DOUBLE, assign_colours, make_figure, wrap_name
from lungseg.report.numbers.importance import average_importance, sum_by_block, sum_by_kind

EXPLAINED = {"map 1": "what stage 1 predicted", "shape prior": "the mask, estimated from the small image"}
ROW = 1.6  # inches of a stage or of a panel of channels
DARK_CELL = 0.6  # of the largest share; cells above it have white letters


def draw_importance(contents: Contents) -> Figure | None:
    """Draw shares of the total gain of up to three approaches: a row of panels a stage, then one of channels.

    These are, by mean Dice, the best that reads several kinds of columns (features, coordinates, earlier
    maps ...) and the best that reads columns of one kind, such as a layer's channels. The third reads the
    most from the most layers and scales: an approach with an earlier map reads little from features.
    """
    names = contents.sort_names(contents.importance["approach"])
    frames = {name: average_importance(contents, name) for name in names}
    several = [name for name in names if len(set(frames[name]["kind"])) > 1]
    single = next((name for name in names if len(set(frames[name]["kind"])) == 1), None)
    most_read = sorted(several, key=lambda name: _measure_features(frames[name]))[-1:]
    shown = dict.fromkeys([*several[:1], *most_read])
    stages = [(name, part) for name in shown for _, part in frames[name].groupby("stage", sort=False)]
    rows = len(stages) + (single is not None)
    if not rows:
        return None
    figure = make_figure(DOUBLE, ROW * rows + 0.4)
    grid = figure.add_gridspec(rows, 1)
    palette = assign_colours(contents)
    blocks = [sum_by_block(stage).max(axis=None) for _, stage in stages if stage["layer"].notna().any()]
    for place, (name, stage) in enumerate(stages):
        _draw_stage(figure, grid[place], stage, name, palette[name], max(blocks, default=0))
    if single is not None:
        _draw_columns(figure.add_subplot(grid[rows - 1]), frames[single], single, palette[single])
    kinds = {kind for _, stage in stages for kind in stage["kind"]}
    notes = [f"{kind}: {text}" for kind, text in EXPLAINED.items() if kind in kinds]
    title = "How much the trees use each input: % of the loss that all their splits remove (gain)"
    figure.suptitle("\n".join([title, "; ".join(notes)] if notes else [title]))
    return figure


def _measure_features(frame: pd.DataFrame) -> tuple[int, float]:
    """Count the layers at their scales that are read, and compute the share of all of them."""
    held = frame[frame["layer"].notna()]
    return held["kind"].nunique(), held["share"].sum() / frame["stage"].nunique()


def _draw_stage(
    figure: Figure, cell: SubplotSpec, stage: pd.DataFrame, name: str, colour: str, most: float
) -> None:
    """Draw bars by kind, and beside them the layers by scale if the stage reads any; `most` is darkest."""
    halves = cell.subgridspec(1, 2)
    axes = figure.add_subplot(halves[0])
    axes.set_title(wrap_name(f"{name}, {stage['stage'].iloc[0]}", 50), loc="left", fontweight="bold")
    _draw_kinds(axes, sum_by_kind(stage), colour)
    if stage["layer"].notna().any():
        axes = figure.add_subplot(halves[1])
        axes.set_title("its features by layer and scale, %", loc="left", fontsize=7)
        _draw_blocks(axes, sum_by_block(stage), most)


def _draw_kinds(axes: Axes, shares: pd.Series, colour: str) -> None:
    places = range(len(shares))
    axes.barh(places, 100 * shares, color=colour, height=0.7)
    for place, share in zip(places, shares, strict=True):
        axes.text(100 * share + 1, place, f"{100 * share:.1f}", va="center", fontsize=6.5)
    axes.set_yticks(places, list(shares.index))
    axes.set_ylim(len(shares) - 0.4, -0.6)
    axes.set_xlim(0, 112)
    axes.set_xticks([0, 25, 50, 75, 100])
    axes.set_ylabel("input")
    axes.set_xlabel("share of the gain, %", labelpad=1)
    axes.tick_params(axis="y", length=0)


def _draw_blocks(axes: Axes, shares: pd.DataFrame, most: float) -> None:
    axes.imshow(shares.to_numpy(float), cmap="Greys", vmin=0, vmax=most, aspect="auto")
    for (row, column), share in np.ndenumerate(shares.to_numpy(float)):
        if np.isfinite(share):
            colour = "white" if share > DARK_CELL * most else "black"
            look = {"ha": "center", "va": "center", "fontsize": 6.5, "color": colour}
            axes.text(column, row, f"{100 * share:.1f}", **look)
    axes.set_yticks(range(len(shares)), list(shares.index))
    axes.set_xticks(range(shares.shape[1]), [f"{scale:.0f}" for scale in shares])
    axes.set_ylabel("layer")
    axes.set_xlabel("side of the image, pixels", labelpad=1)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _draw_columns(axes: Axes, frame: pd.DataFrame, name: str, colour: str) -> None:
    shares = frame.groupby("column", sort=False)["share"].mean()
    axes.bar(range(len(shares)), 100 * shares, color=colour, width=0.8)
    axes.set_title(wrap_name(name, 60), loc="left", fontweight="bold")
    axes.set_xlabel(f"channel of {frame['kind'].iloc[0]}")
    axes.set_ylabel("share of the gain, %")
    axes.set_xlim(-1, len(shares))
    axes.grid(axis="y")
