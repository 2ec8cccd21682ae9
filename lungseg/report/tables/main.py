"""Make the main table: quality, training time and time per image, with what a reader must know of it."""

from __future__ import annotations

from typing import Any

import pandas as pd

from lungseg.report.contents import Contents
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
from lungseg.report.sentences.cautions import list_cautions, list_gaps


def make_main_section(contents: Contents, frame: pd.DataFrame) -> str:
    """Write `collect_main_rows` in Markdown, with its cautions and gaps; the README shows it too."""
    table = "No approach has results yet.\n"
    if len(frame):
        table = f"{make_main_table(frame).to_markdown()}\n{escape_markdown(describe_columns(frame))}\n"
    bullets = format_bullets(list_cautions(contents) + list_gaps(contents))
    return f"{table}\n{bullets}" if bullets else table


def describe_columns(frame: pd.DataFrame) -> str:
    """Explain the columns of the main table."""
    text = (
        "Means over patients, Dice with its 95 % interval (bootstrap-t over patients); pooled F1 takes all "
        "pixels together. "
    )
    if frame[["hd95", "assd"]].notna().any(axis=None):
        text += (
            "HD95 and ASSD: 95th percentile and average of the surface distance, less is better; an image "
            "where a mask is missed counts with the image's diagonal. "
        )
    if frame["seeds"].max() > 1:
        text += "Seeds are averaged per image; seed SD is the spread of the seeds' own means. "
    if frame["device"].isna().all():
        return text + "No approach was timed."
    text += "Time per image at batch size 1, median (IQR)"
    copies = set(frame["copies"].dropna().map(str))
    included = {"True": "included", "False": "left out"}.get(copies.pop(), "") if len(copies) == 1 else ""
    return text + (f"; copies between host and device {included}." if included else ".")


def make_main_table(frame: pd.DataFrame) -> Table:
    """Make the main table: a row per approach, and below it one with the time on each further device."""
    several_seeds = frame["seeds"].max() > 1
    several_settings = len(frame["compute_precision"].dropna().unique()) > 1
    distances = [name for name in ("hd95", "assd") if frame[name].notna().any()]
    header = [
        *("Approach", "Weights", "Dice [95 % interval]"),
        *(["Seed SD"] if several_seeds else []),
        *("IoU", "Pixel accuracy", "Pooled F1"),
        *(f"{name.upper()}, {frame['distance_unit'].iloc[0]}" for name in distances),
        "Training",
    ]
    quality = len(header)
    header += ["Device", "ms/image (IQR)"]
    rows, bold, seen = [], set(), set()
    for row in frame.to_dict("records"):
        first = row["approach"] not in seen
        seen.add(row["approach"])
        cells = _format_quality(row, several_seeds, distances) if first else [""] * quality
        rows.append(cells + _format_speed(row, several_settings))
        if first and row["dice"] == frame["dice"].max():
            bold.add((len(rows) - 1, 2))
    return Table(header, rows, bold, text={0, 1, quality})


def _format_quality(row: dict[str, Any], several_seeds: bool, distances: list[str]) -> list[str]:
    return [
        row["approach"],
        row["weights"],
        format_interval(format_score, row["dice"], row["dice_low"], row["dice_high"]),
        *([format_score(row["dice_seed_sd"])] if several_seeds else []),
        *(format_score(row[name]) for name in ("iou", "accuracy", "pooled_f1")),
        *(format_amount(row[name]) for name in distances),
        format_duration(row["training_seconds"]),
    ]


def _format_speed(row: dict[str, Any], several_settings: bool) -> list[str]:
    if pd.isna(row["device"]):
        return [EMPTY, EMPTY]
    device = row["device"].upper()
    if several_settings and pd.notna(row["compute_precision"]):
        device += f", {row['compute_precision']}"
    spread = f" ({format_amount(row['ms_iqr'])})" if pd.notna(row["ms_iqr"]) else ""
    return [device, format_amount(row["ms_per_image"]) + spread]
