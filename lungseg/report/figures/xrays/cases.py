"""Draw cases: what each approach gets right and wrong in the best, the median and the worst image."""

from __future__ import annotations

from pathlib import PurePosixPath

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from lungseg.report.contents import Contents
from lungseg.report.figures.style import AGREES, DOUBLE, FALSE, MISSED, OUTLINE, make_figure, wrap_name
from lungseg.report.figures.xrays.drawing import draw_outline, find_aspect, hide_axes, show
from lungseg.report.figures.xrays.stored import find_image_ids, read_image, read_prediction, read_truth

MOST_APPROACHES = 7  # with more, tiles are too small to judge
MOST_INCHES = 7.5  # of all rows of cases


def draw_cases(contents: Contents) -> Figure | None:
    """Draw image, truth and each approach for the best, the median and the worst image.

    A last row has each approach's own worst image, since a mean over approaches hides a failure of one.
    """
    shown = _choose_approaches(contents)
    ranked = _rank_images(contents)
    chosen = _choose_cases(contents, ranked, shown)
    if not chosen or not shown:
        return None
    own = [_find_own_worst(contents, name) for name in shown] if len(chosen) > 1 else []
    rows = [[image_id] for _, image_id in chosen] + ([list(filter(None, own))] if own else [])
    aspects = [max(find_aspect(read_image(contents, one)) for one in row) for row in rows]
    columns = len(shown) + 2
    tile = min((DOUBLE - 0.3) / columns, 1.5, MOST_INCHES / sum(aspects))  # inches, the gap included
    letters = max(6, int(tile / 0.062))  # of 7 points that fit beside one another
    titles = [wrap_name(name, letters) for name in ("image", "truth", *shown)]
    lines = [line for title in titles for line in title.splitlines()]
    size = max(5.0, min(7.0, 7 * letters / max(map(len, lines))))
    heights = [aspect * (tile - 0.04) for aspect in aspects]
    most = max(title.count("\n") + 1 for title in titles)
    figure = make_figure(tile * columns + 0.3, sum(heights) + 0.2 * len(rows) + 0.12 * most + 0.7)
    figure.get_layout_engine().set(w_pad=0.015, h_pad=0.01, wspace=0.01, hspace=0.0)
    figure.suptitle(_write_cases_title(contents, shown))
    grid = figure.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=size, linespacing=1.0, pad=3)
    for row, (label, image_id) in zip(grid, chosen, strict=False):
        row[0].set_ylabel(label, fontsize=7)
        _draw_case(contents, row, image_id, shown)
    if own:
        _draw_own_worst(contents, grid[-1], own, shown, letters)
    areas = {"true (agrees)": AGREES, "false (too much)": FALSE, "missed": MISSED}
    look = {"edgecolor": "#444444", "linewidth": 0.4}
    handles = [Patch(facecolor=colour, label=text, **look) for text, colour in areas.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, borderpad=0.9)
    return figure


def _rank_images(contents: Contents) -> pd.Series:
    """Return the mean Dice of each image, best first, over the approaches shown.

    Baselines are left out if there are others.
    """
    shown = _choose_approaches(contents)
    learned = [name for name in shown if name not in contents.baselines]
    return contents.image_dice[learned or shown].mean(axis=1).sort_values(ascending=False, kind="stable")


def _find_own_worst(contents: Contents, name: str) -> str | None:
    """Return the id of the image with the lowest Dice among those stored with a map of an approach."""
    pictures, folder = contents.pictures, contents.file_names[name]
    rows = contents.scores[contents.scores["approach"] == name].sort_values(["dice", "image_id"])
    known = set(find_image_ids(contents))
    for row in rows.itertuples():
        place = f"maps/{folder}/f{row.fold}-s{row.seed}/{row.image_id}.png"
        if row.image_id in known and place in pictures:
            return row.image_id
    return None


def _list_maps(contents: Contents) -> list[PurePosixPath]:
    """Stored maps, as maps/APPROACH/TRIAL/IMAGE.png."""
    return [PurePosixPath(name) for name in contents.pictures if name.startswith("maps/")]


