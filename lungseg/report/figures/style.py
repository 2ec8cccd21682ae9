"""Define the style of all figures: widths, fonts, colours, scales, and how a figure is stored."""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from lungseg.system.files import write_atomically

SINGLE = 3.5  # inches: one column of a two-column page
DOUBLE = 7.2  # inches: both columns
DPI = 200

# Okabe and Ito, "Color Universal Design" (2008), without its yellow, which is too pale for a line on
# white; further approaches take dark tones of Paul Tol's "muted" scheme.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#332288", "#882255", "#117733")
GREYS = ("#777777", "#222222", "#AAAAAA")  # baselines
DARK = "#222222"  # what belongs to no approach

AGREES, FALSE, MISSED = "#56B4E9", "#D55E00", "#F0E442"  # areas laid over an X-ray
OUTLINE = "#F0E442"

RC = {
    "font.family": "DejaVu Sans",  # comes with Matplotlib, so a figure looks the same everywhere
    **dict.fromkeys(("font.size", "axes.titlesize", "axes.labelsize", "figure.titlesize"), 8),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 7),
    "figure.dpi": DPI,
    **dict.fromkeys(("axes.linewidth", "xtick.major.width", "ytick.major.width"), 0.6),
    **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 2.5),
    "xtick.minor.width": 0.4,
    "xtick.minor.size": 1.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#444444",
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "lines.linewidth": 1.2,
    "legend.frameon": False,
    "image.interpolation": "auto",
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "pdf.fonttype": 42,  # TrueType: text in the PDF can be searched, and journals accept it
}

# Dice is drawn on a logarithmic scale of 1 - Dice: so both the steps between good approaches and the tail
# of failures are visible. A Dice above the last tick is drawn at the last tick.
DICE_TICKS = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
FEW_TICKS = 4


def use_house_style() -> AbstractContextManager[None]:
    """Give Matplotlib this style within the block, whatever the user's settings; restore those afterwards."""
    return matplotlib.style.context(["default", RC])


def make_figure(width: float, height: float) -> Figure:
    """Make a figure of a size in inches, apart from pyplot's state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, directory: Path, stem: str) -> list[Path]:
    """Store `figure` as `stem`.png (200 dpi) and `stem`.pdf; the same figure gives the same bytes.

    Call it within `use_house_style`. The figure is laid out here and keeps its layout. Raises InputError if
    the directory can't be written.
    """
    figure.set_dpi(DPI)
    if engine := figure.get_layout_engine():
        engine.execute(figure)
        figure.set_layout_engine(None)  # once for both formats: a layout takes as long as drawing
    paths = []
    for suffix, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix, dpi=DPI, metadata=metadata)
        paths.append(directory / f"{stem}.{suffix}")
        write_atomically(paths[-1], buffer.getvalue())
    return paths


def assign_colours(names: Sequence[str], baselines: set[str]) -> dict[str, str]:
    """Give each approach a colour by its place in the spec: grey for baselines, the palette for others."""
    greys, colours = cycle(GREYS), cycle(PALETTE)
    return {name: next(greys if name in baselines else colours) for name in names}


def darken(colour: str) -> tuple[float, float, float]:
    """Return a darker tone of a pale colour, so that text in it can be read."""
    red, green, blue = to_rgb(colour)
    lightness = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    factor = min(1.0, 0.38 / max(lightness, 1e-6))
    return red * factor, green * factor, blue * factor


def wrap_name(name: str, width: int) -> str:
    """Break a long name after spaces, hyphens and underscores into lines of at most about `width` letters."""
    lines = [""]
    for piece in re.findall(r"[^-_ ]*[-_ ]|[^-_ ]+", name):
        if lines[-1] and len((lines[-1] + piece).rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)


def format_n(counts: Collection[float]) -> str:
    """Format the sizes of several rows: "n = 141", or "n = 60 to 141" if they differ."""
    low, high = int(min(counts)), int(max(counts))
    return f"n = {low}" if low == high else f"n = {low} to {high}"


def add_legend_below(figure: Figure, handles: Sequence[Line2D | Patch], title: str | None = None) -> None:
    """Add a legend below all panels, in as many columns as fit, and make the figure higher for it."""
    labels = [wrap_name(str(handle.get_label()), 42) for handle in handles]
    letters = max(len(line) for label in labels for line in label.splitlines())
    columns = max(1, min(len(labels), int(figure.get_figwidth() // (0.45 + 0.058 * letters))))
    lines = [label.count("\n") + 1 for label in labels]
    per_column = -(-len(labels) // columns)
    height = max(sum(lines[start : start + per_column]) for start in range(0, len(lines), per_column))
    figure.set_figheight(figure.get_figheight() + 0.15 * (height + (title is not None)))
    look = {"handlelength": 2.4, "title": title, "title_fontsize": 7, "alignment": "left"}
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, **look)


def name_rows(
    axes: Axes, texts: Sequence[str], tones: Sequence[str], places: Sequence[float] | None = None, **look: Any
) -> None:
    """Write a text beside each row, in a dark tone of its colour, and hide the axis line and its ticks.

    Rows are at the heights `places`, or at 0, 1, 2, ...; `look` is of all texts, such as their size.
    """
    axes.set_yticks(range(len(texts)) if places is None else places, texts, **look)
    for tick, tone in zip(axes.get_yticklabels(), tones, strict=True):
        tick.set_color(darken(tone))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def set_log_ticks(axis: Axis, low: float, high: float) -> None:
    """Write plain numbers on a logarithmic axis; also at 2 and 5 of each decade if it has few decades."""
    ticks = LogLocator(subs=(1, 2, 5) if np.log10(high / low) < 3.4 else (1,)).tick_values(low, high)
    axis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(NullFormatter())


def set_dice_scale(axes: Axes, which: str, values: Sequence[float]) -> None:
    """Give the "x" or "y" axis of `axes` the logarithmic scale of 1 - Dice, wide enough for `values`."""
    finite = np.asarray([value for value in values if np.isfinite(value)])
    low, high = to_digits(np.array([finite.min(), finite.max()]))
    margin = 0.06 * max(high - low, 0.2)
    limits = from_digits(np.array([max(low - margin, -0.03), min(high + margin, 3.03)]))
    set_scale = axes.set_xscale if which == "x" else axes.set_yscale
    set_scale("function", functions=(to_digits, from_digits))
    ticks = _choose_dice_ticks(*limits)
    labels = [_format_dice_tick(tick) for tick in ticks]
    axes.set(**{f"{which}lim": limits, f"{which}ticks": ticks, f"{which}ticklabels": labels})
    axes.grid(axis=which)


def _choose_dice_ticks(low: float, high: float) -> list[float]:
    """Return the usual ticks, or evenly spaced ones if too few of these are on the axis."""
    ticks = [tick for tick in DICE_TICKS if low <= tick <= high]
    if len(ticks) < FEW_TICKS:
        even = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(low, high)
        ticks = [round(float(tick), 6) for tick in even if low <= tick <= min(high, DICE_TICKS[-1])]
    return ticks


def _format_dice_tick(tick: float) -> str:
    text = f"{tick:g}".removeprefix("0") or "0"
    return f"≥ {text}" if tick == DICE_TICKS[-1] else text


def to_digits(dice: np.ndarray) -> np.ndarray:
    """Return -log10(1 - Dice), in which `set_dice_scale` is linear; cut just beyond its last tick."""
    return -np.log10(np.maximum(1 - np.asarray(dice, float), 10**-3.05))


def from_digits(digits: np.ndarray) -> np.ndarray:
    """Return the Dice of `to_digits`."""
    return 1 - 10 ** -np.asarray(digits, float)
