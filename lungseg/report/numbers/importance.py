"""What fitted approaches read most, put together from importance.csv."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from lungseg.report.contents import Contents

_BLOCK = re.compile(r"(.+)@(\d+)")


def importance_frame(contents: Contents, name: str) -> pd.DataFrame:
    """Shares of one approach, means over folds and seeds: a row per stage and column, in the stored order.

    Columns: stage, column, kind (what stands before the column's colon), layer and scale (of a kind that is
    a layer at a level of the pyramid, such as "relu1_2@64"; None and NaN of others), share.
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


def kind_shares(stage: pd.DataFrame) -> pd.Series:
    """The share of each kind of one stage's columns, all layers of a pyramid together as "features"."""
    kinds = stage["kind"].where(stage["layer"].isna(), "features")
    return stage.groupby(kinds, sort=False)["share"].sum()


def block_shares(stage: pd.DataFrame) -> pd.DataFrame:
    """The share of each layer (rows) at each scale (columns, finest first) of one stage; NaN if not used."""
    held = stage[stage["layer"].notna()]
    table = held.pivot_table(index="layer", columns="scale", values="share", aggfunc="sum")
    return table.sort_index(axis=0).sort_index(axis=1, ascending=False)
