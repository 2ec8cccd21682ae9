"""Compute how stable the order of the approaches is over bootstrap samples of the patients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from lungseg.report.contents import Contents
from lungseg.report.numbers.comparisons import read_ranking
from lungseg.scoring.comparisons import bootstrap_ranks, compute_kendall_tau

MIDDLE_95 = (50, 2.5, 97.5)  # percentiles: the median, and the ends of the middle 95 %


@dataclass(frozen=True)
class RankStability:
    """The ranks by mean Dice that k approaches have in bootstrap samples of n patients."""

    names: list[str]  # by their rank among all patients, best first
    rank: np.ndarray  # float k: that rank; equal means share theirs
    shares: np.ndarray  # float k x k: approach x rank (1 first), share of the samples. A row adds up to 1
    median: np.ndarray  # float k, ranks
    low: np.ndarray  # float k: 2.5 % of the samples have a better rank
    high: np.ndarray  # float k: 2.5 % have a worse one
    tau: tuple[float, float, float]  # Kendall's, of a sample's order with that of all: median, 2.5, 97.5 %
    samples: int
    n: int


def resample_ranks(contents: Contents) -> RankStability | None:
    """Rank the approaches that were scored on the same images in bootstrap samples of the patients.

    Seeds and folds are averaged per image, images per patient. Shared ranks count for the better whole rank.
    None with fewer than three approaches.
    """
    names = [name for name in contents.ranked if name in read_ranking(contents).get("ranks", {})]
    if not names:
        return None
    patients = contents.scores.drop_duplicates("image_id").set_index("image_id")[["source", "patient"]]
    images = contents.image_dice[names]
    # By arrays, since an approach may be called "patient".
    keys = list(patients.loc[images.index].to_numpy().T)
    values = images.groupby(keys, dropna=False).mean().dropna().to_numpy()
    means = values.mean(axis=0)
    order = np.argsort(-means, kind="stable")
    values, names = values[:, order], [names[place] for place in order]
    ranks = bootstrap_ranks(values)
    k = len(names)
    shares = np.stack([(np.floor(ranks) == rank).mean(axis=0) for rank in range(1, k + 1)], axis=1)
    median, low, high = np.percentile(ranks, MIDDLE_95, axis=0)
    rank = stats.rankdata(-np.round(means[order], 12))
    tau = compute_kendall_tau(ranks, rank)
    found = np.nanpercentile(tau, MIDDLE_95) if np.isfinite(tau).any() else np.full(3, np.nan)
    return RankStability(
        names, rank, shares, median, low, high, tuple(map(float, found)), len(ranks), len(values)
    )
