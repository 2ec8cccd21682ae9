"""Collect what the tables of quality and training show from the stored results."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lungseg.report.contents import Contents
from lungseg.report.numbers.groups import assign_letters
from lungseg.report.numbers.timing import AT_ONE, split_by_device, summarise_speed

# Metrics whose means are in the summary, beside Dice.
OVERLAP = ("iou", "accuracy", "precision", "recall", "specificity")
BOUNDARY = ("hd95", "assd", "hausdorff", "surface_dice_1", "surface_dice_2")
LUNGS = ("dice_left", "dice_right", "area_error")

MAIN_COLUMNS = [
    *("approach", "dataset", "weights", "n", "dice", "dice_low", "dice_high", "group", "dice_median"),
    *("dice_sd", "dice_p5", "dice_p95", "seeds", "dice_seed_sd", "pooled_f1", *OVERLAP, "distance_unit"),
    *BOUNDARY,
    *("hd95_low", "hd95_high", "assd_low", "assd_high", *LUNGS, "brier", "calibration_error"),
    *("training_seconds", "device", "compute_precision", "layout", "compiled", "copies", "ms_per_image"),
    *("ms_iqr", "ms_p90", "best_images_per_s", "best_batch_size", *AT_ONE, "leaks"),
]


def collect_main_rows(contents: Contents) -> pd.DataFrame:
    """Return the main table: a row per approach and device it was timed on, best mean Dice first.

    An approach that was not timed has one row without a device. Times are in ms an image at batch size 1,
    from the image in memory to its map. Memory, energy and the share of the peak are at batch size 1 too.
    `best_images_per_s` is the highest of all batch sizes. `leaks` counts the leaks that the run was allowed.
    Approaches that share a letter of `group` are not separated by the tests.
    """
    rows, letters = [], assign_letters(contents)
    for name in contents.ranked:
        quality = {**summarise_quality(contents, name), "group": letters.get(name, "")}
        speeds = [summarise_speed(whole) for whole in split_by_device(contents.timings, name)] or [{}]
        rows += [{**quality, **one, "leaks": len(contents.run["leaks"])} for one in speeds]
    return pd.DataFrame(rows, columns=MAIN_COLUMNS)


def summarise_quality(contents: Contents, name: str) -> dict[str, Any]:
    """Return the means of one approach by column of the main table; NaN for a metric that isn't stored."""
    dice = contents.find_statistic(name, "dice")
    training, weights = contents.training[contents.training["approach"] == name], contents.find_weights(name)
    found = {
        "approach": name,
        "weights": weights,
        "dice": dice["value"],
        **{column: dice[column] for column in ("dataset", "n", "seeds")},
        **{f"dice_{part}": dice[part] for part in ("low", "high", "median", "sd", "p5", "p95", "seed_sd")},
        "distance_unit": find_distance_unit(contents),
        "calibration_error": compute_calibration_error(contents.calibration, name),
        "pooled_f1": contents.find_statistic(name, "f1", "pooled").get("value", np.nan),
        "training_seconds": np.nan if weights == "given" else training["seconds"].mean(),
    }
    for metric in (*OVERLAP, *BOUNDARY, *LUNGS, "brier"):
        row = contents.find_statistic(name, metric)
        found[metric] = row.get("value", np.nan)
        found |= {f"{metric}_{end}": row.get(end, np.nan) for end in ("low", "high")}
    return found


def find_distance_unit(contents: Contents) -> str:
    """Return the unit of the boundary distances: "px", "mm", or "mm/px" if images differ in it."""
    return "/".join(sorted(unit for unit in contents.scores["distance_unit"].dropna().unique() if unit))


def compute_calibration_error(calibration: pd.DataFrame, name: str) -> float:
    """Compute the expected calibration error of one approach (Guo et al. 2017, equation 3); NaN without bins.

    Mean over pixels of |lung share - mean probability| of their bin, folds pooled, averaged over seeds.
    """
    rows = calibration[(calibration["approach"] == name) & (calibration["count"] > 0)]
    errors = []
    for _, part in rows.groupby("seed"):
        weight = part["count"]
        gaps = (weight * (part["lung_share"] - part["mean_probability"])).groupby(part["bin"]).sum()
        errors.append(gaps.abs().sum() / weight.sum())
    return float(np.mean(errors)) if errors else float("nan")


def average_by_seed(contents: Contents, name: str) -> pd.Series:
    """Return the mean Dice over patients of each seed of one approach."""
    scores = contents.scores[contents.scores["approach"] == name]
    patient = ["seed", "source", "patient"]
    by_image = scores.groupby([*patient, "image_id"])["dice"].mean()
    return by_image.groupby(patient).mean().groupby("seed").mean()


def average_by_source(contents: Contents) -> pd.DataFrame:
    """Return the mean Dice over the images of each source (columns) and approach (rows, best first)."""
    means = contents.image_dice.groupby(contents.sources).mean()
    return means.T.reindex([name for name in contents.ranked if name in means.columns])
