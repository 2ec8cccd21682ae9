"""Draw the map after each stage of an approach that has stages."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lungseg.report.contents import Contents
from lungseg.report.figures.style import DOUBLE, OUTLINE, make_figure
from lungseg.report.figures.xrays.drawing import draw_outline, find_aspect, hide_axes, show
from lungseg.report.figures.xrays.stored import (
    StageMaps,
    find_image_ids,
    read_image,
    read_prediction,
    read_size,
    read_stage_maps,
    read_truth,
)

COLOURS = "cividis"  # for probabilities: of even steps, also in colour blindness
MOST_MAPS = 6  # the last ones; with more, tiles are too small to judge


def draw_stage_maps(contents: Contents) -> Figure | None:
    """Draw an image, its map after each stage with the Dice, and its final mask with the true outline."""
    found = read_stage_maps(contents)
    if found is None or found.image_id not in find_image_ids(contents):
        return None
    image = read_image(contents, found.image_id)
    final = read_prediction(contents, found.name, found.image_id, image.shape)
    if final is None:
        return None
    columns = min(len(found.maps), MOST_MAPS) + 2
    tile = min(DOUBLE / columns, 1.7)  # inches, the gap included
    figure = make_figure(DOUBLE, (tile - 0.05) * find_aspect(image) + 1.15)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.0)
    few = f" (the last {MOST_MAPS} of {len(found.maps)})" if len(found.maps) > MOST_MAPS else ""
    figure.suptitle(f"{found.name}: the map after each stage{few}")
    row = figure.subplots(1, columns, squeeze=False)[0]
    show(row[0], image)
    _label(row[0], "image", read_size(contents, found.image_id), found.image_id)
    _draw_maps(figure, row, found, find_aspect(image))
    show(row[-1], np.where(final.mask, 0.8, 0.1))
    draw_outline(row[-1], read_truth(contents, found.image_id, image.shape), OUTLINE, 1.0)
    _label(row[-1], "final mask,\ntrue outline", None, f"Dice {final.dice:.3f}")
    return figure


def _draw_maps(figure: Figure, row: np.ndarray, found: StageMaps, aspect: float) -> None:
    """Draw maps between the outer tiles, each stretched to the image's aspect, and their scale below."""
    last = slice(-MOST_MAPS, None)
    tiles = zip(row[1:-1], found.titles[last], found.maps[last], found.dice[last], strict=True)
    for axes, title, single, dice in tiles:
        drawn = axes.imshow(single, cmap=COLOURS, vmin=0, vmax=1, interpolation="nearest")
        axes.set_aspect(aspect * single.shape[1] / single.shape[0])
        _label(axes, title, single.shape, f"Dice {dice:.3f}")
    look = {"shrink": 0.5, "aspect": 40, "pad": 0.02, "ticks": [0, 0.5, 1]}
    bar = figure.colorbar(drawn, ax=list(row), location="bottom", **look)
    bar.set_label("predicted probability of lung", fontsize=7, labelpad=1)
    bar.outline.set_visible(False)


def _label(axes: Axes, title: str, size: tuple[int, int] | None, below: str) -> None:
    """Write what a tile shows and its height and width in pixels above it, and a line below it."""
    hide_axes(axes)
    axes.set_title(f"{title}\n{size[0]} × {size[1]}" if size else title, fontsize=7)
    axes.set_xlabel(below, fontsize=7, labelpad=2)
