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
from matplotlib.patheffects import withStroke

from lungseg.report.contents import RANDOM, Contents
from lungseg.report.figures.stored import (
    find_image_ids,
    read_features,
    read_features_of,
    read_image,
    read_prediction,
    read_truth,
)
from lungseg.report.figures.style import AGREES, DOUBLE, FALSE, MISSED, OUTLINE, make_figure, wrap_name
from lungseg.report.numbers.importance import average_importance

SAMPLES = 8
MOST_APPROACHES = 7  # with more, tiles are too small to judge
MOST_INCHES = 7.5  # of all rows of cases
MOST_MAPS = 256
NUMBERED = 10  # columns of maps beside whose channel numbers can be large
LAYERS = {"vgg19-pixels": "relu1_2"}  # of approaches without a setting that names them


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
    """Draw one image, and beside it all its feature maps in a grid (8 x 8 for 64), each with its channel.

    Those of the best approach whose importance is known for each map are drawn, the most important first;
    without one, the largest maps that are stored, in their order.
    """
    found = _choose_features(contents)
    if found is None:
        return None
    name, image_id, maps, order = found
    maps, channels = maps[order[:MOST_MAPS]], order[:MOST_MAPS]
    columns = math.ceil(math.sqrt(len(maps)))
    rows = math.ceil(len(maps) / columns)
    pictured = image_id in find_image_ids(contents)
    side = DOUBLE / 2 if pictured else 5.0  # inches
    aspects = [rows * maps.shape[1] / (columns * maps.shape[2])]
    aspects += [_find_aspect(read_image(contents, image_id))] if pictured else []
    figure = make_figure(DOUBLE, min(side * max(aspects) + 0.55, 9.0))
    figure.get_layout_engine().set(w_pad=0.02, wspace=0.01)
    figure.suptitle(_write_maps_title(contents, name, maps, order))
    panels = figure.subplots(1, 1 + pictured, squeeze=False)[0]
    for axes in panels:
        _hide_axes(axes)
        axes.set_anchor("N")
    if pictured:
        _show(panels[0], read_image(contents, image_id))
        panels[0].set_xlabel(f"input: {image_id}", fontsize=7)
    mosaic, pitch = _make_mosaic(maps, columns, rows)
    _show(panels[-1], mosaic)
    look = {"fontsize": 6 if columns <= NUMBERED else 4, "color": "white", "va": "top"}
    look["path_effects"] = [withStroke(linewidth=1.2, foreground="black")]
    for place, channel in enumerate(channels):
        x, y = place % columns * pitch[1], place // columns * pitch[0]
        panels[-1].text(x + 0.04 * pitch[1], y + 0.02 * pitch[0], f"{channel}", **look)
    return figure


def _choose_features(contents: Contents) -> tuple[str, str, np.ndarray, np.ndarray] | None:
    """Choose stored feature maps: approach, image id, float32 C x h x w, and the order to draw them in."""
    for name in contents.sort_names(contents.importance["approach"]):
        frame = average_importance(contents, name)
        channels = frame["column"].str.extract(r":(\d+)$", expand=False)
        stored = read_features_of(contents, name)
        if stored and sorted(map(str, range(len(stored[1])))) == sorted(channels.fillna("")):
            order = channels.astype(int).to_numpy()[np.argsort(-frame["share"], kind="stable")]
            return name, *stored, order
    largest = read_features(contents)
    return largest and (*largest, np.arange(len(largest[2])))


def _write_maps_title(contents: Contents, name: str, maps: np.ndarray, order: np.ndarray) -> str:
    entry = next(entry for entry in contents.run["approaches"] if entry["name"] == name)
    settings = entry.get("settings", {})
    layers = [LAYERS[entry["use"]]] if entry["use"] in LAYERS else settings.get("layers", [])
    of = f" of layer{'s' * (len(layers) > 1)} {', '.join(layers)}" if layers else ""
    weights = contents.find_weights(name)
    weights = f", {weights}{'' if weights == RANDOM else ' weights'}"
    shown = f"first {len(maps)} of {len(order)}" if len(order) > len(maps) else f"{len(maps)}"
    sorted_by = "in their order" if (np.diff(order) > 0).all() else "most important first"
    return (
        f"{name}: {shown} feature maps{of}, {maps.shape[1]} × {maps.shape[2]} pixels{weights}\n"
        f"with their channel numbers, {sorted_by}; grey: 1st to 99th percentile of each"
    )


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
    aspects = [max(_find_aspect(read_image(contents, one)) for one in row) for row in rows]
    columns = len(shown) + 2
    tile = min((DOUBLE - 0.3) / columns, 1.5, MOST_INCHES / sum(aspects))  # inches, the gap included
    letters = max(6, int(tile / 0.062))  # of 7 points that fit beside one another
    titles = [wrap_name(name, letters) for name in ("image", "truth", *shown)]
    lines = [line for title in titles for line in title.splitlines()]
    size = max(5.0, min(7.0, 7 * letters / max(map(len, lines))))
    heights = [aspect * (tile - 0.04) for aspect in aspects]
    most = max(title.count("\n") + 1 for title in titles)
    figure = make_figure(tile * columns + 0.3, sum(heights) + 0.2 * len(rows) + 0.12 * most + 0.6)
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
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
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
    left_out = ", baselines left out" if mixed else ""
    few = f" ({len(shown)} of {total})" if len(shown) < total else ""
    return (
        f"Best, median and worst image by the mean Dice of the approaches shown{few}{left_out}\n"
        "Below each: the Dice of its mask. Last row: the worst image of each approach"
    )


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
        _draw_prediction(contents, axes, name, image_id, image, truth)


def _draw_own_worst(
    contents: Contents, row: np.ndarray, own: list[str | None], shown: list[str], letters: int
) -> None:
    """Draw in each approach's column the image in `own`, with its id below."""
    for axes in row:
        _hide_axes(axes)
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
