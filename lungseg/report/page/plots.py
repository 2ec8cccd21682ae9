"""Compute where the page's two plots have their marks: in % of the width, and in pixels of the height."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator

from lungseg.report.contents import Contents
from lungseg.report.figures.dice import spread_points
from lungseg.report.figures.style import choose_dice_ticks, to_digits

SCATTER_HEIGHT, TOP, BOTTOM = 340, 14, 30  # pixels
RIGHT = 62.0  # % of the width where the scatter ends and the names begin
NAME_HEIGHT = 18  # pixels between names
ROW_HEIGHT, NAME_ROOM = 56, 20  # pixels of a row of points, and above them for its name
MOST_IMAGES = 1000  # that are drawn; more can't be told apart, nor does a browser like them
_WIDTH = 900  # pixels for which points are spread


@dataclass(frozen=True)
class Axis:
    """A scale from data to places, with its ticks as (place, text)."""

    low: float
    high: float
    start: float
    end: float
    ticks: list[tuple[float, str]]

    def place(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(float(self.start + np.clip(share, 0, 1) * (self.end - self.start)), 2)


def make_dice_axis(values: Sequence[float], start: float, end: float) -> Axis:
    """Make an axis that is logarithmic in 1 - Dice, for `place(to_digits(dice))`."""
    finite = to_digits(np.array([value for value in values if np.isfinite(value)]))
    margin = 0.06 * max(np.ptp(finite), 0.2)
    low, high = max(finite.min() - margin, -0.03), min(finite.max() + margin, 3.03)
    axis = Axis(low, high, start, end, [])
    ticks = [tick for tick in choose_dice_ticks(*(1 - 10**-low, 1 - 10**-high))]
    axis.ticks.extend((axis.place(float(to_digits(np.array(tick)))), f"{tick:g}") for tick in ticks)
    return axis


def place_scatter(frame: pd.DataFrame) -> dict[str, Any] | None:
    """Place Dice against time: a point a row of the main table, names at the right; None without times."""
    timed = frame[frame["ms_per_image"] > 0]
    if timed.empty:
        return None
    x = _make_time_axis(timed["ms_per_image"])
    dice = timed[["dice", "dice_low", "dice_high"]].to_numpy(float)
    y = make_dice_axis(dice.ravel(), SCATTER_HEIGHT - BOTTOM, TOP)
    points = []
    for row, digits in zip(timed.to_dict("records"), to_digits(dice), strict=True):
        middle, low, high = (y.place(value) if np.isfinite(value) else None for value in digits)
        points.append(
            {"row": row, "x": x.place(np.log10(row["ms_per_image"])), "y": middle, "low": low, "high": high}
        )
    names = _spread_names([point["y"] for point in points], SCATTER_HEIGHT - 8)
    for point, place in zip(points, names, strict=True):
        point["name_y"] = place
    return {"points": points, "x": x, "y": y, "height": SCATTER_HEIGHT, "right": RIGHT}


def _make_time_axis(times: pd.Series) -> Axis:
    low, high = times.min() / 1.4, times.max() * 1.4
    places = LogLocator(subs=(1,) if high / low > 30 else (1, 2, 5)).tick_values(low, high)
    axis = Axis(np.log10(low), np.log10(high), 6.0, RIGHT - 2, [])
    axis.ticks.extend((axis.place(np.log10(tick)), f"{tick:,.10g}") for tick in places if low <= tick <= high)
    return axis


def _spread_names(heights: Sequence[float], lowest: float) -> list[float]:
    """Move names apart that would cover one another, from the top down, and up again at the bottom."""
    order = np.argsort(heights, kind="stable")
    places = np.array(heights, float)[order]
    for number in range(1, len(places)):
        places[number] = max(places[number], places[number - 1] + NAME_HEIGHT)
    if len(places) and places[-1] > lowest:
        places[-1] = lowest
        for number in range(len(places) - 2, -1, -1):
            places[number] = min(places[number], places[number + 1] - NAME_HEIGHT)
    found = np.empty(len(places))
    found[order] = places
    return [round(float(place), 1) for place in found]


def place_images(contents: Contents) -> dict[str, Any] | None:
    """Place the Dice of each image: a row of points an approach, best mean first; None without scores.

    "ids" are the images, worst mean first; a point names its image by its place there.
    """
    names = [name for name in contents.ranked if name in contents.image_dice]
    if not names:
        return None
    dice = contents.image_dice[names]
    dice = dice.loc[dice.mean(axis=1).sort_values(kind="stable").index]
    total = len(dice)
    if total > MOST_IMAGES:
        dice = dice.iloc[np.linspace(0, total - 1, MOST_IMAGES).round().astype(int)]
    axis = make_dice_axis(dice.to_numpy(float).ravel(), 1.5, 98.5)
    rows = []
    for name in names:
        values = dice[name].to_numpy(float)
        held = np.flatnonzero(np.isfinite(values))
        places = [axis.place(value) for value in to_digits(values[held])]
        spread = spread_points(np.array(places) * _WIDTH / 100) * ROW_HEIGHT
        points = [
            (int(image), x, round(float(ROW_HEIGHT / 2 + height), 1))
            for image, x, height in zip(held, places, spread, strict=True)
        ]
        mean = contents.find_statistic(name, "dice").get("value", float("nan"))
        at = axis.place(float(to_digits(np.array(mean)))) if np.isfinite(mean) else None
        rows.append({"name": name, "points": points, "mean": at})
    values = {name: [None if pd.isna(one) else round(float(one), 4) for one in dice[name]] for name in names}
    ids = [str(image) for image in dice.index]
    sources = [str(contents.sources.get(image, "")) for image in dice.index]
    return {"rows": rows, "axis": axis, "ids": ids, "values": values, "sources": sources, "total": total}
