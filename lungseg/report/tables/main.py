"""Make the main table: quality, training time and time per image, with what a reader must know of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import pandas as pd

from lungseg.report.markup import (
    EMPTY,
    Table,
    escape_markdown,
    format_amount,
    format_bullets,
    format_duration,
    format_interval,
    format_score,
)
from lungseg.report.numbers.timing import is_true

SHOWN = ("dice", "group", "dice_seed_sd", "iou", "hd95", "training_seconds", "device", "ms_per_image")
TIMES = {
    *("device", "compute_precision", "layout", "compiled", "copies", "ms_per_image", "ms_iqr", "ms_p90"),
    *("best_images_per_s", "best_batch_size", "peak_memory_mib", "joules_per_image", "gflops", "peak_share"),
}
# What a reader must know of a column, beside its title.
_MEANINGS = {
    "dice_low": "The interval of Dice is a bootstrap-t one.",
    "group": "Group: the tests don't separate approaches that share a letter (Holm's correction, level .05).",
    "dice_seed_sd": "Seeds are averaged per image. Seed SD: the spread of the seeds' own means.",
    "pooled_f1": "Pooled F1 takes all pixels together.",
    "surface_dice_1": "Surface Dice: share of both boundaries within 1 or 2 % of the image's longer side.",
    "dice_left": "Left and right are the patient's.",
    "area_error": "Area error: relative to the true area, less is better.",
    "brier": "Brier score: mean squared error of the map before the threshold, less is better.",
    "calibration_error": "Calibration error: expected one over all pixels, less is better.",
}
_DISTANCES = {"hd95": "HD95: 95th percentile", "assd": "ASSD: average", "hausdorff": "Hausdorff: maximum"}


def make_main_section(frame: pd.DataFrame, notes: Sequence[str]) -> str:
    """Write `collect_main_rows` in Markdown, and notes of what to be careful about and what is missing."""
    table = "No approach has results yet.\n"
    if len(frame):
        text = escape_markdown(f"Means over patients. {describe_columns(frame)}")
        table = f"{make_main_table(frame).to_markdown()}\n{text}\n"
    bullets = format_bullets(notes)
    return f"{table}\n{bullets}" if bullets else table


def find_columns(frame: pd.DataFrame, columns: Collection[str]) -> list[str]:
    """Return those of the columns that hold anything; a spread of seeds only if there were several."""
    found = [name for name in columns if name in frame and (frame[name].notna() & (frame[name] != "")).any()]
    return [name for name in found if name != "dice_seed_sd" or frame["seeds"].max() > 1]


def describe_columns(frame: pd.DataFrame, columns: Collection[str] = SHOWN) -> str:
    """Explain those of the columns of `collect_main_rows` that hold anything, in short sentences."""
    # Dice stands with the ends of its interval, if it has any.
    found = find_columns(frame, [*columns, "dice_low"] if "dice" in columns else columns)
    sentences = [text for name, text in _MEANINGS.items() if name in found]
    if distances := [text for name, text in _DISTANCES.items() if name in found]:
        sentences.append(f"{', '.join(distances)} of the distance between both boundaries, less is better.")
        sentences.append("With one mask empty, a distance is the image's diagonal.")
    if TIMES & {*found}:
        sentences.append(_describe_times(frame, found))
    elif TIMES & {*columns}:
        sentences.append("No approach was timed.")
    return " ".join(sentences)


def _describe_times(frame: pd.DataFrame, found: Collection[str]) -> str:
    """Say what a time is of, and on which device if no column does."""
    copies = {is_true(value) for value in frame["copies"].dropna()}
    devices = list(dict.fromkeys(label_devices(frame).dropna()))
    text = "Time per image at batch size 1, median"
    if "device" not in found:
        text += f", on {' and '.join(devices)}"
    if len(copies) == 1:
        text += f"; copies between host and device {'included' if copies.pop() else 'left out'}"
    return f"{text}."


def label_devices(frame: pd.DataFrame) -> pd.Series:
    """Return the device of each row as people read it, with its number format if there are several."""
    devices = frame["device"].astype("string").str.upper()
    if len(set(frame["compute_precision"].dropna())) > 1:
        devices += (", " + frame["compute_precision"].astype("string")).fillna("")
    return devices.astype(object)


def make_main_table(frame: pd.DataFrame) -> Table:
    """Make the main table: a row per approach, and below it one with the time on each further device."""
    shown = find_columns(frame, SHOWN)
    titles = {
        "dice": "Dice [95 % interval]",
        "group": "Group",
        "dice_seed_sd": "Seed SD",
        "iou": "IoU",
        "hd95": f"HD95, {frame['distance_unit'].iloc[0]}",
        "training_seconds": "Training",
        "device": "Device",
        "ms_per_image": "ms/image (IQR)",
    }
    header = ["Approach", "Weights", *(titles[name] for name in shown)]
    labelled = frame.assign(device=label_devices(frame))
    rows, bold, seen = [], set(), set()
    for row in labelled.to_dict("records"):
        first = row["approach"] not in seen
        seen.add(row["approach"])
        names = [row["approach"], row["weights"]] if first else ["", ""]
        rows.append(names + [_format_cell(row, name) if first or name in TIMES else "" for name in shown])
        if first and row["dice"] == frame["dice"].max():
            bold.add((len(rows) - 1, 2))
    text = {header.index(title) for title in ("Approach", "Weights", "Group", "Device") if title in header}
    return Table(header, rows, bold, text)


def _format_cell(row: dict[str, Any], name: str) -> str:
    value = row[name]
    match name:
        case "dice":
            return format_interval(format_score, value, row["dice_low"], row["dice_high"])
        case "dice_seed_sd" | "iou":
            return format_score(value)
        case "hd95":
            return format_amount(value)
        case "training_seconds":
            return format_duration(value)
        case "ms_per_image":
            spread = f" ({format_amount(row['ms_iqr'])})" if pd.notna(row["ms_iqr"]) else ""
            return format_amount(value) + spread
    return EMPTY if pd.isna(value) or value == "" else value  # the device, the group
