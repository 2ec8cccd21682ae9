"""A small synthetic results directory with numbers that can be checked by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lungseg.results import write_json, write_table

SIZE = 48
IDS = [f"img_{index}" for index in range(6)]
SOURCES = dict(zip(IDS, ["east", "east", "west", "west", "west", "west"], strict=True))
SEEDS = (0, 1)

# Dice by approach and image; seed 1 is 0.02 lower. Means over both seeds: good_net 0.89, pixels 0.74.
DICE = {
    "good_net": [0.95, 0.85, 0.90, 0.90, 0.85, 0.95],
    "pixels": [0.80, 0.70, 0.75, 0.75, 0.70, 0.80],
    "mean-mask": [0.50, 0.50, 0.50, 0.50, 0.50, 0.50],
}


def write_results(directory: Path) -> Path:
    """Three approaches and a skipped one, six images of two sources, two seeds; no timings of `mean-mask`."""
    write_table(directory / "scores.csv", "scores", _scores())
    write_table(directory / "statistics.csv", "statistics", _statistics())
    write_table(directory / "timings.csv", "timings", _timings())
    write_table(directory / "training.csv", "training", _training())
    write_table(directory / "history.csv", "history", _history())
    write_json(directory / "run.json", run_record())
    write_predictions(directory)
    return directory


def run_record() -> dict[str, Any]:
    def weights(network: str, kind: str) -> dict[str, str]:
        return {
            "network": network,
            "kind": kind,
            "file": f"/home/somebody/{network}.safetensors",
            "sha256": "ab" * 32,
        }

    return {
        "format": 1,
        "name": "tiny",
        "versions": {"python": "3.11.7", "torch": "2.15.0"},
        "devices": {"cpu": "Some CPU", "cuda": None},
        "threads": 2,
        "git": {"revision": "0123456789abcdef", "dirty": False},
        "data": {"dataset": "made-up", "real": False, "count": 30, "sha256": "12" * 32},
        "training_data": None,
        "splits": [
            {"rule": "random", "fold": 0, "sha256": "deadbeef" * 8, "train": 20, "validation": 4, "test": 6}
        ],
        "evaluate_on": "test",
        "seeds": list(SEEDS),
        "approaches": [
            {"name": "mean-mask", "use": "mean-mask", "weights": None, "skipped": None},
            {"name": "pixels", "use": "vgg19-pixels", "weights": weights("vgg19", "random"), "skipped": None},
            {"name": "good_net", "use": "x", "weights": weights("resnet50", "imagenet"), "skipped": None},
            {"name": "absent", "use": "y", "weights": None, "skipped": "needs 80 % of /opt/models/big.bin"},
        ],
        "empty": {"timings: cuda": "no CUDA device on this machine"},
        "finished": "2026-01-02T03:04:05",
        "seconds": 200.0,
    }


def _scores() -> list[dict[str, Any]]:
    rows = []
    for name, values in DICE.items():
        for seed in SEEDS:
            for image_id, value in zip(IDS, values, strict=True):
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
                    }
                )
    return rows


def _statistics() -> list[dict[str, Any]]:
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
        rows.append({**key, "metric": "f1", "kind": "pooled", "value": mean + 0.001})
    return rows


def _timings() -> list[dict[str, Any]]:
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
                            "images_per_s": (batch + 2) * 100 / time,
                        }
                    )
    return rows


def _training() -> list[dict[str, Any]]:
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


def _history() -> list[dict[str, Any]]:
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


def write_predictions(directory: Path) -> None:
    rows, columns = np.mgrid[:SIZE, : SIZE + 8]
    for index, image_id in enumerate(IDS):
        left = ((columns - 16) / (6 + index)) ** 2 + ((rows - 24) / 15) ** 2 < 1
        right = ((columns - 40) / (6 + index)) ** 2 + ((rows - 24) / 14) ** 2 < 1
        truth = left | right
        save_grey(directory / "predictions/images" / f"{image_id}.png", np.where(truth, 60, 180) + rows)
        save_grey(directory / "predictions/truth" / f"{image_id}.png", truth * 255)
        for name in DICE:
            save_grey(
                directory / "predictions/maps" / name / "f0-s0" / f"{image_id}.png", np.roll(truth, 3) * 220
            )
    maps = np.stack([np.roll(rows, shift, axis=0) for shift in range(5)]).astype(np.float16)
    features = directory / "predictions/features/pixels.npz"
    features.parent.mkdir(parents=True)
    np.savez(features, maps=maps, image_id=IDS[0])


def save_grey(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).save(path)
