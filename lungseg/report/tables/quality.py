"""Tables of how good the masks are: boundaries, lungs, probabilities, spread, sources."""

from __future__ import annotations

import pandas as pd

from lungseg.report.contents import Contents
from lungseg.report.markup import EMPTY, Section, Table, amount, interval, score
from lungseg.report.numbers.quality import quality_frame, seed_means, source_frame
from lungseg.report.sentences.notes import unit_of

UNNAMED = "unnamed source"

# Column of `quality_frame`, its title, and how a number of it is shown.
_BOUNDARIES = [
    ("hd95", "HD95, {unit} [95 % interval]", amount),
    ("assd", "ASSD, {unit} [95 % interval]", amount),
    ("hausdorff", "Hausdorff, {unit}", amount),
    ("surface_dice_1", "Surface Dice 1 %", score),
    ("surface_dice_2", "Surface Dice 2 %", score),
    ("dice_left", "Dice, left lung", score),
    ("dice_right", "Dice, right lung", score),
    ("area_error", "Area error", score),
]
_PIXELS = [
    ("precision", "Precision", score),
    ("recall", "Recall", score),
    ("specificity", "Specificity", score),
    ("brier", "Brier score", score),
    ("calibration_error", "Calibration error", score),
]
_BOUNDARIES_TEXT = (
    "Means over patients, intervals bootstrap-t over patients. HD95 and Hausdorff: the larger of both "
    "directions, of their 95th percentiles and of their maxima; ASSD: average symmetric surface distance. An "
    "image where a mask is missed counts with the image's diagonal. Surface Dice: at a tolerance of 1 and 2 "
    "% of the image's longer side. Left and right are the patient's. Area error: relative to the true area. "
    "Less is better in distances and area error."
)
_PIXELS_TEXT = (
    "Means over patients. Brier score: mean squared error of the map before the threshold. Calibration "
    "error: expected one over all pixels, the mean distance of a bin's share of lung from its mean "
    "probability. Less is better in both."
)


def quality_sections(contents: Contents) -> list[Section]:
    """All tables of this module that the stored results have numbers for."""
    frame = quality_frame(contents)
    found = [
        _means("Boundaries and lungs", frame, _BOUNDARIES, _BOUNDARIES_TEXT),
        _means("Pixels and probabilities", frame, _PIXELS, _PIXELS_TEXT),
        source_section(contents),
    ]
    return [section for section in found if section]


def _means(title: str, frame: pd.DataFrame, wanted: list[tuple], text: str) -> Section | None:
    """A row per approach, of those columns that any approach has a number in."""
    columns = [column for column in wanted if frame[column[0]].notna().any()]
    if not columns:
        return None
    rows = []
    for row in frame.to_dict("records"):
        cells = [
            interval(show, row[name], row.get(f"{name}_low"), row.get(f"{name}_high"))
            for name, _, show in columns
        ]
        rows.append([row["approach"], *cells])
    unit = frame["distance_unit"].iloc[0]
    return Section(
        title, Table(["Approach", *(head.format(unit=unit) for _, head, _ in columns)], rows), text
    )


def spread_section(contents: Contents) -> Section | None:
    """How Dice varies over images, and the mean over seeds; None without results."""
    frame = quality_frame(contents)
    if frame.empty:
        return None
    who = f"{unit_of(contents)}s"
    header = ["Approach", who.capitalize(), "Mean", "Median", "SD", "5th to 95th percentile", "Seeds"]
    several = frame["seeds"].max() > 1
    header += ["SD of seeds' means", "Range of seeds' means"] if several else []
    rows = []
    for row in frame.to_dict("records"):
        cells = [f"{row['n']:.0f}", *(score(row[f"dice{name}"]) for name in ("", "_median", "_sd"))]
        cells += [_range(row["dice_p5"], row["dice_p95"]), f"{row['seeds']:.0f}"]
        if several:
            means = seed_means(contents, row["approach"])
            spread = _range(means.min(), means.max()) if row["seeds"] > 1 else EMPTY
            cells += [score(row["dice_seed_sd"]), spread]
        rows.append([row["approach"], *cells])
    text = f"Of the Dice of {who}."
    if several:
        text += " Seeds are averaged per image first; the seeds' own means show what a training may bring."
    return Section("Spread over images", Table(header, rows), text)


def _range(low: float, high: float) -> str:
    return EMPTY if pd.isna(low) or pd.isna(high) else f"{score(low)} to {score(high)}"


def source_section(contents: Contents) -> Section | None:
    """Mean Dice by source; None if all images come from one."""
    frame, counts = source_frame(contents), contents.sources().value_counts()
    if len(counts) < 2 or frame.empty:
        return None
    header = ["Approach", *(f"{source or UNNAMED} (n = {counts[source]})" for source in frame)]
    rows = [[name, *(score(value) for value in frame.loc[name])] for name in frame.index]
    return Section("Dice by source", Table(header, rows), "Mean over the images of each source.")
