"""The files of a results directory, and the columns of its tables; tables are written and read here.

A column that changes its meaning is another FORMAT: results of the former one have to be made again. A new
column is empty in results that were made before it.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from lungseg.system.errors import InputError
from lungseg.system.files import read_json, write_atomically
from lungseg.system.stored import DamagedError, describe_files, find_damage, read_record, write_record

FIRST_SEALED = 4  # the first FORMAT whose run.json has a hash of its own
FORMAT = 4  # of the results directory; trials in another format are run again

# docs/results.md says what each column is; its text is in lungseg/report/columns.py.
SCORE_COLUMNS = [
    *("approach", "dataset", "train_set", "n_train", "fold", "seed", "image_id", "patient", "source"),
    *("threshold", "tp", "fp", "fn", "tn"),
    *("dice", "iou", "accuracy", "precision", "recall", "specificity", "dice_left", "dice_right"),
    *("area_error", "distance_unit", "hausdorff", "hd95", "assd", "surface_dice_1", "surface_dice_2"),
    "brier",
]
HISTORY_COLUMNS = [
    *("approach", "fold", "seed", "unit", "step"),
    *("train_loss", "validation_loss", "train_accuracy", "validation_accuracy", "validation_dice"),
]
TIMING_COLUMNS = [
    *("approach", "stage", "device", "precision", "layout", "compiled", "copies", "height", "width"),
    *("batch_size", "median_ms", "iqr_ms", "p90_ms", "images_per_s", "peak_memory_mib", "joules_per_image"),
    *("gflops", "peak_gflops_per_s", "peak_share", "compile_s", "repeats"),
    *("tuned", "graph", "folded", "deterministic", "device_images_per_s", "reserved_memory_mib"),
    *("process_memory_mib", "host_memory_mib", "host_joules_per_image", "sm_clock_mhz", "power_w"),
    *("temperature_c", "throttle", "void_rounds"),
]
# Ratios of two approaches' times, each taken within a round, so that a drift of the machine cancels.
PAIR_COLUMNS = [
    *("device", "precision", "layout", "compiled", "height", "width", "batch_size", "approach", "other"),
    *("kind", "rounds", "ratio", "low", "high", "distinguishable"),
]
CALIBRATION_COLUMNS = [
    *("approach", "dataset", "fold", "seed", "bin", "low", "high", "count", "mean_probability"),
    "lung_share",
]
TRAINING_COLUMNS = [
    *("approach", "fold", "seed", "seconds", "unit", "items", "items_per_s", "parameters", "best_step"),
    *("peak_memory_mib", "wait_share", "reserved_memory_mib", "process_memory_mib", "host_memory_mib"),
    *("busy_share", "accumulation_steps"),
]
# Which columns a fitted approach uses most, if it can tell; a column without any gain has a row too.
IMPORTANCE_COLUMNS = ["approach", "fold", "seed", "stage", "column", "share"]
STATISTIC_COLUMNS = [
    *("dataset", "approach", "other", "metric", "kind", "primary", "n", "value", "low", "high", "median"),
    *("sd", "p5", "p95", "seeds", "seed_sd", "p_value", "p_holm", "wilcoxon_p", "nemenyi_p"),
    *("rank_biserial", "better", "worse", "tied"),
]
TABLES = {
    "scores": SCORE_COLUMNS,
    "history": HISTORY_COLUMNS,
    "timings": TIMING_COLUMNS,
    "timing_pairs": PAIR_COLUMNS,
    "calibration": CALIBRATION_COLUMNS,
    "training": TRAINING_COLUMNS,
    "importance": IMPORTANCE_COLUMNS,
    "statistics": STATISTIC_COLUMNS,
}
TRIAL_TABLES = ("scores", "calibration", "history", "training", "importance")  # each trial has its rows
# All files of a results directory but those in its folders; run.json, which makes it one, first.
FILES = (
    *("run.json", "report.html", "summary.md", "summary.csv", "summary.tex", "summary-full.tex"),
    *("datapackage.json", *(f"{table}.csv" for table in TABLES)),
)
TEXT_COLUMNS = {
    "approach", "column", "dataset", "deterministic", "device", "distance_unit", "folded", "graph",
    "image_id", "kind", "layout", "metric", "other", "patient", "source", "stage", "throttle",
    "train_set", "unit",
}  # fmt: skip


def finish_run(directory: Path, record: dict[str, Any]) -> None:
    """Write the run.json of a finished run, with the length and sha256 of each of its tables."""
    tables = [f"{table}.csv" for table in TABLES if (directory / f"{table}.csv").exists()]
    write_record(directory / "run.json", record | {"tables": describe_files(directory, tables)})


def read_any_run(path: Path) -> dict[str, Any] | None:
    """Read a run.json of any version; None if there is none. Raises DamagedError if it is none or damaged."""
    try:
        return read_record(path)
    except DamagedError:
        with suppress(InputError):
            found = read_json(path)
            if found.get("format") in range(1, FIRST_SEALED):
                return found
        raise


def read_run(directory: Path, remedy: str = "run the benchmark again") -> dict[str, Any]:
    """Read the run.json of a finished run of this version whose tables are those that it wrote.

    Raises InputError, which ends with `remedy`, if it is missing, damaged, of another version or not
    finished, or if a table differs.
    """
    path = directory / "run.json"
    try:
        run = read_any_run(path)
    except DamagedError as error:
        raise InputError(f"{error}: {remedy}") from None
    if run is None:
        raise InputError(f"{path} is missing, so {directory} holds no benchmark results: {remedy}")
    if run.get("format") != FORMAT:
        raise InputError(f"{path} isn't of format {FORMAT}, which this version writes: {remedy}")
    if not run["finished"]:
        raise InputError(f"the run in {directory} is not finished, so it has no tables yet: {remedy}")
    if damage := find_damage(directory, run["tables"]):
        raise InputError(f"{damage}, so it isn't this run's: {remedy}")
    return run


def write_table(path: Path, table: str, rows: list[dict[str, Any]] | pd.DataFrame) -> None:
    """Write rows as CSV with the columns of `TABLES[table]`; a missing value is an empty cell.

    Floats have nine significant digits: enough for float32, and the same text on every run. Raises InputError
    as `write_atomically` does.
    """
    frame = pd.DataFrame(rows, columns=TABLES[table])
    write_atomically(path, frame.to_csv(index=False, float_format="%.9g", lineterminator="\n"))


def read_table(directory: Path, table: str) -> pd.DataFrame:
    """Read the CSV file of a key of `TABLES` from a results directory; an empty table if it is missing.

    Columns that an older version did not write are added, without values.
    """
    path = directory / f"{table}.csv"
    if not path.exists():
        return pd.DataFrame(columns=TABLES[table])
    # Only columns of numbers have missing values, since a patient may be called "NA". "precision" is a metric
    # in one table and a number format in others.
    text = TEXT_COLUMNS | ({"precision"} if table in ("timings", "timing_pairs") else set())
    header = pd.read_csv(path, nrows=0).columns
    numbers = {name: [""] for name in header if name not in text}
    types = {name: str for name in header if name in text}
    frame = pd.read_csv(path, dtype=types, keep_default_na=False, na_values=numbers)
    return frame.reindex(columns=list(dict.fromkeys([*TABLES[table], *frame.columns])))
