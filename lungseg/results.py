"""The results directory: its files and columns, written atomically and read back."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pandas as pd

from lungseg.errors import InputError

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


def write_atomically(path: Path, text: str | bytes) -> None:
    """Writes a file whole or not at all: a reader, or a kill half-way, never sees a part of it."""
    data = text.encode() if isinstance(text, str) else text
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True) if os.access(path.parent, os.W_OK) else None
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> InputError:
    """The sentence for a file that can't be written: a full disk, or a folder without the right to."""
    if error.errno == errno.ENOSPC:
        return InputError(
            f"the disk is full while writing {path}: free some space, then run the same command"
        )
    return InputError(f"can't write {path} ({error.strerror}): choose another folder with --out")


def write_json(path: Path, value: Any) -> None:
    write_atomically(path, json.dumps(value, indent=2, sort_keys=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path} is missing: {path.parent} holds no benchmark results") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise InputError(f"{path} is damaged: run the benchmark again with --fresh") from None


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
    text = {
        name: str for name in ("approach", "dataset", "train_set", "image_id", "patient", "source", "stage")
    }
    return pd.read_csv(path, dtype=text, keep_default_na=True)
