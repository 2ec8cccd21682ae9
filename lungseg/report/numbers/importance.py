"""Average what fitted approaches read most, from importance.csv."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from lungseg.report.contents import Contents

_BLOCK = re.compile(r"(.+)@(\d+)")


def average_importance(contents: Contents, name: str) -> pd.DataFrame:
    """Average the shares of one approach over folds and seeds: a row per stage and column, in stored order.

    Columns: stage, column, kind (the part of the column's name before the colon), layer, scale, share. Layer
    and scale are those of a kind such as "relu1_2@64", a layer at a level of the pyramid; None and NaN for
    other kinds.
    """
    rows = contents.importance[contents.importance["approach"] == name]
    means = rows.groupby(["stage", "column"], sort=False)["share"].mean().reset_index()
    kinds = [column.partition(":")[0] for column in means["column"]]
    blocks = [_BLOCK.fullmatch(kind) for kind in kinds]
    return means.assign(
        kind=kinds,
        layer=[block[1] if block else None for block in blocks],
        scale=[int(block[2]) if block else np.nan for block in blocks],
    )


def sum_by_kind(stage: pd.DataFrame) -> pd.Series:
    """Sum the shares of one stage by kind, all layers of a pyramid together as "features"."""
    kinds = stage["kind"].where(stage["layer"].isna(), "features")
    return stage.groupby(kinds, sort=False)["share"].sum()


def sum_by_block(stage: pd.DataFrame) -> pd.DataFrame:
    """Sum the shares of one stage by layer (rows) and scale (columns, finest first); NaN where not used."""
    held = stage[stage["layer"].notna()]
    table = held.pivot_table(index="layer", columns="scale", values="share", aggfunc="sum")
    return table.sort_index(axis=0).sort_index(axis=1, ascending=False)
