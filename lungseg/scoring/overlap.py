"""Measure the overlap of a mask and the truth, per image: counts of pixels and their ratios.

Definitions as in Taha and Hanbury, BMC Medical Imaging 15:29 (2015). If both masks are empty, overlap metrics
are 1; if one is empty, they are 0. A ratio whose denominator is 0 for another reason is 1 if no pixel is
wrong, else 0. So a miss can never improve an average.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def confusion(prediction: np.ndarray, truth: np.ndarray) -> dict[str, int]:
    """Count true and false positives and negatives, tp, fp, fn, tn, of masks: bool, H x W, of one shape.

    Raises ValueError for another dtype (a mask of 0 and 255 would give an IoU above 1) and if shapes differ.
    """
    if prediction.dtype != bool or truth.dtype != bool:
        raise ValueError(f"masks must be bool, got {prediction.dtype} and {truth.dtype}")
    if prediction.shape != truth.shape:
        raise ValueError(f"masks must have one shape, got {prediction.shape} and {truth.shape}")
    tp = int(np.count_nonzero(prediction & truth))
    fp = int(np.count_nonzero(prediction)) - tp
    fn = int(np.count_nonzero(truth)) - tp
    return {"tp": tp, "fp": fp, "fn": fn, "tn": prediction.size - tp - fp - fn}


def overlap(tp: int, fp: int, fn: int, tn: int) -> dict[str, float]:
    """Return dice, iou, accuracy, precision, recall and specificity from counts of pixels, each in [0, 1].

    dice = 2 tp / (2 tp + fp + fn); iou = tp / (tp + fp + fn); accuracy = (tp + tn) / all;
    precision = tp / (tp + fp); recall = tp / (tp + fn); specificity = tn / (tn + fp).
    """
    wrong = fp + fn
    return {
        "dice": _ratio(2 * tp, 2 * tp + wrong, wrong),
        "iou": _ratio(tp, tp + wrong, wrong),
        "accuracy": _ratio(tp + tn, tp + tn + wrong, wrong),
        "precision": _ratio(tp, tp + fp, wrong),
        "recall": _ratio(tp, tp + fn, wrong),
        "specificity": _ratio(tn, tn + fp, wrong),
    }


def _ratio(part: int, whole: int, wrong: int) -> float:
    return part / whole if whole else float(not wrong)


def binarise(probability: np.ndarray, threshold: float) -> np.ndarray:
    """Return the mask (bool) of a map in [0, 1]: pixels at or above the threshold are lung."""
    return probability >= threshold


def mean_dice(maps: Iterable[np.ndarray], truths: Iterable[np.ndarray], threshold: float = 0.5) -> float:
    """Return the mean of `image_dice`."""
    return float(np.mean(image_dice(maps, truths, threshold)))


def image_dice(
    maps: Iterable[np.ndarray], truths: Iterable[np.ndarray], threshold: float = 0.5
) -> list[float]:
    """Return the Dice of each image, from its thresholded map (float, H x W) and its truth (bool, H x W)."""
    pairs = zip(maps, truths, strict=True)
    return [overlap(**confusion(binarise(m, threshold), truth))["dice"] for m, truth in pairs]


def best_threshold(maps: Iterable[np.ndarray], truths: Iterable[np.ndarray]) -> float:
    """Return the threshold in 0.05, 0.06 ... 0.95 with the best mean Dice; of equals the one nearest to 0.5.

    Maps (float, H x W, in [0, 1]) and truths (bool) are meant to be of validation images: a threshold chosen
    on test images makes their scores too good.
    """
    grid = np.round(np.arange(0.05, 0.951, 0.01), 2)
    dice = np.mean([_dice_at(grid, m, truth) for m, truth in zip(maps, truths, strict=True)], axis=0)
    best = np.flatnonzero(dice == dice.max())
    return float(grid[best[np.argmin(np.abs(grid[best] - 0.5))]])


def _dice_at(grid: np.ndarray, probability: np.ndarray, truth: np.ndarray) -> list[float]:
    # One histogram of each class instead of a pass over the image for each threshold.
    edges = np.concatenate([[-np.inf], grid, [np.inf]])
    inside = np.histogram(probability[truth], edges)[0][::-1].cumsum()[::-1][1:]
    outside = np.histogram(probability[~truth], edges)[0][::-1].cumsum()[::-1][1:]
    lung = int(np.count_nonzero(truth))
    return [
        overlap(int(tp), int(fp), lung - int(tp), 0)["dice"] for tp, fp in zip(inside, outside, strict=True)
    ]


def pooled_f1(tp: float, fp: float, fn: float) -> float:
    """Return the Dice of all pixels of all images taken as one, so that large lungs weigh more.

    Several projects print this value as F1.
    """
    return _ratio(2 * tp, 2 * tp + fp + fn, fp + fn)


def bounding_box(*masks: np.ndarray) -> tuple[slice, slice] | None:
    """Return the smallest box (rows, columns) that holds all True pixels of masks of one shape, or None."""
    rows, columns = (
        np.flatnonzero(np.logical_or.reduce([mask.any(axis=axis) for mask in masks])) for axis in (1, 0)
    )
    if len(rows) == 0:
        return None
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
