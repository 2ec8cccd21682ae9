"""Make rows of statistics.csv from scores of images. The unit is the patient."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from lungseg.scoring import comparisons
from lungseg.scoring.intervals import bootstrap_t_intervals
from lungseg.scoring.overlap import pooled_f1

PRIMARY = "dice"  # the endpoint fixed in advance
PAIRED_METRICS = (PRIMARY, "hd95", "assd", "brier")
DISTANCES = ("hausdorff", "hd95", "assd")
LOWER_IS_BETTER = {"area_error", "brier", *DISTANCES}

_UNIT = (0.0, 1.0)
_POSITIVE = (0.0, np.inf)
_UNBOUNDED = (-np.inf, np.inf)
BOUNDS = {  # the range of each metric, to which intervals are clipped
    **dict.fromkeys(("dice", "iou", "accuracy", "precision", "recall", "specificity"), _UNIT),
    **dict.fromkeys(("dice_left", "dice_right"), _UNIT),
    **dict.fromkeys(("area_error", *DISTANCES), _POSITIVE),
    **dict.fromkeys(("surface_dice_1", "surface_dice_2", "brier"), _UNIT),
}

_PATIENT = ["source", "patient"]  # two hospitals may both have a patient "1"
_DIGITS = 9  # significant digits of stored scores: smaller differences are rounding


def summarise(scores: pd.DataFrame) -> list[dict[str, Any]]:
    """Make the rows of statistics.csv from the rows of scores.csv.

    Seeds are averaged per image and images per patient before anything else. Folds are pooled: each image is
    evaluated in one of them. `seed_sd` is the standard deviation of the seeds' own means.

    Args:
        scores: rows of scores.csv. A metric without values gives no rows; nor does a distance that is in
            pixels for some images of a dataset and in mm for others.

    Returns:
        Rows of these kinds, each with the columns of statistics.csv that it fills:
        "mean": a metric of one approach, over the patients that have it.
        "pooled": F1 of all pixels taken together; n counts images.
        "paired": `approach` minus `other` of one metric, for each pair that was scored on the same images of
            a dataset, in the order of the scores. Dice is primary: p_holm corrects its p values for all
            pairs of all datasets. It is empty for other metrics.
        "rank": mean rank by Dice of each of three or more approaches that were scored on the same images (the
            largest such group of a dataset).
        "friedman": the test that these rank alike; value is its chi-square. It has no approach.
        "critical-difference": by how much two mean ranks must differ (Nemenyi, alpha 0.05). No approach
            either.
    """
    rows: list[dict[str, Any]] = []
    for dataset, of_dataset in scores.groupby("dataset", sort=False):
        parts = {
            name: _Approach(_in_one_unit(of_dataset, part))
            for name, part in of_dataset.groupby("approach", sort=False)
        }
        found = []
        for name, approach in parts.items():
            key = {"approach": name, "seeds": len(approach.seeds)}
            found += [{**key, **row} for row in approach.mean_rows()]
            found.append({**key, **approach.pooled_row()})
        for place, group in enumerate(_scored_alike(parts)):
            found += _comparison_rows(group, ranked=place == 0)
        rows += [{"dataset": dataset, **row} for row in found]
    _correct(rows)
    return rows


class _Approach:
    """The scores of one approach on one dataset."""

    def __init__(self, scores: pd.DataFrame) -> None:
        self.scores = scores
        self.images = frozenset(scores["image_id"])
        self.patients = _patient_means(scores)
        # For each seed, the mean of each metric over patients.
        self.seeds = {seed: _patient_means(part).mean() for seed, part in scores.groupby("seed")}

    def seed_means(self, metric: str) -> np.ndarray:
        """Mean of a metric, one for each seed; NaN where a seed has no values."""
        return np.array([means.get(metric, np.nan) for means in self.seeds.values()])

    def mean_rows(self) -> list[dict[str, Any]]:
        rows = _describe(self.patients, BOUNDS).items()
        return [{**r, "metric": m, "kind": "mean", "seed_sd": _sd(self.seed_means(m))} for m, r in rows]

    def pooled_row(self) -> dict[str, Any]:
        by_seed = self.scores.groupby("seed")[["tp", "fp", "fn"]].sum()
        values = [pooled_f1(*counts) for counts in by_seed.to_numpy()]
        key = {"metric": "f1", "kind": "pooled", "n": len(self.images)}
        return {**key, "value": float(np.mean(values)), "seed_sd": _sd(values)}


def _in_one_unit(of_dataset: pd.DataFrame, part: pd.DataFrame) -> pd.DataFrame:
    """The rows of one approach; without distances if the dataset has them in pixels and in mm."""
    units = of_dataset.loc[of_dataset["assd"].notna(), "distance_unit"].nunique()
    return part if units < 2 else part.assign(**dict.fromkeys(DISTANCES, np.nan))


def _patient_means(scores: pd.DataFrame) -> pd.DataFrame:
    """The mean of each metric that has values (columns) of each patient (rows)."""
    metrics = [metric for metric in BOUNDS if scores[metric].notna().any()]
    by_image = scores.groupby([*_PATIENT, "image_id"], dropna=False)[metrics].mean()
    return by_image.groupby(_PATIENT, dropna=False).mean()


def _describe(values: pd.DataFrame, bounds: dict[str, tuple[float, float]]) -> dict[str, dict[str, float]]:
    """n, value, low, high, median, sd, p5, p95 of each column of patients' values, without empty cells."""
    rows = {}
    # Columns of one length share their resamples, which is most of the work.
    whole = [name for name in values if values[name].notna().all()]
    groups = [whole, *([name] for name in values if name not in whole)]
    for group in groups:
        filled = values[group].dropna().to_numpy()
        intervals = bootstrap_t_intervals(filled)
        for name, column, interval in zip(group, filled.T, intervals, strict=True):
            low, high = np.clip(interval, *bounds[name])
            p5, median, p95 = map(float, np.percentile(column, [5, 50, 95]))
            row = {"n": len(column), "value": float(column.mean()), "low": float(low), "high": float(high)}
            rows[name] = {**row, "median": median, "sd": _sd(column), "p5": p5, "p95": p95}
    return {name: rows[name] for name in values}


