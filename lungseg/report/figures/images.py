"""Draw X-rays: samples with outlines, feature maps, right and wrong predictions."""

from __future__ import annotations

import math
from itertools import chain, zip_longest
from pathlib import PurePosixPath

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from lungseg.report.contents import Contents
from lungseg.report.figures.stored import (
    find_image_ids,
    read_features,
    read_image,
    read_prediction,
    read_truth,
)
from lungseg.report.figures.style import AGREES, DOUBLE, FALSE, MISSED, OUTLINE, make_figure, wrap_name

SAMPLES = 8
MOST_APPROACHES = 7  # with more, tiles are too small to judge
MOST_MAPS = 256


def draw_samples(contents: Contents) -> Figure | None:
    """Draw eight images with the outline of their masks, the sources in turn."""
    chosen = _choose_samples(contents, find_image_ids(contents))
    if not chosen:
        return None
    columns = min(4, len(chosen))
    images = [read_image(contents, image_id) for image_id in chosen]
    tile = DOUBLE / 4  # inches
    rows = [images[start : start + columns] for start in range(0, len(images), columns)]
    heights = [max(_find_aspect(image) for image in row) * (tile - 0.04) for row in rows]
    figure = make_figure(tile * columns, sum(heights) + 0.2 * len(rows) + 0.2)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    figure.suptitle(f"{contents.run['data']['dataset']}: images with the outline of the lung mask")
    tiles = figure.subplots(len(rows), columns, squeeze=False, height_ratios=heights).ravel()
    for axes in tiles:
        _hide_axes(axes)
    for axes, image_id, image in zip(tiles, chosen, images, strict=False):  # the last row may not be full
        _show(axes, image)
        _draw_outline(axes, read_truth(contents, image_id, image.shape), OUTLINE, 0.9)
        source = contents.sources.get(image_id, "")
        axes.set_xlabel(f"{source}, {image_id}" if source else image_id, fontsize=6, labelpad=1.5)
    return figure


def _choose_samples(contents: Contents, ids: list[str]) -> list[str]:
    """Choose up to SAMPLES ids: each source in turn, and evenly spaced within each."""
    sources = contents.sources
    groups: dict[str, list[str]] = {}
    for image_id in ids:
        groups.setdefault(sources.get(image_id, ""), []).append(image_id)
    spaced = []
    for _, group in sorted(groups.items()):
        places = np.linspace(0, len(group) - 1, min(SAMPLES, len(group))).round().astype(int)
        # Every second one first, so that a shortened list still spans the group.
        spaced.append([group[place] for place in [*places[::2], *places[1::2]]])
    in_turn = [image_id for image_id in chain.from_iterable(zip_longest(*spaced)) if image_id is not None]
    return in_turn[:SAMPLES]


def draw_feature_maps(contents: Contents) -> Figure | None:
    """Draw all feature maps of one image in a grid (8 x 8 for 64), and the image beside them."""
    found = read_features(contents)
    if found is None:
        return None
    name, image_id, maps = found
    total = len(maps)
    maps = maps[:MOST_MAPS]
    columns = math.ceil(math.sqrt(len(maps)))
    rows = math.ceil(len(maps) / columns)
    grid = 5.0  # inches
    figure = make_figure(DOUBLE, min(grid * rows * maps.shape[1] / (columns * maps.shape[2]) + 0.35, 9.0))
    shown = f"first {len(maps)} of {total}" if total > len(maps) else f"{total}"
    figure.suptitle(f"{name}: {shown} feature maps, each scaled to its own 1st to 99th percentile")
    left, right = figure.subplots(1, 2, width_ratios=(DOUBLE - grid - 0.2, grid))
    _hide_axes(left)
    left.set_anchor("N")
    if image_id in find_image_ids(contents):
        _show(left, read_image(contents, image_id))
        left.set_title(f"input {image_id}", fontsize=7)
    else:
        left.set_visible(False)
    mosaic, pitch = _make_mosaic(maps, columns, rows)
    right.imshow(mosaic, cmap="gray", vmin=0, vmax=1)
    right.set_yticks((np.arange(rows) + 0.5) * pitch[0], [f"{row * columns}" for row in range(rows)])
    right.set_xticks((np.arange(columns) + 0.5) * pitch[1], [f"+{column}" for column in range(columns)])
    right.tick_params(length=0, labelsize=6)
    right.spines[:].set_visible(False)
    return figure


