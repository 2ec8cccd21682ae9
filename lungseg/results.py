"""The results directory: its files and columns, written atomically and read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from lungseg.storage import read_json, write_atomically, write_json

__all__ = ["FORMAT", "TABLES", "read_json", "read_table", "write_json", "write_table"]

FORMAT = 1  # of the results directory; a new one starts every part anew

# Identity of a row in scores.csv, then counts of pixels, then metrics of the binary mask.
SCORE_KEYS = [
    "approach",
    "dataset",
    "train_set",
    "n_train",
    "draw",
    "fold",
    "seed",
    "image_id",
    "patient",
    "source",
    "threshold",
]
SCORE_COLUMNS = [
    *SCORE_KEYS,
    "tp",
    "fp",
    "fn",
    "tn",
    "dice",
    "iou",
    "accuracy",
    "precision",
    "recall",
    "specificity",
]
HISTORY_COLUMNS = [
    "approach",
    "fold",
    "seed",
    "unit",  # what a step is: "round" of boosting or "epoch"
    "step",
    "train_loss",
    "validation_loss",
    "train_accuracy",
    "validation_accuracy",
    "validation_dice",
]
TIMING_COLUMNS = [
    "approach",
    "stage",  # decode, prepare, the approach's own stages, finish, and "whole" (prepare to finish)
    "device",
    "precision",
    "layout",
    "compiled",
    "copies",  # whether the copies between host and device are inside the time
    "height",
    "width",
    "batch_size",
    "median_ms",
    "iqr_ms",
    "p90_ms",
    "images_per_s",
    "peak_memory_mib",
    "joules_per_image",
    "gflops",
    "peak_share",
    "repeats",
]
TRAINING_COLUMNS = [
    "approach",
    "fold",
    "seed",
    "seconds",
    "unit",  # what was counted: "images" or "rows"
    "items",
    "items_per_s",
    "parameters",
    "best_step",
    "peak_memory_mib",
    "wait_share",
]
STATISTIC_COLUMNS = [
    "dataset",
    "approach",
    "metric",
    "kind",  # "mean" over patients, or "pooled" over all pixels
    "n",
    "value",
    "low",
    "high",
    "median",
    "sd",
    "seeds",
    "seed_sd",
]
TABLES = {
    "scores": SCORE_COLUMNS,
    "history": HISTORY_COLUMNS,
    "timings": TIMING_COLUMNS,
    "training": TRAINING_COLUMNS,
    "statistics": STATISTIC_COLUMNS,
}


TEXT_COLUMNS = {
    "approach",
    "dataset",
    "device",
    "image_id",
    "kind",
    "layout",
    "metric",
    "patient",
    "source",
    "stage",
    "train_set",
    "unit",
}


def write_table(path: Path, table: str, rows: list[dict[str, Any]] | pd.DataFrame) -> None:
    """Writes rows as CSV with the columns that `TABLES[table]` lists; a missing value is an empty cell.

    Floats have nine significant digits, enough for float32 and the same text on every run.
    """
    frame = pd.DataFrame(rows, columns=TABLES[table])
    write_atomically(path, frame.to_csv(index=False, float_format="%.9g", lineterminator="\n"))


def read_table(directory: Path, table: str) -> pd.DataFrame:
    """One of the CSV files of a results directory; empty with its columns if it isn't there."""
    path = directory / f"{table}.csv"
    if not path.exists():
        return pd.DataFrame(columns=TABLES[table])
    # A patient called "NA" is a patient: only columns of numbers have missing values. "precision" is a metric
    # in one table and a format of numbers in another.
    text = TEXT_COLUMNS | ({"precision"} if table == "timings" else set())
    header = pd.read_csv(path, nrows=0).columns
    numbers = {name: [""] for name in header if name not in text}
    types = {name: str for name in header if name in text}
    return pd.read_csv(path, dtype=types, keep_default_na=False, na_values=numbers)
