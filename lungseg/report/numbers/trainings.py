"""Collect how approaches do by what they were trained on: another dataset, or a number of images."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from lungseg.report.contents import Contents
from lungseg.report.numbers.quality import summarise_quality

FEWEST_SIZES = 3  # numbers of training images that make a curve


def collect_transfer(sets: Sequence[Contents]) -> pd.DataFrame:
    """Return a row per approach, dataset it was trained on, and dataset it was tested on.

    Args:
        sets: the run's own dataset, then its further test sets.

    Returns:
        Columns family (what the approach is called, whatever it was trained on), train_set, dataset, dice,
        dice_low, dice_high and pooled_f1, in the order of the spec. Empty unless there are two of both kinds
        of datasets.
    """
    columns = ["family", "train_set", "dataset", "dice", "dice_low", "dice_high", "pooled_f1"]
    trained = sets[0].scores.groupby("approach")["train_set"].first()
    if trained.nunique() < 2 or len(sets) < 2:
        return pd.DataFrame(columns=columns)
    families, rows = find_families(sets[0]), []
    for name in sets[0].names:
        for contents in sets if name in trained.index else ():
            quality = summarise_quality(contents, name)
            rows.append({**quality, "family": families[name], "train_set": trained[name]})
    return pd.DataFrame(rows)[columns]


def collect_learning(contents: Contents) -> pd.DataFrame:
    """Return a row per approach and number of training images, for those with at least FEWEST_SIZES numbers.

    Returns:
        Columns family, n_train, approach, dice, dice_low, dice_high and dice_seed_sd, sorted by number.
    """
    columns = ["family", "n_train", "approach", "dice", "dice_low", "dice_high", "dice_seed_sd"]
    sizes = contents.scores.groupby("approach")["n_train"].first()
    families = find_families(contents)
    members = pd.Series(
        {name: families[name] for name in contents.names if name in sizes.index}, dtype=object
    )
    counts = sizes.groupby(members).nunique()
    chosen = [name for name, family in members.items() if counts[family] >= FEWEST_SIZES]
    rows = [
        {**summarise_quality(contents, name), "family": members[name], "n_train": int(sizes[name])}
        for name in chosen
    ]
    return pd.DataFrame(rows, columns=columns).sort_values("n_train", kind="stable", ignore_index=True)


def find_families(contents: Contents) -> dict[str, str]:
    """Return what each approach is called, whatever it was trained on."""
    return {entry["name"]: entry.get("family", entry["name"]) for entry in contents.run["approaches"]}
