"""Collect the tests between approaches from statistics.csv."""

from __future__ import annotations

from typing import Any

import pandas as pd

from lungseg.report.contents import Contents


def collect_pairs(contents: Contents, metric: str) -> pd.DataFrame:
    """Return the paired rows of one metric, with the better mean Dice of the two as `approach`.

    `value` is `approach` minus `other`. Rows are sorted by the rank of `approach`, then of `other`.
    Approaches without a mean Dice are left out.
    """
    table = contents.statistics
    table = table[(table["kind"] == "paired") & (table["metric"] == metric)]
    place = {name: number for number, name in enumerate(contents.ranked)}
    rows = [
        row if place[row["approach"]] < place[row["other"]] else turn_pair(row)
        for row in table.to_dict("records")
        if row["approach"] in place and row["other"] in place
    ]
    rows.sort(key=lambda row: (place[row["approach"]], place[row["other"]]))
    return pd.DataFrame(rows, columns=table.columns)


def turn_pair(row: dict[str, Any]) -> dict[str, Any]:
    """Exchange the two approaches of a paired difference."""
    changed = {"approach": row["other"], "other": row["approach"]}
    changed |= {"better": row["worse"], "worse": row["better"]}
    changed |= {"low": -row["high"], "high": -row["low"], "p5": -row["p95"], "p95": -row["p5"]}
    changed |= {name: -row[name] for name in ("value", "median", "rank_biserial")}
    return row | changed


def read_ranking(contents: Contents) -> dict[str, Any]:
    """Return the stored comparison of three or more approaches by their ranks in Dice; {} if there is none.

    Keys: "ranks" (mean rank by approach, best first; 1 is best), "p_value" of Friedman's test, and
    "critical_difference" of two mean ranks (Nemenyi). If approaches were scored on several sets of images,
    these are of the largest group, which is stored first.
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
