"""Make the tables of an ablation: one for each group of rows that the spec names."""

from __future__ import annotations

from typing import Any

from lungseg.report.contents import Contents
from lungseg.report.markup import (
    Section,
    Table,
    format_amount,
    format_difference,
    format_duration,
    format_interval,
    format_score,
)
from lungseg.report.numbers.ablation import collect_ablation
from lungseg.report.numbers.quality import find_distance_unit
from lungseg.report.sentences.images import find_unit

_TEXT = (
    "Rows of a group in the order of the spec. Intervals: 95 %, bootstrap-t over {unit}s. Differences are "
    "paired, of the same {unit}s' Dice: from the row above, and from the first row of the group; their "
    "intervals are not corrected for the number of comparisons. Tests of all pairs are in statistics.csv."
)


def make_ablation_sections(contents: Contents) -> list[Section]:
    """Make a section for each group with results; [] if the spec has no groups."""
    frame = collect_ablation(contents)
    header = ["Approach", "Dice [95 % interval]", "Pixel accuracy", f"HD95, {find_distance_unit(contents)}"]
    header += ["Training", "Minus the row above", "Minus the first row"]
    sections = []
    for group, rows in frame.groupby("group", sort=False):
        cells = [_format_cells(row) for row in rows.to_dict("records")]
        text = "" if sections else _TEXT.format(unit=find_unit(contents))
        sections.append(Section(f"Ablation: {group}", Table(header, cells), text))
    return sections


def _format_cells(row: dict[str, Any]) -> list[str]:
    return [
        row["approach"],
        format_interval(format_score, row["dice"], row["dice_low"], row["dice_high"]),
        format_score(row["accuracy"]),
        format_amount(row["hd95"]),
        format_duration(row["training_seconds"]),
        *(
            format_interval(format_difference, row[column], row[f"{column}_low"], row[f"{column}_high"])
            for column in ("above", "first")
        ),
    ]
