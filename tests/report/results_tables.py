"""The rows of the tables of a small synthetic results directory, with numbers to check by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

IDS = [f"img_{index}" for index in range(6)]
SOURCES = dict(zip(IDS, ["east", "east", "west", "west", "west", "west"], strict=True))
SEEDS = (0, 1)

# Dice by approach and image; seed 1 is 0.02 lower. Means over both seeds: good_net 0.89, pixels 0.74.
DICE = {
    "good_net": [0.95, 0.85, 0.90, 0.90, 0.85, 0.95],
    "pixels": [0.80, 0.70, 0.75, 0.75, 0.70, 0.80],
    "mean-mask": [0.50, 0.50, 0.50, 0.50, 0.50, 0.50],
}
# Pixels of 10,000: the true area of each image, and how much larger the predicted one is; 20 more in seed 1.
AREAS = [2000, 2100, 2200, 2300, 2400, 2500]
LARGER = {
    "good_net": [0, 100, 0, 100, 0, 100],
    "pixels": [300, 500, 300, 500, 300, 500],
    "mean-mask": [500, 400, 300, 200, 100, 0],
}
# Means of the other metrics of an image, in the order of DICE.
MEANS = {
    "dice_left": (0.88, 0.73, 0.48),
    "dice_right": (0.90, 0.75, 0.50),
    "area_error": (0.03, 0.18, 0.12),
    "hausdorff": (9.0, 24.0, 40.0),
    "hd95": (4.0, 12.0, 30.0),
    "assd": (1.0, 3.0, 8.0),
    "surface_dice_1": (0.80, 0.40, 0.10),
    "surface_dice_2": (0.95, 0.60, 0.20),
    "brier": (0.02, 0.06, 0.15),
}
# value, p_value, p_holm of paired Dice: good_net is distinguishable from both others, they are not from
# each other.
PAIRS = {
    ("good_net", "pixels"): (0.15, 0.004, 0.012),
    ("good_net", "mean-mask"): (0.40, 0.006, 0.012),
    ("mean-mask", "pixels"): (-0.25, 0.08, 0.08),
}
RANKS = {"good_net": 1.0, "pixels": 2.25, "mean-mask": 2.75}
CRITICAL_DIFFERENCE = 1.0


def scores() -> list[dict[str, Any]]:
    rows = []
    for name, values in DICE.items():
        for seed in SEEDS:
            for index, (image_id, value) in enumerate(zip(IDS, values, strict=True)):
                rows.append(
                    {
                        "approach": name,
                        "dataset": "made-up",
                        "fold": 0,
                        "seed": seed,
                        "image_id": image_id,
                        "patient": image_id,
                        "source": SOURCES[image_id],
                        "threshold": 0.5,
                        "dice": value - 0.02 * seed,
                        **_counts(name, index, seed),
                        "distance_unit": "px",
                        **_of_metrics(name),
                    }
                )
    return rows


def _counts(name: str, index: int, seed: int) -> dict[str, int]:
    """Counts of the Dice in DICE, as near as whole pixels come, with the areas in AREAS and LARGER."""
    true = AREAS[index]
    predicted = true + LARGER[name][index] + 20 * seed
    tp = round((DICE[name][index] - 0.02 * seed) * (true + predicted) / 2)
    fp, fn = predicted - tp, true - tp
    return {"tp": tp, "fp": fp, "fn": fn, "tn": 10_000 - tp - fp - fn}


def _of_metrics(name: str) -> dict[str, float]:
    place = list(DICE).index(name)
    return {metric: values[place] for metric, values in MEANS.items()}


def statistics() -> list[dict[str, Any]]:
    rows = []
    for name, values in DICE.items():
        key = {"dataset": "made-up", "approach": name, "n": 6, "seeds": 2}
        mean = float(np.mean(values)) - 0.01
        for metric in ("dice", "iou", "accuracy", "precision", "recall", "specificity"):
            spread = {
                "low": mean - 0.03,
                "high": mean + 0.03,
                "median": mean + 0.005,
                "sd": 0.04,
                "seed_sd": 0.0141,
            }
            rows.append({**key, "metric": metric, "kind": "mean", "value": mean, **spread})
        for metric, value in _of_metrics(name).items():
            spread = {"low": 0.9 * value, "high": 1.1 * value, "median": value, "sd": 0.2 * value}
            rows.append({**key, "metric": metric, "kind": "mean", "value": value, **spread})
        rows.append({**key, "metric": "f1", "kind": "pooled", "value": mean + 0.001})
        rows.append({**key, "metric": "dice", "kind": "rank", "value": RANKS[name]})
    shared = {"dataset": "made-up", "metric": "dice", "n": 6}
    rows.append({**shared, "kind": "friedman", "value": 9.5, "p_value": 0.009})
    rows.append({**shared, "kind": "critical-difference", "value": CRITICAL_DIFFERENCE})
    return rows + _paired()


def _paired() -> list[dict[str, Any]]:
    rows = []
    for (approach, other), (value, p_value, p_holm) in PAIRS.items():
        key = {
            "dataset": "made-up",
            "approach": approach,
            "other": other,
            "kind": "paired",
            "n": 6,
            "seeds": 2,
        }
        better, worse = (6, 0) if value > 0 else (0, 6)
        tests = {
            "p_value": p_value,
            "wilcoxon_p": 0.03,
            "nemenyi_p": 0.6 if {approach, other} == {"pixels", "mean-mask"} else 0.02,
            "rank_biserial": 1.0 if value > 0 else -1.0,
            "better": better,
            "worse": worse,
            "tied": 0,
        }
        # The interval of the pair that is not distinguishable holds 0.
        spread = {"low": value - 0.05, "high": value + (0.3 if p_holm > 0.05 else 0.05)}
        spread |= {"median": value, "sd": 0.04}
        rows.append(
            {**key, "metric": "dice", "primary": True, "value": value, **spread, **tests, "p_holm": p_holm}
        )
        rows.append({**key, "metric": "hd95", "primary": False, "value": -20 * value, **tests})
    return rows


def timings() -> list[dict[str, Any]]:
    rows = []
    for name, stages in {
        "pixels": {"features": 3.0, "regression": 5.0},
        "good_net": {"network": 20.0},
    }.items():
        for device, factor in (("cpu", 1.0), ("cuda", 0.1)):
            for batch in (1, 8):
                times = {"decode": 2.0, "prepare": 1.0, **stages, "finish": 0.5}
                times["whole"] = sum(times.values()) - times["decode"] + 0.25
                for stage, time in times.items():
                    median = time * factor * batch
                    rows.append(
                        {
                            "approach": name,
                            "stage": stage,
                            "device": device,
                            "precision": "float32",
                            "copies": stage == "whole",
                            "batch_size": batch,
                            "median_ms": median,
                            "iqr_ms": 0.5,
                            "p90_ms": median + 0.5,
                            "images_per_s": (batch + 2) * 100 / time,
                            "peak_memory_mib": 500.0 * factor + batch,
                            "joules_per_image": 0.5 if device == "cuda" and stage == "whole" else None,
                            "gflops": 18.3 if name == "good_net" and stage == "whole" else None,
                            "repeats": 100,
                        }
                    )
    return rows + _variant()


def _variant() -> list[dict[str, Any]]:
    """`good_net` on CUDA once more, in bfloat16: twice as fast as its own setting."""
    return [
        {
            "approach": "good_net",
            "stage": "whole",
            "device": "cuda",
            "precision": "bfloat16",
            "copies": True,
            "batch_size": batch,
            "median_ms": 21.75 * 0.05 * batch,
            "iqr_ms": 0.25,
            "p90_ms": 21.75 * 0.05 * batch + 0.25,
            "images_per_s": (batch + 2) * 200 / 21.75,
            "peak_memory_mib": 25.0 + batch,
            "repeats": 100,
        }
        for batch in (1, 8)
    ]


def timing_pairs() -> list[dict[str, Any]]:
    """Noise floors of 2 % (CPU) and 300 % (CUDA): there the two approaches are not distinguishable."""
    rows = []
    for device, noise, apart in (("cpu", 1.02, True), ("cuda", 4.0, False)):
        key = {"device": device, "precision": "float32", "batch_size": 1, "rounds": 4}
        for name in ("pixels", "good_net"):
            spread = {"ratio": 1.0, "low": 1 / noise, "high": noise}
            rows.append({**key, "approach": name, "other": name, "kind": "A/A", **spread})
        spread = {"ratio": 21.75 / 9.75, "low": 2.1, "high": 2.4, "distinguishable": apart}
        rows.append({**key, "approach": "pixels", "other": "good_net", "kind": "A/B", **spread})
    return rows


def calibration() -> list[dict[str, Any]]:
    """Four bins, the third one empty; `good_net` is right but for the last, `pixels` is 0.1 too sure."""
    rows = []
    means = [0.1, 0.3, None, 0.9]
    shares = {"good_net": [0.1, 0.3, None, 0.8], "pixels": [0.2, 0.4, None, 0.8]}
    for name, values in shares.items():
        for seed in SEEDS:
            for number, count in enumerate([600, 100, 0, 300]):
                edges = {"low": number / 4, "high": (number + 1) / 4}
                part = {"approach": name, "dataset": "made-up", "fold": 0, "seed": seed, "bin": number}
                held = {"mean_probability": means[number], "lung_share": values[number]}
                rows.append({**part, **edges, "count": count * (seed + 1), **held})
    return rows


def training() -> list[dict[str, Any]]:
    fits = [("pixels", "rows", None, 60.0), ("good_net", "images", 3, 130.0)]
    return [
        {
            "approach": name,
            "fold": 0,
            "seed": seed,
            "seconds": seconds + 20 * seed,
            "unit": unit,
            "items_per_s": 12.5,
            "parameters": 26_000_000,
            "best_step": best,
            "peak_memory_mib": 1000 + seed,
        }
        for name, unit, best, seconds in fits
        for seed in SEEDS
    ]


def history() -> list[dict[str, Any]]:
    rows = []
    for name, unit in (("pixels", "round"), ("good_net", "epoch")):
        for seed in SEEDS:
            for step in range(1, 6):
                rows.append(
                    {
                        "approach": name,
                        "fold": 0,
                        "seed": seed,
                        "unit": unit,
                        "step": step,
                        "train_loss": 1 / step,
                        "validation_loss": 1.1 / step,
                        "train_accuracy": 1 - 0.3 / step,
                        "validation_accuracy": 1 - 0.35 / step,
                        "validation_dice": 1 - 0.5 / step if unit == "epoch" else None,
                    }
                )
    return rows


def importance() -> list[dict[str, Any]]:
    """`good_net` reads a pyramid in two stages, `pixels` three channels of a layer."""
    shares = {
        ("good_net", "stage 1"): {
            "relu1_2@64:0": 0.2,
            "relu1_2@64:1": 0.1,
            "relu1_2@32:0": 0.1,
            "relu2_2@64:0": 0.2,
            "coordinates: y": 0.4,
        },
        ("good_net", "stage 2"): {"relu1_2@64:0": 0.1, "coordinates: y": 0.1, "map 1: here": 0.8},
        ("pixels", "regression"): {"relu1_2:0": 0.5, "relu1_2:1": 0.5, "relu1_2:2": 0.0},
    }
    return [
        {"approach": name, "fold": 0, "seed": seed, "stage": stage, "column": column, "share": share}
        for (name, stage), columns in shares.items()
        for seed in SEEDS
        for column, share in columns.items()
    ]
