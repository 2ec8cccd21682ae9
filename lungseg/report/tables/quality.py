"""Make the tables of how good the masks are: spread, boundaries, lungs, probabilities, sources."""

from __future__ import annotations

import pandas as pd

from lungseg.report.contents import Contents
from lungseg.report.markup import EMPTY, Section, Table, format_amount, format_interval, format_score
from lungseg.report.numbers.quality import average_by_seed, average_by_source, collect_main_rows
from lungseg.report.sentences.images import find_unit

UNNAMED = "unnamed source"

# Column of `collect_main_rows`, its title, and the format of its numbers.
_BOUNDARIES = [
    ("hd95", "HD95, {unit} [95 % interval]", format_amount),
    ("assd", "ASSD, {unit} [95 % interval]", format_amount),
    ("hausdorff", "Hausdorff, {unit}", format_amount),
    ("surface_dice_1", "Surface Dice 1 %", format_score),
    ("surface_dice_2", "Surface Dice 2 %", format_score),
    ("dice_left", "Dice, left lung", format_score),
    ("dice_right", "Dice, right lung", format_score),
    ("area_error", "Area error", format_score),
]
_PIXELS = [
    ("accuracy", "Pixel accuracy", format_score),
    ("pooled_f1", "Pooled F1", format_score),
    ("precision", "Precision", format_score),
    ("recall", "Recall", format_score),
    ("specificity", "Specificity", format_score),
    ("brier", "Brier score", format_score),
    ("calibration_error", "Calibration error", format_score),
]
_BOUNDARIES_TEXT = (
    "Means over patients, intervals bootstrap-t over patients. HD95 and Hausdorff: the larger of both "
    "directions, of their 95th percentiles and of their maxima; ASSD: average symmetric surface distance. "
    "With one mask empty, a distance is the diagonal. Surface Dice: at a tolerance of 1 and 2 "
    "% of the image's longer side. Left and right are the patient's. Area error: relative to the true area. "
    "Less is better in distances and area error."
)
_PIXELS_TEXT = (
    "Means over patients, but pooled F1 takes all pixels of all images together. Brier score: mean squared "
    "error of the map before the threshold. Calibration error: expected one over all pixels, the mean "
    "distance of a bin's share of lung from its mean probability. Less is better in both."
)


def make_quality_sections(contents: Contents) -> list[Section | None]:
    """Make all tables of this module; None in place of one that the stored results have no numbers for."""
    frame = collect_main_rows(contents).drop_duplicates("approach")
    return [
        _make_spread_section(contents, frame),
        _make_means_section("Boundaries and lungs", frame, _BOUNDARIES, _BOUNDARIES_TEXT),
        _make_means_section("Pixels and probabilities", frame, _PIXELS, _PIXELS_TEXT),
        _make_source_section(contents),
    ]


def _make_means_section(title: str, frame: pd.DataFrame, wanted: list[tuple], text: str) -> Section | None:
    """Make a row per approach, with the wanted columns in which any approach has a number."""
    columns = [column for column in wanted if frame[column[0]].notna().any()]
    if not columns:
        return None
    rows = []
    for row in frame.to_dict("records"):
        cells = [
            format_interval(show, row[name], row.get(f"{name}_low"), row.get(f"{name}_high"))
            for name, _, show in columns
        ]
        rows.append([row["approach"], *cells])
    unit = frame["distance_unit"].iloc[0]
    header = ["Approach", *(head.format(unit=unit) for _, head, _ in columns)]
    return Section(title, Table(header, rows), text)


def _make_spread_section(contents: Contents, frame: pd.DataFrame) -> Section | None:
    """Show how Dice varies over images, and the means of the seeds; None without results."""
    if frame.empty:
        return None
    who = f"{find_unit(contents)}s"
    header = ["Approach", who.capitalize(), "Mean", "Median", "SD", "5th to 95th percentile", "Seeds"]
    text = f"Of the Dice of {who}."
    several = frame["seeds"].max() > 1
    if several:
        header += ["SD of seeds' means", "Range of seeds' means"]
        text += " Seeds are averaged per image first; the seeds' own means show what a training may bring."
    rows = []
    for row in frame.to_dict("records"):
        cells = [f"{row['n']:.0f}", *(format_score(row[f"dice{name}"]) for name in ("", "_median", "_sd"))]
        cells += [_format_range(row["dice_p5"], row["dice_p95"]), f"{row['seeds']:.0f}"]
        if several:
            means = average_by_seed(contents, row["approach"])
            spread = _format_range(means.min(), means.max()) if row["seeds"] > 1 else EMPTY
            cells += [format_score(row["dice_seed_sd"]), spread]
        rows.append([row["approach"], *cells])
    return Section(f"Spread over {who}", Table(header, rows), text)


def _format_range(low: float, high: float) -> str:
    return EMPTY if pd.isna(low) or pd.isna(high) else f"{format_score(low)} to {format_score(high)}"


def _make_source_section(contents: Contents) -> Section | None:
    """Show the mean Dice by source; None if all images come from one."""
    frame, counts = average_by_source(contents), contents.sources.value_counts()
    if len(counts) < 2 or frame.empty:
        return None
    header = ["Approach", *(f"{source or UNNAMED} (n = {counts[source]})" for source in frame)]
    rows = [[name, *(format_score(value) for value in frame.loc[name])] for name in frame.index]
    return Section("Dice by source", Table(header, rows), "Mean over the images of each source.")
