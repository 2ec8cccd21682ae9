"""Tables of an ablation: one for each group of rows that the spec names."""

from __future__ import annotations

from lungseg.report.contents import Contents
from lungseg.report.markup import Section, Table, amount, difference, duration, interval, score
from lungseg.report.numbers.ablation import ablation_frame
from lungseg.report.numbers.quality import distance_unit
from lungseg.report.sentences.notes import unit_of

_TEXT = (
    "Rows of a group in the order of the spec. Intervals: 95 %, bootstrap-t over {unit}s. Differences are "
    "paired, of the same {unit}s' Dice: from the row above, and from the first row of the group; their "
    "intervals are not corrected for the number of comparisons. Tests of all pairs are in statistics.csv."
)


def ablation_sections(contents: Contents) -> list[Section]:
    """A section for each group with results; none where the spec has no groups."""
    frame = ablation_frame(contents)
    header = ["Approach", "Dice [95 % interval]", "Pixel accuracy", f"HD95, {distance_unit(contents)}"]
    header += ["Training", "Minus the row above", "Minus the first row"]
    sections = []
    for group, rows in frame.groupby("group", sort=False):
        cells = [_cells(row) for row in rows.to_dict("records")]
        text = "" if sections else _TEXT.format(unit=unit_of(contents))
        sections.append(Section(f"Ablation: {group}", Table(header, cells), text))
    return sections


def _cells(row: dict) -> list[str]:
    return [
        row["approach"],
        interval(score, row["dice"], row["dice_low"], row["dice_high"]),
        score(row["accuracy"]),
        amount(row["hd95"]),
        duration(row["training_seconds"]),
        *(
            interval(difference, row[kind], row[f"{kind}_low"], row[f"{kind}_high"])
            for kind in ("above", "first")
        ),
    ]
