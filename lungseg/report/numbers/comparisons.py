"""What the report says of pairs of approaches, picked from statistics.csv and turned the same way round."""

from __future__ import annotations

from typing import Any

import pandas as pd

from lungseg.report.contents import Contents


def paired_frame(contents: Contents, metric: str) -> pd.DataFrame:
    """The paired rows of one metric, each turned so that `approach` has the better mean Dice of the two.

    Sorted by the rank of `approach`, then of `other`; `value` is `approach` minus `other`. An approach
    without a mean Dice is left out.
    """
    table = contents.statistics
    table = table[(table["kind"] == "paired") & (table["metric"] == metric)]
    place = {name: number for number, name in enumerate(contents.ranked())}
    rows = [
        row if place[row["approach"]] < place[row["other"]] else turned(row)
        for row in table.to_dict("records")
        if row["approach"] in place and row["other"] in place
    ]
    rows.sort(key=lambda row: (place[row["approach"]], place[row["other"]]))
    return pd.DataFrame(rows, columns=table.columns)


def turned(row: dict[str, Any]) -> dict[str, Any]:
    """The same paired difference seen from the other approach."""
    changed = {"approach": row["other"], "other": row["approach"]}
    changed |= {"better": row["worse"], "worse": row["better"]}
    changed |= {"low": -row["high"], "high": -row["low"], "p5": -row["p95"], "p95": -row["p5"]}
    changed |= {name: -row[name] for name in ("value", "median", "rank_biserial")}
    return row | changed


def family_size(contents: Contents) -> int:
    """For how many comparisons the p-values were corrected together; 0 if other datasets have some too."""
    if contents.other_datasets:
        return 0
    table = contents.statistics
    return int(((table["kind"] == "paired") & table["p_holm"].notna()).sum())


def ranking(contents: Contents) -> dict[str, Any]:
    """The comparison of three or more approaches by their ranks in Dice; empty if there is none.

    Keys: "ranks" (mean rank by approach, best first; 1 is best), "p_value" of Friedman's test, and
    "critical_difference" of two mean ranks (Nemenyi). If approaches were scored on several sets of images,
    those of the largest group, which stands first.
    """
    table = contents.statistics[contents.statistics["metric"] == "dice"]
    tests = {kind: table[table["kind"] == kind] for kind in ("rank", "friedman", "critical-difference")}
    if any(rows.empty for rows in tests.values()):
        return {}
    friedman = tests["friedman"].iloc[0]
    rows = tests["rank"].loc[: friedman.name].sort_values("value", kind="stable")
    return {
        "ranks": dict(zip(rows["approach"], rows["value"], strict=True)),
        "p_value": friedman["p_value"],
        "critical_difference": tests["critical-difference"].iloc[0]["value"],
    }
