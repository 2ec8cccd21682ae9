"""Draw speed: images a second against batch size, and the stages of the time of one image."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lungseg.report.contents import Contents
from lungseg.report.figures.style import (
    DARK,
    DOUBLE,
    SINGLE,
    add_legend_below,
    assign_colours,
    lay_out_figure,
    make_figure,
    name_rows,
    set_log_ticks,
    wrap_name,
)
from lungseg.report.markup import format_amount
from lungseg.report.numbers.timing import TIMED, collect_stages, is_true, keep_copies, name_program

LINES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (5, 1, 1, 1, 1, 1)))  # of settings
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")  # of approaches
FEWEST_SIZES = 3  # of batches; fewer are told by the table
# Pale, so that black text can be read on each, and none is an approach's colour.
STAGE_COLOURS = ("#E8DCC0", "#C9DCE6", "#DCCFE3", "#D3E0C2", "#F0CFC6", "#BFD8CF", "#E3E3A8", "#D9C2B4")
OUTER_COLOURS = {"prepare": "#E6E6E6", "finish": "#BDBDBD"}
STAGE_TEXTS = {
    "prepare": "prepare: image resized, made a batch",
    "finish": "finish: map resized to the image",
    "repeat": "repeat: stored mask copied",
}


def draw_throughput(contents: Contents) -> Figure | None:
    """Draw images a second against batch size: a panel per device, a line per approach and setting.

    None if no approach was timed at FEWEST_SIZES batch sizes.
    """
    series = _collect_series(contents.timings)
    names = contents.sort_names(series["approach"])
    if not names or series.groupby("approach")["batch_size"].nunique().max() < FEWEST_SIZES:
        return None
    palette = assign_colours(contents)
    markers = dict(zip(contents.names, cycle(MARKERS), strict=False))
    variants = list(dict.fromkeys(series["variant"]))
    devices = list(dict.fromkeys(series["device"]))
    figure = make_figure(SINGLE, 2.2 * len(devices) + 0.2)
    panels = figure.subplots(len(devices), 1, squeeze=False, sharex=True)[:, 0]
    size = {"markersize": 3.5, "linewidth": 1}
    for axes, device in zip(panels, devices, strict=True):
        rows = series[series["device"] == device]
        for (name, variant), line in rows.groupby(["approach", "variant"], sort=False):
            line = line.sort_values("batch_size")
            look = {"color": palette[name], "marker": markers[name], **size}
            look["linestyle"] = LINES[variants.index(variant) % len(LINES)]
            axes.plot(line["batch_size"], line["images_per_s"], **look)
        _set_throughput_axes(axes, rows["images_per_s"])
        axes.set_title(device.upper(), loc="left", fontweight="bold")
    batches = sorted(series["batch_size"].unique())
    panels[-1].set_xlabel("batch size")
    panels[-1].set_xticks(batches, [f"{batch:g}" for batch in batches])
    panels[-1].set_xticks([], minor=True)
    handles = [
        Line2D([], [], color=palette[name], marker=markers[name], **size, label=name) for name in names
    ]
    for variant, style in zip(variants if len(variants) > 1 else [], cycle(LINES), strict=False):
        handles.append(Line2D([], [], color="#444444", linewidth=1, linestyle=style, label=variant))
    add_legend_below(figure, handles)
    return figure


def _collect_series(timings: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of stage "whole", with copies if there are both, and their setting as `variant`."""
    whole = timings[(timings["stage"] == "whole") & (timings["images_per_s"] > 0)]
    groups = whole.groupby(["approach", "device", *TIMED], dropna=False, sort=False)
    chosen = pd.concat([keep_copies(rows) for _, rows in groups]) if len(whole) else whole
    sizes = len(chosen[["height", "width"]].drop_duplicates()) > 1
    return chosen.assign(variant=[_name_variant(row, sizes) for row in chosen.itertuples()])


def _name_variant(row: tuple, sizes: bool) -> str:
    words = [str(word) for word in (row.precision, row.layout) if pd.notna(word) and word]
    words += ["compiled"] if is_true(row.compiled) else []
    words += [program] if (program := name_program(row.tuned, row.deterministic)) else []
    words += [f"{row.height:.0f} × {row.width:.0f}"] if sizes and pd.notna(row.height) else []
    return ", ".join(words)


def _set_throughput_axes(axes: Axes, speeds: pd.Series) -> None:
    low, high = speeds.min() / 1.3, speeds.max() * 1.3
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    set_log_ticks(axes.yaxis, low, high)
    axes.set_ylabel("images/s")
    axes.grid()