def _scored_alike(parts: dict[str, _Approach]) -> list[dict[str, _Approach]]:
    """Groups of two or more approaches that were scored on the same images, the largest group first."""
    groups: dict[frozenset, dict[str, _Approach]] = {}
    for name, approach in parts.items():
        groups.setdefault(approach.images, {})[name] = approach
    return sorted((group for group in groups.values() if len(group) > 1), key=len, reverse=True)


def _comparison_rows(group: dict[str, _Approach], ranked: bool) -> list[dict[str, Any]]:
    rows = []
    for metric in PAIRED_METRICS:
        columns = {name: a.patients[metric] for name, a in group.items() if metric in a.patients}
        # The same patients for all pairs: one that lacks the metric for any approach is left out.
        values = pd.DataFrame(columns).dropna()
        if len(columns) < 2 or values.empty:
            continue
        pairs = _paired_rows(group, metric, values)
        if ranked and metric == PRIMARY and len(columns) > 2:
            pairs += _rank_rows(values, pairs)
        rows += pairs
    return rows


def _paired_rows(group: dict[str, _Approach], metric: str, values: pd.DataFrame) -> list[dict[str, Any]]:
    pairs = list(combinations(values, 2))
    differences = pd.DataFrame({i: _difference(values[a], values[b]) for i, (a, b) in enumerate(pairs)})
    bounds = (-1.0, 1.0) if BOUNDS[metric] == _UNIT else _UNBOUNDED
    spreads = _describe(differences, dict.fromkeys(differences, bounds))
    p_values = comparisons.sign_flip_p_values(differences.to_numpy())
    rows = []
    for i, (first, second) in enumerate(pairs):
        difference = differences[i].to_numpy()
        gains = -difference if metric in LOWER_IS_BETTER else difference
        rows.append(
            {
                **spreads[i],
                "approach": first,
                "other": second,
                "metric": metric,
                "kind": "paired",
                "primary": metric == PRIMARY,
                **_paired_seeds(group[first], group[second], metric),
                "p_value": float(p_values[i]),
                "wilcoxon_p": comparisons.wilcoxon_p_value(difference),
                "rank_biserial": comparisons.rank_biserial(gains),
                "better": int((gains > 0).sum()),
                "worse": int((gains < 0).sum()),
                "tied": int((gains == 0).sum()),
            }
        )
    return rows


def _difference(first: pd.Series, second: pd.Series) -> np.ndarray:
    difference = (first - second).to_numpy()
    size = np.maximum(first.abs(), second.abs()).to_numpy()
    return np.where(np.abs(difference) <= 10.0**-_DIGITS * size, 0.0, difference)


def _paired_seeds(first: _Approach, second: _Approach, metric: str) -> dict[str, float]:
    """Seeds of a pair; the SD of its difference over seeds only if both have the same ones."""
    same = first.seeds.keys() == second.seeds.keys()
    apart = first.seed_means(metric) - second.seed_means(metric) if same else []
    return {"seeds": min(len(first.seeds), len(second.seeds)), "seed_sd": _sd(apart)}


def _rank_rows(values: pd.DataFrame, pairs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of ranks; the paired rows get their `nemenyi_p`."""
    ranks = comparisons.compare_ranks(values.round(_DIGITS).to_numpy())
    place = {name: index for index, name in enumerate(values)}
    for row in pairs:
        row["nemenyi_p"] = float(ranks.nemenyi_p[place[row["approach"]], place[row["other"]]])
    rows = [
        {"approach": name, "kind": "rank", "value": float(rank)}
        for name, rank in zip(values, ranks.mean_ranks, strict=True)
    ]
    rows.append({"approach": "", "kind": "friedman", "value": ranks.chi_square, "p_value": ranks.p_value})
    rows.append({"approach": "", "kind": "critical-difference", "value": ranks.critical_difference})
    return [{"metric": PRIMARY, "n": len(values), **row} for row in rows]


def _correct(rows: list[dict[str, Any]]) -> None:
    """Fill in `p_holm` of all primary paired rows, which are one family."""
    family = [row for row in rows if row.get("primary")]
    corrected = comparisons.holm([row["p_value"] for row in family])
    for row, p_value in zip(family, corrected, strict=True):
        row["p_holm"] = float(p_value)


def _sd(values: Any) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
