"""What the report says of the groups of an ablation, picked from the stored results. Computes no score."""

from __future__ import annotations

from typing import Any

import pandas as pd

from lungseg.report.contents import Contents
from lungseg.report.numbers.comparisons import turned
from lungseg.report.numbers.quality import quality_of

_COLUMNS = [
    *("group", "approach", "n", "dice", "dice_low", "dice_high", "accuracy", "hd95", "training_seconds"),
    *(f"{other}{end}" for other in ("above", "first") for end in ("", "_low", "_high")),
]


def ablation_frame(contents: Contents) -> pd.DataFrame:
    """A row for each approach of each group that has a mean Dice, groups and rows in the order of the spec.

    `above` and `first` are the stored paired differences in Dice from the row above it and from the group's
    first one, with their intervals; NaN for the first row, and where none is stored.
    """
    differences = _differences(contents)
    scored = set(contents.ranked())
    rows = []
    for group, names in contents.groups.items():
        shown = [name for name in names if name in scored]
        for place, name in enumerate(shown):
            others = {"above": shown[place - 1], "first": shown[0]} if place else {}
            row = {"group": group, **quality_of(contents, name)}
            for kind, other in others.items():
                found = differences.get((name, other), {})
                row |= {kind: found.get("value")}
                row |= {f"{kind}_{end}": found.get(end) for end in ("low", "high")}
            rows.append(row)
    return pd.DataFrame(rows, columns=_COLUMNS)


def _differences(contents: Contents) -> dict[tuple[str, str], dict[str, Any]]:
    """Stored paired rows of Dice by (approach, other), each both ways round."""
    table = contents.statistics
    rows = table[(table["kind"] == "paired") & (table["metric"] == "dice")].to_dict("records")
    return {(row["approach"], row["other"]): row for row in [*rows, *map(turned, rows)]}
