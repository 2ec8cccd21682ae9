"""What the tables of quality and training show, picked from the stored results. Computes no score."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lungseg.report.contents import Contents
from lungseg.report.numbers.timing import settings, speed

# Metrics whose means stand in the summary, beside Dice; those of WITH_INTERVAL with their interval.
OVERLAP = ("iou", "accuracy", "precision", "recall", "specificity")
BOUNDARY = ("hd95", "assd", "hausdorff", "surface_dice_1", "surface_dice_2")
LUNGS = ("dice_left", "dice_right", "area_error")
WITH_INTERVAL = ("hd95", "assd")

_MAIN_COLUMNS = [
    *("approach", "dataset", "weights", "n", "dice", "dice_low", "dice_high", "dice_median", "dice_sd"),
    *("dice_p5", "dice_p95", "seeds", "dice_seed_sd", "pooled_f1", *OVERLAP, "distance_unit", *BOUNDARY),
    *(f"{metric}_{end}" for metric in WITH_INTERVAL for end in ("low", "high")),
    *(*LUNGS, "brier", "calibration_error"),
    *("training_seconds", "device", "compute_precision", "layout", "compiled", "copies"),
    *("ms_per_image", "ms_iqr", "ms_p90", "images_per_s", "batch_size"),
    *("peak_memory_mib", "joules_per_image", "gflops", "peak_share", "leaks"),
]


def main_frame(contents: Contents) -> pd.DataFrame:
    """The main table: a row per approach and device it was timed on, best mean Dice first.

    An approach that was never timed has one row without a device. Times are in ms an image at batch size 1,
    from the image in memory to its map, and so are memory, energy and the share of the peak;
    `images_per_s` is that of the batch size with the highest. `leaks` is how many leaks the run was allowed,
    empty if nothing is known of them.
    """
    rows = []
    for name in contents.ranked():
        quality = quality_of(contents, name)
        speeds = [speed(whole) for whole in settings(contents.timings, name)] or [{}]
        rows += [{**quality, **one, "leaks": leak_count(contents)} for one in speeds]
    return pd.DataFrame(rows, columns=_MAIN_COLUMNS)


def leak_count(contents: Contents) -> int | None:
    """How many leaks the run went on with; None if run.json holds no audit."""
    run = contents.run
    return len(run.get("leaks") or []) if "leaks" in run or "audit" in run else None


def quality_frame(contents: Contents) -> pd.DataFrame:
    """The columns of `main_frame` that don't depend on a device: a row per approach, best mean Dice first."""
    return pd.DataFrame([quality_of(contents, name) for name in contents.ranked()], columns=_MAIN_COLUMNS)


def quality_of(contents: Contents, name: str) -> dict[str, Any]:
    """Means of one approach by column of the main table; a metric that isn't stored is NaN."""
    dice = contents.statistic(name, "dice")
    metrics = {metric: contents.statistic(name, metric) for metric in (*OVERLAP, *BOUNDARY, *LUNGS, "brier")}
    training = contents.training[contents.training["approach"] == name]
    return {
        "approach": name,
        "dataset": dice["dataset"],
        "weights": contents.weights(name),
        "n": dice["n"],
        "dice": dice["value"],
        "dice_low": dice["low"],
        "dice_high": dice["high"],
        "dice_median": dice["median"],
        "dice_sd": dice["sd"],
        "dice_p5": dice["p5"],
        "dice_p95": dice["p95"],
        "seeds": dice["seeds"],
        "dice_seed_sd": dice["seed_sd"],
        **{metric: row.get("value", np.nan) for metric, row in metrics.items()},
        **{
            f"{metric}_{end}": metrics[metric].get(end, np.nan)
            for metric in WITH_INTERVAL
            for end in ("low", "high")
        },
        "distance_unit": distance_unit(contents),
        "calibration_error": calibration_error(contents.calibration, name),
        "pooled_f1": contents.statistic(name, "f1", "pooled").get("value", np.nan),
        "training_seconds": training["seconds"].mean(),
    }


def distance_unit(contents: Contents) -> str:
    """The unit of the boundary distances, "px" or "mm"; both, joined, if images differ in it."""
    return "/".join(sorted(unit for unit in contents.scores["distance_unit"].dropna().unique() if unit))


def calibration_error(calibration: pd.DataFrame, name: str) -> float:
    """Expected calibration error of one approach: the mean over pixels of |lung share - mean probability|.

    By the stored bins, folds pooled, averaged over seeds (Guo et al. 2017, equation 3, applied to pixels).
    NaN without bins.
    """
    rows = calibration[(calibration["approach"] == name) & (calibration["count"] > 0)]
    errors = []
    for _, part in rows.groupby("seed"):
        weight = part["count"]
        gaps = (weight * (part["lung_share"] - part["mean_probability"])).groupby(part["bin"]).sum()
        errors.append(gaps.abs().sum() / weight.sum())
    return float(np.mean(errors)) if errors else float("nan")


def seed_means(contents: Contents, name: str) -> pd.Series:
    """Mean Dice over patients of each seed of one approach."""
    scores = contents.scores[contents.scores["approach"] == name]
    patient = ["seed", "source", "patient"]
    by_image = scores.groupby([*patient, "image_id"])["dice"].mean()
    return by_image.groupby(patient).mean().groupby("seed").mean()


def source_frame(contents: Contents) -> pd.DataFrame:
    """Mean Dice of the images of each source (columns) and approach (rows, best first)."""
    means = contents.image_dice().groupby(contents.sources()).mean()
    return means.T.reindex([name for name in contents.ranked() if name in means.columns])


def training_frame(contents: Contents) -> pd.DataFrame:
    """Training per approach, best Dice first: means over fits, but the peak of memory is the largest."""
    rows = []
    for name in contents.ranked():
        fits = contents.training[contents.training["approach"] == name]
        if len(fits):
            rows.append(
                {
                    "approach": name,
                    "fits": len(fits),
                    "seconds": fits["seconds"].mean(),
                    "items_per_s": fits["items_per_s"].mean(),
                    "unit": fits["unit"].iloc[0],
                    "parameters": fits["parameters"].max(),
                    "best_steps": sorted(int(step) for step in fits["best_step"].dropna()),
                    "peak_memory_mib": fits["peak_memory_mib"].max(),
                    "wait_share": fits["wait_share"].mean(),
                }
            )
    return pd.DataFrame(rows)