def _choose_approaches(contents: Contents) -> list[str]:
    """Choose approaches with stored maps, in the order of the spec; the best ones if there are many."""
    mapped = {path.parts[1] for path in _list_maps(contents)}
    stored = [name for name in contents.names if contents.file_names[name] in mapped]
    first = sorted(contents.ranked, key=lambda name: name in contents.baselines)
    kept = [name for name in first if name in stored][:MOST_APPROACHES]
    return [name for name in stored if name in kept]


def _choose_cases(contents: Contents, ranked: pd.Series, shown: list[str]) -> list[tuple[str, str]]:
    """Choose the best, median and worst image of those stored with a map; return (row label, image id)."""
    folders = {contents.file_names[name] for name in shown}
    drawn = {path.stem for path in _list_maps(contents) if path.parts[1] in folders}
    drawn &= set(find_image_ids(contents))
    places = [place for place, image_id in enumerate(ranked.index) if image_id in drawn]
    if not places:
        return []
    picks = {"best": places[0]}
    if len(places) > 2:
        picks["median"] = min(places[1:-1], key=lambda place: abs(place - (len(ranked) - 1) / 2))
    if len(places) > 1:
        picks["worst"] = places[-1]
    return [(f"{word}\n{place + 1} of {len(ranked)}", ranked.index[place]) for word, place in picks.items()]


def _write_cases_title(contents: Contents, shown: list[str]) -> str:
    total = len(contents.image_dice.columns)
    mixed = contents.baselines & set(shown) and set(shown) - contents.baselines
    without = ", ranked without baselines" if mixed else ""
    few = f" ({len(shown)} of {total})" if len(shown) < total else ""
    return (
        f"Best, median and worst image by the mean Dice of the approaches shown{few}{without}\n"
        "Below each: the Dice of its mask. Last row: the worst image of each approach"
    )


def _draw_case(contents: Contents, row: np.ndarray, image_id: str, shown: list[str]) -> None:
    image = read_image(contents, image_id)
    truth = read_truth(contents, image_id, image.shape)
    for axes in row:
        hide_axes(axes)
    show(row[0], image)
    row[0].set_xlabel(image_id, fontsize=6, labelpad=1.5)
    show(row[1], image)
    draw_outline(row[1], truth, OUTLINE, 0.8)
    for axes, name in zip(row[2:], shown, strict=True):
        _draw_prediction(contents, axes, name, image_id, image, truth)


def _draw_own_worst(
    contents: Contents, row: np.ndarray, own: list[str | None], shown: list[str], letters: int
) -> None:
    """Draw in each approach's column the image in `own`, with its id below."""
    for axes in row:
        hide_axes(axes)
    row[0].set_ylabel("own worst", fontsize=7)
    for axes, name, image_id in zip(row[2:], shown, own, strict=True):
        if image_id is None:
            continue
        image = read_image(contents, image_id)
        truth = read_truth(contents, image_id, image.shape)
        _draw_prediction(contents, axes, name, image_id, image, truth)
        axes.set_xlabel(f"{axes.get_xlabel()}\n{wrap_name(image_id, letters)}", fontsize=6, labelpad=1.5)


def _draw_prediction(
    contents: Contents, axes: Axes, name: str, image_id: str, image: np.ndarray, truth: np.ndarray
) -> None:
    """Draw an image with what a prediction gets right and wrong, and its Dice below."""
    prediction = read_prediction(contents, name, image_id, image.shape)
    if prediction is None:
        axes.text(0.5, 0.5, "not stored", ha="center", va="center", fontsize=6, transform=axes.transAxes)
        return
    show(axes, _tint_areas(image, truth, prediction.mask))
    axes.set_xlabel(f"{prediction.dice:.3f}", fontsize=7, labelpad=1.5)


def _tint_areas(image: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the image in RGB with the agreeing area tinted, and false and missed ones in strong colours."""
    picture = np.repeat(image[..., None], 3, axis=2)
    for area, colour, strength in (
        (truth & mask, AGREES, 0.35),
        (mask & ~truth, FALSE, 0.8),
        (truth & ~mask, MISSED, 0.8),
    ):
        picture[area] = (1 - strength) * picture[area] + strength * np.array(to_rgb(colour), np.float32)
    return picture
