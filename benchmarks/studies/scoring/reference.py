"""Computes the same metrics in other ways, to check ours: with plain brute force, and with MONAI.

This is slow, and for tests and studies only. MONAI comes with the extra `test`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from scipy.ndimage import binary_erosion, generate_binary_structure
from scipy.spatial.distance import cdist

OVERLAP = ("dice", "iou", "accuracy", "precision", "recall", "specificity")
BOUNDARY = ("hausdorff", "hd95", "assd", "surface_dice_1", "surface_dice_2")


def score_by_brute_force(
    prediction: np.ndarray, truth: np.ndarray, spacing: tuple[float, float] | None = None
) -> dict[str, float]:
    """Compute overlap from sets of pixels, and boundary metrics from the whole matrix of distances.

    Neither mask is empty, and the truth isn't the whole image. `hd95_pooled` is the 95th percentile over
    both directions together: another convention, which medpy has.

    Args:
        prediction, truth: bool, H x W; memory grows with the product of the boundaries' lengths.
        spacing: (vertical, horizontal) mm.
    """
    scale = np.array(spacing or (1.0, 1.0))
    matrix = cdist(_find_boundary(prediction) * scale, _find_boundary(truth) * scale)
    forth, back = matrix.min(axis=1), matrix.min(axis=0)
    both = np.concatenate([forth, back])
    side = max(np.array(truth.shape) * scale)
    return {
        **_compute_overlap(prediction, truth),
        "hausdorff": max(forth.max(), back.max()),
        "hd95": max(np.percentile(forth, 95), np.percentile(back, 95)),
        "hd95_pooled": np.percentile(both, 95),
        "assd": (forth.sum() + back.sum()) / (len(forth) + len(back)),
        "surface_dice_1": np.mean(both <= side / 100),
        "surface_dice_2": np.mean(both <= side / 50),
    }


def _compute_overlap(prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    everything = set(np.ndindex(truth.shape))
    found, lung = ({tuple(pixel) for pixel in np.argwhere(mask).tolist()} for mask in (prediction, truth))
    background = everything - lung
    return {
        "dice": 2 * len(found & lung) / (len(found) + len(lung)),
        "iou": len(found & lung) / len(found | lung),
        "accuracy": 1 - len(found ^ lung) / len(everything),
        "precision": len(found & lung) / len(found),
        "recall": len(found & lung) / len(lung),
        "specificity": len(background - found) / len(background) if background else float("nan"),
    }


def _find_boundary(mask: np.ndarray) -> np.ndarray:
    inner = binary_erosion(mask, generate_binary_structure(2, 1), border_value=0)
    return np.argwhere(mask & ~inner)


def make_monai_groups(
    prediction: np.ndarray, truth: np.ndarray, spacing: tuple[float, float] | None = None
) -> dict[str, Callable[[], dict[str, float]]]:
    """Return, by group of metrics, a function that computes them with MONAI for one pair of bool masks."""
    import torch
    from monai import metrics

    y_pred, y = (torch.from_numpy(mask)[None, None] for mask in (prediction, truth))
    scale = spacing or (1.0, 1.0)
    side = max(size * step for size, step in zip(truth.shape, scale, strict=True))

    def confusion() -> dict[str, float]:
        # As numbers: MONAI adds the masks, and True + True is True.
        matrix = metrics.get_confusion_matrix(y_pred.byte(), y.byte(), include_background=True)
        names = {"accuracy": "accuracy", "precision": "precision", "recall": "sensitivity"}
        names["specificity"] = "specificity"
        return {
            ours: float(metrics.compute_confusion_matrix_metric(theirs, matrix))
            for ours, theirs in names.items()
        }

    def overlap() -> dict[str, float]:
        return {
            "dice": float(metrics.compute_dice(y_pred, y, ignore_empty=False)),
            "iou": float(metrics.compute_iou(y_pred, y, ignore_empty=False)),
            **confusion(),
        }

    def hausdorff(percentile: float | None) -> float:
        found = metrics.compute_hausdorff_distance(
            y_pred, y, include_background=True, percentile=percentile, spacing=spacing
        )
        return float(found)

    def surface_dice(tolerance: float) -> float:
        return float(metrics.compute_surface_dice(y_pred, y, [tolerance], True, spacing=spacing))

    def assd() -> float:
        return float(
            metrics.compute_average_surface_distance(
                y_pred, y, include_background=True, symmetric=True, spacing=spacing
            )
        )

    return {
        "overlap": overlap,
        "distances": lambda: {"hausdorff": hausdorff(None), "hd95": hausdorff(95), "assd": assd()},
        "surface Dice": lambda: {
            "surface_dice_1": surface_dice(side / 100),
            "surface_dice_2": surface_dice(side / 50),
        },
    }


def score_by_monai(
    prediction: np.ndarray, truth: np.ndarray, spacing: tuple[float, float] | None = None
) -> dict[str, float]:
    """Compute the metrics that MONAI has too, with its own treatment of empty masks and in float32."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of empty masks, and of a deprecation inside MONAI
        groups = make_monai_groups(prediction, truth, spacing)
        return {name: value for compute in groups.values() for name, value in compute().items()}


def compute_in_float32(to_truth: np.ndarray, to_prediction: np.ndarray) -> dict[str, float]:
    """Compute hausdorff, hd95 and assd from directed distances with MONAI's precision, not in float64."""
    import torch

    directed = [torch.from_numpy(values).float() for values in (to_truth, to_prediction)]
    return {
        "hausdorff": max(float(values.max()) for values in directed),
        "hd95": max(float(torch.quantile(values, 0.95)) for values in directed),
        "assd": float(torch.cat(directed).mean()),
    }


def score_contours_by_monai(prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Compute surface Dice with MONAI in the convention of DeepMind's surface-distance.

    It is weighted by the length of a contour that runs between the pixels. Neither mask is empty.
    """
    import torch
    from monai.metrics import compute_surface_dice

    y_pred, y = (torch.from_numpy(mask)[None, None] for mask in (prediction, truth))
    side = max(truth.shape)
    return {
        f"surface_dice_{percent}": float(
            compute_surface_dice(y_pred, y, [side * percent / 100], True, use_subvoxels=True)
        )
        for percent in (1, 2)
    }
