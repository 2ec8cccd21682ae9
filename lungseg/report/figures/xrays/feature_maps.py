"""Draw all feature maps of one image in a grid."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from lungseg.report.contents import RANDOM, Contents
from lungseg.report.figures.style import DOUBLE, make_figure
from lungseg.report.figures.xrays.drawing import find_aspect, hide_axes, make_mosaic, show
from lungseg.report.figures.xrays.stored import find_image_ids, read_features, read_features_of, read_image
from lungseg.report.numbers.importance import average_importance

MOST_MAPS = 256
NUMBERED = 10  # columns of maps beside whose channel numbers can be large
LAYERS = {"vgg19-pixels": "relu1_2"}  # of approaches without a setting that names them


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
    aspects += [find_aspect(read_image(contents, image_id))] if pictured else []
    figure = make_figure(DOUBLE, min(side * max(aspects) + 0.55, 9.0))
    figure.get_layout_engine().set(w_pad=0.02, wspace=0.01)
    figure.suptitle(_write_maps_title(contents, name, maps, order))
    panels = figure.subplots(1, 1 + pictured, squeeze=False)[0]
    for axes in panels:
        hide_axes(axes)
        axes.set_anchor("N")
    if pictured:
        show(panels[0], read_image(contents, image_id))
        panels[0].set_xlabel(f"input: {image_id}", fontsize=7)
    mosaic, pitch = make_mosaic(maps, columns, rows)
    show(panels[-1], mosaic)
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
