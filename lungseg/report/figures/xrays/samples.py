"""Draw samples of the images with the outlines of their masks."""

from __future__ import annotations

from itertools import chain, zip_longest

import numpy as np
from matplotlib.figure import Figure

from lungseg.report.contents import Contents
from lungseg.report.figures.style import DOUBLE, OUTLINE, make_figure
from lungseg.report.figures.xrays.drawing import draw_outline, find_aspect, hide_axes, show
from lungseg.report.figures.xrays.stored import find_image_ids, read_image, read_truth

SAMPLES = 8


def draw_samples(contents: Contents) -> Figure | None:
    """Draw eight images with the outline of their masks, the sources in turn."""
    chosen = _choose_samples(contents, find_image_ids(contents))
    if not chosen:
        return None
    columns = min(4, len(chosen))
    images = [read_image(contents, image_id) for image_id in chosen]
    tile = DOUBLE / 4  # inches
    rows = [images[start : start + columns] for start in range(0, len(images), columns)]
    heights = [max(find_aspect(image) for image in row) * (tile - 0.04) for row in rows]
    figure = make_figure(tile * columns, sum(heights) + 0.2 * len(rows) + 0.2)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    figure.suptitle(f"{contents.run['data']['dataset']}: images with the outline of the lung mask")
    tiles = figure.subplots(len(rows), columns, squeeze=False, height_ratios=heights).ravel()
    for axes in tiles:
        hide_axes(axes)
    for axes, image_id, image in zip(tiles, chosen, images, strict=False):  # the last row may not be full
        show(axes, image)
        draw_outline(axes, read_truth(contents, image_id, image.shape), OUTLINE, 0.9)
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
