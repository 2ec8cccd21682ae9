"""Draw the pipelines of a run, each step with what the run stored: pictures, maps, numbers and curves.

All places on the figure are in inches from its lower left corner.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator

from lungseg.report.contents import Contents
from lungseg.report.figures.curves import LABELS, LINES, MEASURES
from lungseg.report.figures.style import DOUBLE, OUTLINE, darken, make_figure
from lungseg.report.figures.xrays.drawing import draw_outline, hide_axes, make_mosaic, show
from lungseg.report.figures.xrays.fits import MOST_MAPS, Fit, choose_network, choose_pixels

STRIDES = (4, 8, 16, 16)  # of the four stages of ResNet50, if the output stride isn't less
REGRESSORS = {"lightgbm": "LightGBM", "ridge": "ridge regression", "mlp": "MLP"}
# In inches: a row of steps with its heading and captions, the middle of its steps, and how wide steps are.
HEIGHT, MIDDLE = 2.25, 1.1
PICTURE, GRID, TABLE, CURVES, GAP = 0.95, 1.62, 1.61, 1.2, 0.2
PIXELS = 8  # rows of the table that are shown
GREY, LIGHT = "#666666", "#F2F2F2"


def draw_pipeline(contents: Contents) -> Figure | None:
    """Draw A from image to features, table, regressor and mask, and B from image to network and mask.

    A is a fit with stored features, preferably of 64 maps, and B one of DeepLabV3+. Without one its row is
    left out.
    """
    pixels = choose_pixels(contents)
    network = choose_network(contents, pixels.image_id if pixels else None)
    fits = [(_draw_pixels, pixels), (_draw_network, network)]
    fits = [(draw, fit) for draw, fit in fits if fit is not None]
    if not fits:
        return None
    figure = make_figure(DOUBLE, HEIGHT * len(fits))
    figure.set_layout_engine(None)  # everything has its place
    for number, (draw, fit) in enumerate(fits, start=1):
        draw(_Canvas(figure, HEIGHT * (len(fits) - number)), fit)
    return figure


class _Canvas:
    """A row of the figure, on which steps are placed in inches from its lower left corner."""

    def __init__(self, figure: Figure, bottom: float) -> None:
        self.figure = figure
        size = DOUBLE, HEIGHT
        self.axes = self.add_axes(0, 0, *size, bottom)
        self.axes.set(xlim=(0, size[0]), ylim=(0, size[1]))
        self.axes.axis("off")
        self.bottom = bottom

    def add_axes(self, x: float, y: float, width: float, height: float, bottom: float | None = None) -> Axes:
        full = self.figure.get_size_inches()
        y += self.bottom if bottom is None else bottom
        return self.figure.add_axes((x / full[0], y / full[1], width / full[0], height / full[1]))

    def write(self, x: float, y: float, text: str, size: float = 6, **look: Any) -> None:
        self.axes.text(x, y, text, **{"fontsize": size, "ha": "center", "va": "center", **look})

    def name_step(self, x: float, half: float, title: str, caption: str) -> None:
        """Write a title above and a caption below a step around `x` that is 2 `half` high."""
        self.write(x, MIDDLE + half + 0.04, title, 7, va="bottom", fontweight="bold")
        self.write(x, MIDDLE - half - 0.05, caption, va="top", linespacing=1.1)

    def show(self, x: float, width: float, picture: np.ndarray, title: str, caption: str) -> Axes:
        """Show a picture in [0, 1], as large as fits into a square; return its axes."""
        scale = width / max(picture.shape)
        height, own = scale * picture.shape[0], scale * picture.shape[1]
        axes = self.add_axes(x + (width - own) / 2, MIDDLE - height / 2, own, height)
        hide_axes(axes)
        show(axes, picture)
        self.name_step(x + width / 2, height / 2, title, caption)
        return axes

    def draw_box(self, x: float, y: float, width: float, height: float, text: str = "", **look: Any) -> None:
        style = {"boxstyle": "round,pad=0,rounding_size=0.04", "facecolor": LIGHT, "edgecolor": GREY}
        self.axes.add_patch(FancyBboxPatch((x, y), width, height, linewidth=0.6, **style))
        self.write(x + width / 2, y + height / 2, text, **look)

    def draw_arrow(self, x: float) -> None:
        """Draw an arrow from one step to the next, in the gap that starts at `x`."""
        self.draw_path([(x + 0.02, MIDDLE), (x + GAP - 0.02, MIDDLE)])

    def draw_path(self, points: list[tuple[float, float]]) -> None:
        head = "-|>,head_length=3,head_width=1.5"
        look = {"linewidth": 0.8, "color": GREY, "joinstyle": "miter"}
        self.axes.add_patch(FancyArrowPatch(path=Path(points), arrowstyle=head, **look))


def _draw_pixels(canvas: _Canvas, fit: Fit) -> None:
    """Draw A: image, features, table of pixels, regressor, mask."""
    count, height, width = fit.maps.shape
    x = _draw_start(canvas, fit)
    shown = fit.maps[:MOST_MAPS]
    columns = math.ceil(math.sqrt(len(shown)))
    mosaic, _ = make_mosaic(shown, columns, math.ceil(len(shown) / columns))
    title = f"{count} feature maps" if count == len(shown) else f"first {len(shown)} of {count} feature maps"
    network = (fit.entry["weights"] or {}).get("network", "").upper()
    source = f"{network}, {fit.weights}\n" if network else ""
    canvas.show(x, GRID, mosaic, title, f"{source}{height} × {width} each")
    canvas.draw_arrow(x + GRID)
    x += GRID + GAP
    _draw_table(canvas, x, fit)
    canvas.draw_arrow(x + TABLE)
    x += TABLE + GAP
    regressor = fit.settings.get("regressor", "regressor").rpartition(":")[2]
    _draw_curves(canvas, x, fit, REGRESSORS.get(regressor, regressor))
    canvas.draw_arrow(x + CURVES)
    _draw_mask(canvas, x + CURVES + GAP, fit)


def _draw_start(canvas: _Canvas, fit: Fit) -> float:
    """Draw the heading, the image, and the arrow from it; return where the next step starts."""
    canvas.write(
        0.05,
        HEIGHT - 0.02,
        fit.entry["name"],
        8,
        ha="left",
        va="top",
        fontweight="bold",
        color=darken(fit.colour),
    )
    resized = fit.settings.get("size")
    caption = f"{fit.size[0]} × {fit.size[1]} pixels"
    caption += f"\nresized to {resized} × {resized}" if resized else ""
    canvas.show(0.05, PICTURE, fit.image, "image", caption)
    canvas.draw_arrow(0.05 + PICTURE)
    return 0.05 + PICTURE + GAP


def _draw_mask(canvas: _Canvas, x: float, fit: Fit) -> None:
    picture = np.where(fit.prediction.mask, 0.8, 0.1)
    axes = canvas.show(x, PICTURE, picture, "mask", f"Dice {fit.prediction.dice:.3f}\nline: true outline")
    draw_outline(axes, fit.truth, OUTLINE, 0.9)


def _draw_table(canvas: _Canvas, x: float, fit: Fit) -> None:
    """Draw some rows of the image's table: a pixel's row and column, its values, and its share of lung."""
    count, height, width = fit.maps.shape
    values = fit.maps.reshape(count, -1)
    places = _choose_rows(fit.shares)
    columns = range(min(3, count))
    lines = [["pixel", *map(str, columns), "…", f"{count - 1}", "lung"]]
    for place in places:
        numbers = [_write_number(values[column, place]) for column in (*columns, -1)]
        share = f"{fit.shares.ravel()[place]:.2f}"
        lines.append([f"{place // width}, {place % width}", *numbers[:-1], "…", numbers[-1], share])
    ends = x + np.cumsum([0.32, *[0.22] * len(columns), 0.12, 0.2, 0.27])
    pitch, half = 0.15, 0.15 * len(lines) / 2
    for number, cells in enumerate(lines):
        for end, cell in zip(ends, cells, strict=True):
            bold = {"fontweight": "bold"} if number == 0 else {}
            canvas.write(end, MIDDLE + half - (number + 0.5) * pitch, cell, 5.5, ha="right", **bold)
    canvas.axes.plot([x, ends[-1]], [MIDDLE + half - pitch] * 2, color=GREY, linewidth=0.6)
    caption = f"{height * width:,} rows × {count} maps\nof this image, {len(places)} rows shown"
    canvas.name_step(x + TABLE / 2, half, "table of pixels", caption)


def _write_number(value: float) -> str:
    """Write three digits, as far as they are before the decimal point or the first two after it."""
    return f"{value:.{max(0, 2 - len(str(int(abs(value)))) + 1)}f}"


def _choose_rows(shares: np.ndarray) -> np.ndarray:
    """Choose pixels from no lung to all lung, evenly spaced in that order; return ascending flat indices."""
    order = np.argsort(shares, axis=None, kind="stable")
    spaced = np.linspace(0, len(order) - 1, min(PIXELS, len(order)) * 2 + 1).round().astype(int)
    return np.sort(order[spaced[1::2]])


def _draw_curves(canvas: _Canvas, x: float, fit: Fit, title: str) -> None:
    """Draw the training's loss and accuracy in a box, or Dice where one isn't recorded."""
    half = 0.8
    history = fit.history
    recorded = set(history.columns[history.notna().any()]) if len(history) > 1 else set()
    measures = [each for each in MEASURES if recorded & {f"{kind}_{each}" for kind in LINES}][:2]
    canvas.draw_box(x, MIDDLE - half, CURVES, 2 * half, "" if measures else "fitted\nin one step")
    for number, measure in enumerate(measures):
        axes = canvas.add_axes(x + 0.33, MIDDLE + 0.17 - number * 0.72, CURVES - 0.4, 0.48)
        for kind, look in LINES.items():
            if (column := f"{kind}_{measure}") in recorded:
                line = history[["step", column]].dropna()
                axes.plot(line["step"], line[column], color=fit.colour, linewidth=1, **look)
        axes.set_title(LABELS[measure], fontsize=6, pad=2)
        axes.tick_params(labelsize=5.5, length=1.5, pad=1)
        axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(3))
    if measures:
        axes.set_xlabel(str(history["unit"].iloc[0]), fontsize=6, labelpad=1)
    caption = "dashed: training\nline: validation" if measures else ""
    canvas.name_step(x + CURVES / 2, half, title, caption)


def _draw_network(canvas: _Canvas, fit: Fit) -> None:
    """Draw B: image, ResNet50, ASPP, decoder, mask, and the curves of the training of all of it."""
    network = fit.settings.get("network") or {}
    x = _draw_start(canvas, fit)
    backbone = x
    x = _draw_backbone(canvas, x, fit, network)
    canvas.draw_arrow(x)
    x = _draw_aspp(canvas, x + GAP, network.get("rates"))
    canvas.draw_arrow(x)
    x = _draw_decoder(canvas, x + GAP, backbone)
    canvas.draw_arrow(x)
    _draw_mask(canvas, x + GAP, fit)
    _draw_curves(canvas, DOUBLE - 0.05 - CURVES, fit, "training of all layers")


def _draw_backbone(canvas: _Canvas, x: float, fit: Fit, network: dict[str, Any]) -> float:
    """Draw the stages of ResNet50, each as high as its maps are large; return where they end."""
    stages = STRIDES[: 3 if network.get("topology") == "seed" else 4]
    for number, most in enumerate(stages):
        stride = min(most, network.get("output_stride", 16))
        height = 1.2 * (4 / stride) ** 0.5
        canvas.draw_box(x + number * 0.33, MIDDLE - height / 2, 0.25, height, f"stride {stride}", rotation=90)
    end = x + 0.33 * len(stages) - 0.08
    canvas.name_step((x + end) / 2, 0.6, "ResNet50", "")
    canvas.write((x + end) / 2, 0.37, fit.weights, va="top")
    return end


def _draw_aspp(canvas: _Canvas, x: float, rates: list[int] | None) -> float:
    """Draw the parallel branches of ASPP; return where they end."""
    dilated = [f"3 × 3, rate {rate}" for rate in rates] if rates else ["3 × 3, dilated"] * 3
    branches = ["1 × 1", *dilated, "mean of image"]
    for number, text in enumerate(branches):
        canvas.draw_box(x, MIDDLE + 0.5 - 0.22 * (number + 0.5) - 0.04, 0.82, 0.18, text)
    canvas.name_step(x + 0.41, 0.55, "ASPP", "")
    return x + 0.82


def _draw_decoder(canvas: _Canvas, x: float, backbone: float) -> float:
    """Draw the decoder and the path to it from the first stage of the backbone; return where it ends."""
    canvas.draw_box(x, MIDDLE - 0.4, 0.75, 0.8, "upsample,\njoin,\nconvolve", linespacing=1.4)
    canvas.name_step(x + 0.375, 0.4, "decoder", "")
    corners = [(backbone + 0.125, MIDDLE - 0.6), (backbone + 0.125, 0.4), (x + 0.375, 0.4)]
    canvas.draw_path([*corners, (x + 0.375, MIDDLE - 0.4)])
    canvas.write(x - 0.3, 0.37, "fine maps of the first stage", va="top")
    return x + 0.75
