"""Draw paired differences of mean Dice as forest plots: between approaches, and of an ablation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lungseg.report.contents import Contents
from lungseg.report.figures.style import (
    DARK,
    DOUBLE,
    SINGLE,
    add_legend_below,
    assign_colours,
    describe_n,
    make_figure,
    name_rows,
    set_difference_scale,
    wrap_name,
)
from lungseg.report.markup import format_difference, format_score
from lungseg.report.numbers.ablation import collect_ablation
from lungseg.report.numbers.comparisons import collect_pairs, turn_pair
from lungseg.report.numbers.groups import LEVEL
from lungseg.report.sentences.conclusions import NEGLIGIBLE
from lungseg.report.sentences.images import find_unit

FEW = 5  # approaches whose pairs are all drawn; of more, only those with the best and with a baseline

ROW, HEAD = 0.17, 0.5  # inches: of a line of an ablation's rows, and of a panel's title and axis
MOST_INCHES = 4.5  # of panels in one column; more take two
LETTERS = 26  # on a line of a name
BAND = "#E9EDF2"

Line = tuple[str, str, dict[str, Any] | None]  # approach, its text, its difference; a heading has none


def draw_differences(contents: Contents) -> Figure | None:
    """Draw a forest plot of the paired differences of mean Dice.

    Of up to FEW approaches a block each, with a row for each worse one. Of more, two blocks: the best one
    minus each, and each minus the best baseline. A filled marker means p <= LEVEL by the permutation test
    after Holm's correction; a hollow one p > LEVEL, or not tested. A band holds negligible differences.
    """
    pairs = collect_pairs(contents, "dice").dropna(subset=["value"])
    if pairs.empty:
        return None
    lines = _list_lines(contents, pairs)
    places, total = find_centres([text for _, text, _ in lines])
    figure = make_figure(SINGLE, 0.15 * total + 0.95)
    axes = figure.subplots()
    drawn = pd.DataFrame([pair for _, _, pair in lines if pair])
    scale = set_difference_scale(axes, drawn[["value", "low", "high"]].to_numpy(float).ravel())
    _draw_forest(axes, lines, places, assign_colours(contents))
    axes.set_ylim(total - 0.2, -0.8)
    axes.axvspan(-NEGLIGIBLE, NEGLIGIBLE, color=BAND, linewidth=0, zorder=0)
    count = describe_n(contents, drawn["n"], find_unit(contents))
    axes.set_xlabel(f"difference of mean Dice,\n95 % interval, {count}")
    handles = [_make_handle("p ≤ .05 after Holm's correction")]
    handles.append(_make_handle("not distinguishable: p > .05 after it", "white"))
    handles.append(Patch(color=BAND, label=f"negligible: within ±{NEGLIGIBLE}"))
    add_legend_below(figure, handles, scale or None)
    return figure


def _list_lines(contents: Contents, pairs: pd.DataFrame) -> list[Line]:
    """Return the headings and rows from top to bottom."""
    rows = pairs.to_dict("records")
    names = contents.sort_names({*pairs["approach"], *pairs["other"]})
    heads = names if len(names) <= FEW else names[:1]
    lines: list[Line] = []
    for name in heads:
        block = [row for row in rows if row["approach"] == name]
        lines += [(name, f"{wrap_name(name, 24)} minus", None)] if block else []
        lines += [(row["other"], wrap_name(row["other"], 24), row) for row in block]
    baseline = next((name for name in names if name in contents.baselines), None)
    if len(names) > FEW and baseline:
        turned = [*rows, *map(turn_pair, rows)]
        block = [row for row in turned if row["other"] == baseline and row["approach"] not in heads]
        lines += [(baseline, wrap_name(f"Each minus {baseline}", 24), None)] if block else []
        lines += [(row["approach"], wrap_name(row["approach"], 24), row) for row in block]
    return lines


def _draw_forest(axes: Axes, lines: list[Line], places: np.ndarray, palette: dict[str, str]) -> None:
    """Draw markers and intervals in the colour of the better approach of each pair."""
    for place, (_, text, pair) in zip(places, lines, strict=True):
        if pair is None:
            axes.axhline(place - (text.count("\n") + 1) / 2, color="#DDDDDD", linewidth=0.5)
            continue
        colour = palette[pair["approach"]]
        axes.plot([pair["low"], pair["high"]], [place, place], color=colour, linewidth=1.2)
        face = colour if pair["p_holm"] <= LEVEL else "white"
        axes.plot(pair["value"], place, "o", markersize=4, color=colour, markerfacecolor=face)
    axes.axvline(0, color=DARK, linewidth=0.7, zorder=1)
    tones = [palette[name] for name, _, _ in lines]
    name_rows(axes, [text for _, text, _ in lines], tones, places, fontsize=6.5, linespacing=1.0)
    for tick, (_, _, pair) in zip(axes.get_yticklabels(), lines, strict=True):
        tick.set_fontweight("bold" if pair is None else "normal")


def find_centres(texts: Sequence[str]) -> tuple[np.ndarray, int]:
    """Return the middles of texts below one another, and the height of all, in lines; 0 is the first line."""
    heights = np.array([text.count("\n") + 1 for text in texts])
    return np.cumsum(heights) - heights + (heights - 1) / 2, int(heights.sum())


def _make_handle(label: str, face: str = DARK) -> Line2D:
    look = {"linestyle": "", "marker": "o", "markersize": 4, "color": DARK, "markerfacecolor": face}
    return Line2D([], [], **look, label=label)


def draw_ablation(contents: Contents) -> Figure | None:
    """Draw how much the Dice of each row differs from its group's first row: a forest plot per group.

    Differences are paired by patient and drawn with their 95 % intervals. All panels have one scale.
    """
    frame = collect_ablation(contents)
    if frame.empty:
        return None
    columns = _split_columns([rows for _, rows in frame.groupby("group", sort=False)])
    heights = [sum(map(_compute_height, column)) for column in columns]
    figure = make_figure(DOUBLE, max(heights) + 0.55)
    grid = figure.add_gridspec(1, len(columns))
    ends = frame[["first", "first_low", "first_high"]].to_numpy(float).ravel()
    for place, (column, inches) in enumerate(zip(columns, heights, strict=True)):
        # The layout divides what titles and axes leave: rows get the same height in all panels. The end of a
        # shorter column stays empty.
        ratios = [_compute_height(rows) - HEAD for rows in column]
        ratios += [max(heights) - inches] if inches < max(heights) else []
        cells = grid[place].subgridspec(len(ratios), 1, height_ratios=ratios)
        for number, rows in enumerate(column):
            axes = figure.add_subplot(cells[number])
            scale = set_difference_scale(axes, ends)
            _draw_group(axes, rows)
    count = describe_n(contents, frame["n"], find_unit(contents))
    label = f"difference of mean Dice from the row marked as base, {count}\n"
    label += "95 % intervals, paired by patient, not corrected for the number of rows"
    figure.supxlabel(f"{label}\n{scale}".rstrip(), fontsize=8)
    return figure


def _compute_height(rows: pd.DataFrame) -> float:
    return ROW * find_centres([wrap_name(name, LETTERS) for name in rows["approach"]])[1] + HEAD


def _split_columns(panels: list[pd.DataFrame]) -> list[list[pd.DataFrame]]:
    """Put the panels into one column, or into two of about the same height if one would be too tall."""
    heights = [_compute_height(rows) for rows in panels]
    if sum(heights) <= MOST_INCHES or len(panels) == 1:
        return [panels]
    cut = min(range(1, len(panels)), key=lambda place: max(sum(heights[:place]), sum(heights[place:])))
    return [panels[:cut], panels[cut:]]


def _draw_group(axes: Axes, rows: pd.DataFrame) -> None:
    axes.axvline(0, color=DARK, linewidth=0.7, zorder=1)
    texts = [wrap_name(name, LETTERS) for name in rows["approach"]]
    places, total = find_centres(texts)
    look = {"fontsize": 6.5, "va": "center", "color": DARK, "transform": axes.get_yaxis_transform()}
    for place, (number, row) in zip(places, enumerate(rows.itertuples()), strict=True):
        text = format_difference(row.first).replace("-", "−") if pd.notna(row.first) else "not compared"
        if number == 0:
            text = f"base: {format_score(row.dice)}"
            axes.plot(0, place, "D", color="white", markeredgecolor=DARK, markersize=4, zorder=3)
        axes.plot([row.first_low, row.first_high], [place, place], color=DARK, linewidth=1.4)
        axes.plot(row.first, place, "o", color=DARK, markersize=4)
        axes.text(1.02, place, text, **look)
    name_rows(axes, texts, ["black"] * len(rows), places, linespacing=1)
    axes.set_ylim(total - 0.4, -0.6)
    axes.set_title(rows["group"].iloc[0], loc="left", fontweight="bold")
