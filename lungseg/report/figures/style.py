"""Define the style of all figures: widths, fonts, colours, scales, and how a figure is stored."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from lungseg.report.contents import Contents
from lungseg.report.markup import format_count
from lungseg.system.files import write_atomically

SINGLE = 3.5  # inches: one column of a two-column page
DOUBLE = 7.2  # inches: both columns
DPI = 200
METADATA = {"png": {"Software": None}, "pdf": {"CreationDate": None}}  # of a file, by its suffix

# Of Okabe and Ito, "Color Universal Design" (2008), the four colours that have a contrast of 3:1 on white,
# and darker ones that can be told from them in all common kinds of colour blindness.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#6B3E00", "#8B7BFF", "#882255", "#332288")
# Of what isn't known here. So many can't all be told apart in colour blindness: names stand beside them.
FURTHER = ("#006070", "#AA00CC", "#B00020", "#1B7F2A", "#997700", "#5C5CB8")
# What an approach is, as `identify_approach` says, has the same colour in every report.
KNOWN_COLOURS = {
    "deeplabv3plus-resnet50": PALETTE[0],
    "vgg19-pixels lightgbm": PALETTE[1],
    "vgg19-context": PALETTE[2],
    "vgg19-pixels ridge": PALETTE[3],
    "vgg19-pixels mlp": PALETTE[4],
    "benchmarks.peers.smp:SmpDeepLabV3Plus": PALETTE[5],
    "benchmarks.peers.smp:SmpUnet": PALETTE[6],
    "benchmarks.peers.smp:SmpUnetPlusPlus": PALETTE[7],
    "mean-mask": "#777777",
    "threshold": "#333333",
}
DARKEST = 0.4  # brightness of the last of several approaches of one colour; the first one has 1
DARK = "#222222"  # what belongs to no approach

AGREES, FALSE, MISSED = "#56B4E9", "#E6194B", "#F0E442"  # areas laid over an X-ray; of no approach
OUTLINE = "#00E5A0"  # of the true mask

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

# Differences up to LINEAR are on a linear scale, larger ones on a logarithmic one.
LINEAR = 0.01
DIFFERENCE_TICKS = (-0.1, -0.01, 0, 0.01, 0.1)  # more don't fit beside one another

SHORT = 3  # letters: no line of a name is shorter


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
    paths = [directory / f"{stem}.{suffix}" for suffix in METADATA]
    for path in paths:
        write_atomically(path, render_figure(figure, path.suffix[1:]))
    return paths


def render_figure(figure: Figure, suffix: str) -> bytes:
    """Return the file of `figure` as "png" or "pdf", without its date. Call it within `use_house_style`."""
    lay_out_figure(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=suffix, dpi=DPI, metadata=METADATA[suffix])
    return buffer.getvalue()


def lay_out_figure(figure: Figure) -> None:
    """Lay out a figure once for all, at its final size: a layout takes as long as drawing."""
    figure.set_dpi(DPI)
    if engine := figure.get_layout_engine():
        engine.execute(figure)
        figure.set_layout_engine(None)


def assign_colours(contents: Contents) -> dict[str, str]:
    """Give each approach a colour as "#RRGGBB" by what it is, whatever else the spec has.

    Known ones have theirs from KNOWN_COLOURS, others one of FURTHER: only if two of these have the same does
    the later one in alphabetical order take the next that is free. Several that are the same, such as a
    network at two sizes, get ever darker tones of one colour in the order of their names.
    """
    entries = contents.run["approaches"]
    colours = KNOWN_COLOURS | _choose_further({identify_approach(e) for e in entries} - set(KNOWN_COLOURS))
    same: dict[str, list[str]] = {}
    for entry in entries:
        same.setdefault(colours[identify_approach(entry)], []).append(entry["name"])
    found = {}
    for colour, names in same.items():
        names = sorted(names, key=lambda name: _split_numbers(contents.file_names.get(name, name)))
        for name, factor in zip(names, np.linspace(1, DARKEST, len(names)), strict=True):
            found[name] = to_hex(factor * np.array(to_rgb(colour))).upper()
    return {name: found[name] for name in contents.names}


def _choose_further(identities: Iterable[str]) -> dict[str, str]:
    """Give each identity the colour of FURTHER that its hash names, or the next that is free, if any is."""
    chosen: dict[str, str] = {}
    free: set[str] = set()
    for identity in sorted(identities):
        free = free or set(FURTHER)  # with more than there are, each colour is of several
        start = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:4], "big") % len(FURTHER)
        chosen[identity] = next(each for each in FURTHER[start:] + FURTHER[:start] if each in free)
        free.remove(chosen[identity])
    return chosen


def identify_approach(entry: dict[str, Any]) -> str:
    """Say what an entry of run.json's `approaches` is: what it uses, and the regressor if that makes it.

    Masks that were given have their name for it: each folder of them is of another tool.
    """
    if entry["use"] == "vgg19-pixels":
        return f"vgg19-pixels {entry.get('settings', {}).get('regressor', 'lightgbm')}"
    return f"masks {entry['name']}" if entry["use"] == "masks" else entry["use"]


def _split_numbers(name: str) -> list[tuple[int, str]]:
    """Return a key by which "net-48" is sorted before "net-128"."""
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in re.split(r"(\d+)", name)]


def darken(colour: str) -> tuple[float, float, float]:
    """Return a darker tone of a pale colour, so that text in it can be read."""
    red, green, blue = to_rgb(colour)
    lightness = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    factor = min(1.0, 0.38 / max(lightness, 1e-6))
    return red * factor, green * factor, blue * factor


def wrap_name(name: str, width: int) -> str:
    """Break a long name after spaces, hyphens and underscores into lines of at most about `width` letters.

    A number stays with the word after it ("48 px"), and no line has fewer than three letters.
    """
    pieces: list[str] = []
    for piece in re.findall(r"[^-_ ]*[-_ ]+|[^-_ ]+", name):
        if pieces and _belong_together(pieces[-1], piece):
            pieces[-1] += piece
        else:
            pieces.append(piece)
    if len(pieces) > 1 and len(pieces[-1]) < SHORT:
        pieces[-2:] = ["".join(pieces[-2:])]
    lines = [""]
    for piece in pieces:
        if lines[-1] and len((lines[-1] + piece).rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)


def _belong_together(left: str, right: str) -> bool:
    """Say whether no line may end between two pieces of a name: "A " and "Pixels", "48 " and "px"."""
    word = left.rstrip("-_ ").rpartition(" ")[2]
    number = re.search(r"(?<![^-_ ])[\d.,]+$", word) and not right[0].isdigit()
    return bool(number) or sum(letter.isalnum() for letter in word) < SHORT


def describe_n(contents: Contents, counts: Collection[float], unit: str = "image") -> str:
    """Describe the sizes of several rows: "141 test images", or "60 to 141 test images" if they differ."""
    low, high = int(min(counts)), int(max(counts))
    text = format_count(high, f"{contents.run['evaluate_on']} {unit}")
    return text if low == high else f"{low} to {text}"


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
    ticks = choose_dice_ticks(*limits)
    labels = [_format_dice_tick(tick) for tick in ticks]
    axes.set(**{f"{which}lim": limits, f"{which}ticks": ticks, f"{which}ticklabels": labels})
    axes.grid(axis=which)


def choose_dice_ticks(low: float, high: float) -> list[float]:
    """Return the usual ticks, or evenly spaced ones if too few of these are on the axis."""
    ticks = [tick for tick in DICE_TICKS if low <= tick <= high]
    if len(ticks) < FEW_TICKS:
        even = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(low, high)
        ticks = [round(float(tick), 6) for tick in even if low <= tick <= min(high, DICE_TICKS[-1])]
    return ticks


def _format_dice_tick(tick: float) -> str:
    return f"≥ {tick:g}" if tick == DICE_TICKS[-1] else f"{tick:g}"


def to_digits(dice: np.ndarray) -> np.ndarray:
    """Return -log10(1 - Dice), in which `set_dice_scale` is linear; cut just beyond its last tick."""
    return -np.log10(np.maximum(1 - np.asarray(dice, float), 10**-3.05))


def from_digits(digits: np.ndarray) -> np.ndarray:
    """Return the Dice of `to_digits`."""
    return 1 - 10 ** -np.asarray(digits, float)


def set_difference_scale(axes: Axes, values: Sequence[float]) -> str:
    """Give the x axis a scale on which all of `values`, differences of Dice, can be read, with their sign.

    It is linear for small differences. If some are large, it is logarithmic beyond LINEAR: the sentence that
    is returned says so, and is empty otherwise.
    """
    finite = np.asarray([0.0, *(value for value in values if np.isfinite(value))])
    low, high = finite.min(), finite.max()
    axes.grid(axis="x")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _format_difference(value)))
    if max(-low, high) <= 3 * LINEAR:
        margin = 0.06 * max(high - low, LINEAR / 10)
        axes.set_xlim(low - margin, high + margin)
        axes.xaxis.set_major_locator(MaxNLocator(len(DIFFERENCE_TICKS), steps=[1, 2, 5, 10]))
        return ""
    axes.set_xscale("symlog", linthresh=LINEAR)
    # To the next tick at least, so that the scale can be read where the points are.
    axes.set_xlim(1.25 * min(low, -0.1 if low < -2 * LINEAR else -LINEAR / 2), 1.25 * max(high, 0.1))
    ticks = [tick for tick in DIFFERENCE_TICKS if axes.get_xlim()[0] <= tick]
    axes.set_xticks(ticks, [_format_difference(tick) for tick in ticks])
    return f"Scale: linear within ±{LINEAR:g}, logarithmic beyond"


def _format_difference(value: float) -> str:
    value = round(value, 9)
    return f"{value:+g}".replace("-", "−") if value else "0"
