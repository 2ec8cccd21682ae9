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
    SINGLE,
    add_legend_below,
    assign_colours,
    make_figure,
    name_rows,
    set_log_ticks,
    wrap_name,
)
from lungseg.report.markup import format_amount
from lungseg.report.numbers.timing import SETTING, collect_stages, is_true, keep_copies

LINES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (5, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v")
# Paul Tol's "light" scheme: black text can be read on each.
STAGE_COLOURS = ("#77AADD", "#EE8866", "#44BB99", "#EEDD88", "#FFAABB", "#99DDFF", "#BBCC33", "#AAAA00")
OUTER_COLOURS = {"prepare": "#DDDDDD", "finish": "#BBBBBB"}


def draw_throughput(contents: Contents) -> Figure | None:
    """Draw images a second against batch size: a panel per device, a line per approach and setting.

    None if all were timed at the same batch size.
    """
    series = _collect_series(contents.timings)
    names = contents.sort_names(series["approach"])
    if not names or series["batch_size"].nunique() < 2:
        return None
    palette = assign_colours(contents.names, contents.baselines)
    variants = list(dict.fromkeys(series["variant"]))
    devices = list(dict.fromkeys(series["device"]))
    figure = make_figure(SINGLE, 2.2 * len(devices) + 0.2)
    panels = figure.subplots(len(devices), 1, squeeze=False, sharex=True)[:, 0]
    for axes, device in zip(panels, devices, strict=True):
        rows = series[series["device"] == device]
        for (name, variant), line in rows.groupby(["approach", "variant"], sort=False):
            line = line.sort_values("batch_size")
            look = _choose_look(variants.index(variant))
            axes.plot(line["batch_size"], line["images_per_s"], color=palette[name], **look)
        _set_throughput_axes(axes, rows["images_per_s"])
        axes.set_title(device.upper(), loc="left", fontweight="bold")
    batches = sorted(series["batch_size"].unique())
    panels[-1].set_xlabel("batch size")
    panels[-1].set_xticks(batches, [f"{batch:g}" for batch in batches])
    panels[-1].set_xticks([], minor=True)
    handles = [Line2D([], [], color=palette[name], label=name) for name in names]
    for place, variant in enumerate(variants if len(variants) > 1 else []):
        handles.append(Line2D([], [], color="#444444", **_choose_look(place), label=variant))
    add_legend_below(figure, handles)
    return figure


def _collect_series(timings: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of stage "whole", with copies if there are both, and their setting as `variant`."""
    whole = timings[(timings["stage"] == "whole") & (timings["images_per_s"] > 0)]
    groups = whole.groupby(["approach", "device", *SETTING], dropna=False, sort=False)
    chosen = pd.concat([keep_copies(rows) for _, rows in groups]) if len(whole) else whole
    sizes = len(chosen[["height", "width"]].drop_duplicates()) > 1
    return chosen.assign(variant=[_name_variant(row, sizes) for row in chosen.itertuples()])


def _name_variant(row: tuple, sizes: bool) -> str:
    words = [str(word) for word in (row.precision, row.layout) if pd.notna(word) and word]
    words += ["compiled"] if is_true(row.compiled) else []
    words += [f"{row.height:.0f} × {row.width:.0f}"] if sizes and pd.notna(row.height) else []
    return ", ".join(words)


def _choose_look(place: int) -> dict:
    look = {"linestyle": LINES[place % len(LINES)], "marker": MARKERS[place % len(MARKERS)]}
    return {**look, "markersize": 2.8, "linewidth": 1}


def _set_throughput_axes(axes: Axes, speeds: pd.Series) -> None:
    low, high = speeds.min() / 1.3, speeds.max() * 1.3
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    set_log_ticks(axes.yaxis, low, high)
    axes.set_ylabel("images/s")
    axes.grid()


def draw_stages(contents: Contents) -> Figure | None:
    """Draw the shares of the time of one image by stage: a panel per device, a bar per approach.

    The batch size is 1. Shares are of the whole timed in one go, so that an approach of 1 ms can be seen
    beside one of 100 ms. A bar ends at the sum of the stages.
    """
    frame = collect_stages(contents)
    if "whole" not in frame or not (frame["whole"] > 0).any():
        return None
    frame = frame[frame["whole"] > 0]
    names = [name for name in frame if name not in ("approach", "device", "decode", "sum", "whole", "ratio")]
    own = [name for name in names if name not in OUTER_COLOURS]
    shades = OUTER_COLOURS | dict(zip(own, cycle(STAGE_COLOURS), strict=False))
    devices = list(dict.fromkeys(frame["device"]))
    parts = [frame[frame["device"] == device] for device in devices]
    figure = make_figure(SINGLE, 0.3 * len(frame) + 0.3 * len(devices) + 0.4)
    heights = [len(part) + 0.2 for part in parts]
    panels = figure.subplots(len(parts), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    palette = assign_colours(contents.names, contents.baselines)
    for axes, part in zip(panels, parts, strict=True):
        _draw_stage_bars(axes, part, names, shades)
        texts = [wrap_name(name, 20) for name in part["approach"]]
        tones = [palette[name] for name in part["approach"]]
        name_rows(axes, texts, tones, fontsize=6.5, linespacing=1.0)
        axes.set_title(part["device"].iloc[0].upper(), loc="left", fontweight="bold", pad=3)
        axes.set_title("whole, ms", loc="right", fontsize=6.5, pad=3)
    panels[-1].set_xlabel("time, % of the whole; batch size 1")
    handles = [Patch(color=shades[name], label=name) for name in names]
    add_legend_below(figure, [*handles, Line2D([], [], color=DARK, label="whole, timed in one go")])
    _drop_wide_numbers(figure, panels)
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
            axes.text(start + share / 2, place, number, **look)
            start += share
        number, look = format_amount(row["whole"]), {"fontsize": 6.5, "ha": "right", "va": "center"}
        axes.annotate(number, (1, place), xycoords=("axes fraction", "data"), **look)
    axes.axvline(100, color=DARK, linewidth=1)
    axes.set_ylim(len(part) - 0.5, -0.5)
    axes.set_xticks([0, 25, 50, 75, 100])


def _drop_wide_numbers(figure: Figure, panels: Sequence[Axes]) -> None:
    """Remove the numbers that are wider than their piece of a bar."""
    widest = max(bar.get_x() + bar.get_width() for axes in panels for bar in axes.patches)
    panels[0].set_xlim(0, 1.2 * max(widest, 100))
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    for axes in panels:
        numbers = [text for text in axes.texts if text.get_ha() == "center"]
        for bar, number in zip(axes.patches, numbers, strict=True):
            if number.get_window_extent(renderer).width > bar.get_window_extent(renderer).width:
                number.remove()