def _make_mosaic(maps: np.ndarray, columns: int, rows: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Put maps (C x h x w) into one picture in [0, 1]; return it and the distance (y, x) between tiles."""
    gap = max(1, round(0.04 * maps.shape[2]))
    pitch = maps.shape[1] + gap, maps.shape[2] + gap
    mosaic = np.ones((rows * pitch[0] - gap, columns * pitch[1] - gap), np.float32)
    for index, single in enumerate(maps):
        y, x = index // columns * pitch[0], index % columns * pitch[1]
        mosaic[y : y + maps.shape[1], x : x + maps.shape[2]] = _stretch(single)
    return mosaic, pitch


def _stretch(single: np.ndarray) -> np.ndarray:
    """Scale a map so that its 1st and 99th percentiles are 0 and 1; a constant one is 0.5."""
    finite = single[np.isfinite(single)]
    low, high = np.percentile(finite, [1, 99]) if finite.size else (0.0, 0.0)
    if high - low <= 1e-6 * max(1.0, abs(high)):
        # A map that differs in less than 1 % of its pixels is shown in its whole range.
        low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    if high <= low:
        return np.full(single.shape, 0.5, np.float32)
    return np.clip((np.nan_to_num(single, nan=low, posinf=high, neginf=low) - low) / (high - low), 0, 1)


def draw_cases(contents: Contents) -> Figure | None:
    """Draw image, truth and each approach for the best, the median and the worst image."""
    ranked = _rank_images(contents)
    shown = _choose_approaches(contents)
    chosen = _choose_cases(contents, ranked, shown)
    if not chosen or not shown:
        return None
    columns = len(shown) + 2
    tile = min((DOUBLE - 0.3) / columns, 1.5)  # inches, the gap included
    letters = max(6, int(tile / 0.062))  # of 7 points that fit beside one another
    titles = [wrap_name(name, letters) for name in ("image", "truth", *shown)]
    lines = max(title.count("\n") + 1 for title in titles)
    heights = [_find_aspect(read_image(contents, image_id)) * (tile - 0.04) for _, image_id in chosen]
    figure = make_figure(tile * columns + 0.3, sum(heights) + 0.2 * len(chosen) + 0.12 * lines + 0.6)
    figure.get_layout_engine().set(w_pad=0.015, h_pad=0.01, wspace=0.01, hspace=0.0)
    figure.suptitle(_write_cases_title(contents, shown))
    grid = figure.subplots(len(chosen), columns, squeeze=False, height_ratios=heights)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=7, linespacing=1.0, pad=3)
    for row, (label, image_id) in zip(grid, chosen, strict=True):
        row[0].set_ylabel(label, fontsize=7)
        _draw_case(contents, row, image_id, shown)
    areas = {"true (agrees)": AGREES, "false (too much)": FALSE, "missed": MISSED}
    look = {"edgecolor": "#444444", "linewidth": 0.4}
    handles = [Patch(facecolor=colour, label=text, **look) for text, colour in areas.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _rank_images(contents: Contents) -> pd.Series:
    """Return the mean Dice of each image, best first, over all approaches but baselines, if there are any."""
    dice = contents.image_dice
    learned = [name for name in dice if name not in contents.baselines]
    return dice[learned or list(dice)].mean(axis=1).sort_values(ascending=False, kind="stable")


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
    names = set(contents.image_dice.columns)
    mixed = names - contents.baselines and names & contents.baselines
    over = "the approaches other than baselines" if mixed else "all approaches"
    left_out = f"; {len(shown)} of {len(names)} approaches shown" if len(shown) < len(names) else ""
    return f"Best, median and worst image by mean Dice over {over}\n(below each, its own Dice{left_out})"


def _find_aspect(picture: np.ndarray) -> float:
    return picture.shape[0] / picture.shape[1]


def _draw_case(contents: Contents, row: np.ndarray, image_id: str, shown: list[str]) -> None:
    image = read_image(contents, image_id)
    truth = read_truth(contents, image_id, image.shape)
    for axes in row:
        _hide_axes(axes)
    _show(row[0], image)
    row[0].set_xlabel(image_id, fontsize=6, labelpad=1.5)
    _show(row[1], image)
    _draw_outline(row[1], truth, OUTLINE, 0.8)
    for axes, name in zip(row[2:], shown, strict=True):
        prediction = read_prediction(contents, name, image_id, image.shape)
        if prediction is None:
            axes.text(0.5, 0.5, "not stored", ha="center", va="center", fontsize=6, transform=axes.transAxes)
            continue
        _show(axes, _tint_areas(image, truth, prediction.mask))
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


def _show(axes: Axes, picture: np.ndarray) -> None:
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1)


def _draw_outline(axes: Axes, mask: np.ndarray, colour: str, width: float) -> None:
    if mask.any() and min(mask.shape) > 1:
        # A border of zeros closes the outline where the mask touches the image's edge.
        padded = np.pad(mask.astype(float), 1)
        y, x = np.arange(-1, mask.shape[0] + 1), np.arange(-1, mask.shape[1] + 1)
        axes.contour(x, y, padded, levels=[0.5], colors=[colour], linewidths=[width])
        axes.set_xlim(-0.5, mask.shape[1] - 0.5)
        axes.set_ylim(mask.shape[0] - 0.5, -0.5)


def _hide_axes(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
