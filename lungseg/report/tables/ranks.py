"""Make the table of how stable the order of the approaches is."""

from __future__ import annotations

import numpy as np

from lungseg.report.contents import Contents
from lungseg.report.markup import EMPTY, Section, Table, format_share
from lungseg.report.numbers.comparisons import read_ranking
from lungseg.report.numbers.ranks import resample_ranks
from lungseg.report.sentences.images import find_unit


def make_rank_section(contents: Contents) -> Section | None:
    """Make a row per approach with its ranks in bootstrap samples, and its mean rank; None without ranks."""
    found = resample_ranks(contents)
    if found is None:
        return None
    mean_ranks = read_ranking(contents)["ranks"]
    header = ["Approach", "Rank by mean Dice", "Median in samples", "95 % of samples", "Share in this rank"]
    header.append("Mean of the ranks per image")
    rows = [
        [
            name,
            f"{found.rank[place]:g}",
            f"{found.median[place]:g}",
            f"{found.low[place]:g} to {found.high[place]:g}",
            format_share(found.shares[place, int(found.rank[place]) - 1]),
            f"{mean_ranks[name]:.2f}",
        ]
        for place, name in enumerate(found.names)
    ]
    unit = find_unit(contents)
    middle, low, high = found.tau
    tau = EMPTY if np.isnan(middle) else f"{middle:.2f} [{low:.2f}, {high:.2f}]"
    text = (
        f"How far the order hangs on the {unit}s that were tested: {found.samples:,} bootstrap samples of "
        f"{found.n} {unit}s, approaches ranked by their mean Dice in each (Wiesenfarth et al. 2021). "
        f"Kendall's tau between the order of a sample and that of all: median {tau}; 1 is the same order, 0 "
        "no relation. The mean of the ranks per image belongs to Friedman's and Nemenyi's tests."
    )
    return Section("Stability of the ranks", Table(header, rows), text)