def draw_stages(contents: Contents) -> Figure | None:
    """Draw where the time of one image goes: by approach its stages in % of the whole, and the whole in ms.

    The batch size is 1. The whole is timed in one go; a bar ends at the sum of the stages. Milliseconds are
    on a logarithmic axis, so that an approach of 1 ms can be seen beside one of 100 ms.
    """
    frame = collect_stages(contents)
    if "whole" not in frame or not (frame["whole"] > 0).any():
        return None
    frame = frame[frame["whole"] > 0]
    names = [name for name in frame if name not in ("approach", "device", "decode", "sum", "whole", "ratio")]
    own = [name for name in names if name not in OUTER_COLOURS]
    shades = OUTER_COLOURS | dict(zip(own, cycle(STAGE_COLOURS), strict=False))
    parts = [rows for _, rows in frame.groupby("device", sort=False)]
    figure = make_figure(DOUBLE, 0.24 * len(frame) + 0.3 * len(parts) + 0.4)
    look = {"height_ratios": [len(part) for part in parts], "width_ratios": (3, 2)}
    panels = figure.subplots(len(parts), 2, squeeze=False, sharex="col", **look)
    palette = assign_colours(contents)
    for (left, right), part in zip(panels, parts, strict=True):
        _draw_stage_bars(left, part, names, shades)
        tones = [palette[name] for name in part["approach"]]
        name_rows(left, [wrap_name(name, 30) for name in part["approach"]], tones, linespacing=1.0)
        left.set_title(part["device"].iloc[0].upper(), loc="left", fontweight="bold", pad=3)
        _draw_whole(right, part["whole"], tones)
    low, high = frame["whole"].min() / 1.6, frame["whole"].max() * 4  # space for the last number
    panels[0, 1].set_xlim(low, high)
    set_log_ticks(panels[0, 1].xaxis, low, high)
    panels[-1, 0].set_xlabel("time of its stages, % of the whole")
    panels[-1, 1].set_xlabel("whole, ms (logarithmic); batch size 1")
    handles = [Patch(facecolor=shades[name], label=STAGE_TEXTS.get(name, name)) for name in names]
    handles.append(Line2D([], [], color=DARK, label="whole, timed in one go"))
    add_legend_below(figure, handles, "Stages are timed one by one, so a bar may pass 100 %")
    _drop_wide_numbers(figure, panels[:, 0])
    return figure


def _draw_stage_bars(axes: Axes, part: pd.DataFrame, names: Sequence[str], shades: dict[str, str]) -> None:
    for place, row in enumerate(part.to_dict("records")):
        start = 0.0
        for name in names:
            if pd.isna(row[name]):
                continue
            share = 100 * row[name] / row["whole"]
            look = {"height": 0.7, "edgecolor": "white", "linewidth": 0.4}
            axes.barh(place, share, left=start, color=shades[name], **look)
            number, look = format_amount(row[name]), {"fontsize": 6, "ha": "center", "va": "center"}
            axes.text(start + share / 2, place, f"{number} ms", **look)
            start += share
    axes.axvline(100, color=DARK, linewidth=1)
    axes.set_ylim(len(part) - 0.5, -0.5)
    axes.set_xticks([0, 25, 50, 75, 100])


def _draw_whole(axes: Axes, times: pd.Series, tones: Sequence[str]) -> None:
    """Draw a point a row at its milliseconds, with the number beside it."""
    axes.set_xscale("log")
    for place, (time, tone) in enumerate(zip(times, tones, strict=True)):
        axes.plot(time, place, "o", color=tone, markersize=4.5)
        look = {"textcoords": "offset points", "va": "center", "fontsize": 6.5, "color": DARK}
        axes.annotate(format_amount(time), (time, place), (5, 0), **look)
    axes.set_ylim(len(times) - 0.5, -0.5)
    axes.set_yticks([])
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)


def _drop_wide_numbers(figure: Figure, panels: Sequence[Axes]) -> None:
    """Remove the numbers that are wider than their piece of a bar."""
    widest = max(bar.get_x() + bar.get_width() for axes in panels for bar in axes.patches)
    panels[0].set_xlim(0, 1.02 * max(widest, 100))
    lay_out_figure(figure)
    renderer = figure.canvas.get_renderer()
    for axes in panels:
        numbers = [text for text in axes.texts if text.get_ha() == "center"]
        for bar, number in zip(axes.patches, numbers, strict=True):
            if number.get_window_extent(renderer).width > bar.get_window_extent(renderer).width:
                number.remove()
