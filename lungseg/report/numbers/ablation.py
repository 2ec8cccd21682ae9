"""Collect the rows of an ablation's groups from the stored results."""

from __future__ import annotations

from typing import Any

import pandas as pd

from lungseg.report.contents import Contents
from lungseg.report.numbers.comparisons import turn_pair
from lungseg.report.numbers.quality import summarise_quality

_COLUMNS = [
    *("group", "approach", "n", "dice", "dice_low", "dice_high", "accuracy", "hd95", "training_seconds"),
    *(f"{other}{end}" for other in ("above", "first") for end in ("", "_low", "_high")),
]


def collect_ablation(contents: Contents) -> pd.DataFrame:
    """Return a row for each approach of each group, groups and rows in the order of the spec.

    Approaches without a mean Dice are left out. `above` and `first` are the stored paired differences in Dice
    from the row above and from the group's first row, with their intervals; NaN in the first row, and where
    none is stored.
    """
    differences = _find_differences(contents)
    rows = []
    for group, names in contents.groups.items():
        shown = [name for name in names if name in contents.ranked]
        for place, name in enumerate(shown):
            others = {"above": shown[place - 1], "first": shown[0]} if place else {}
            row = {"group": group, **summarise_quality(contents, name)}
            for column, other in others.items():
                found = differences.get((name, other), {})
                row |= {column: found.get("value")}
                row |= {f"{column}_{end}": found.get(end) for end in ("low", "high")}
            rows.append(row)
    return pd.DataFrame(rows, columns=_COLUMNS)


def _find_differences(contents: Contents) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the stored paired rows of Dice by (approach, other), each also with the two exchanged."""
    table = contents.statistics
    rows = table[(table["kind"] == "paired") & (table["metric"] == "dice")].to_dict("records")
    return {(row["approach"], row["other"]): row for row in [*rows, *map(turn_pair, rows)]}
