"""What the tables and plots show, picked from the stored results as plain numbers. Computes no score."""

from __future__ import annotations

from typing import Any

import pandas as pd

from lungseg.report.contents import Contents

# What makes two timings of the same stage different measurements.
SETTING = ["precision", "layout", "compiled", "height", "width"]
BEFORE, AFTER = ("decode", "prepare"), ("finish",)


def main_frame(contents: Contents) -> pd.DataFrame:
    """The main table: a row per approach and device it was timed on, best mean Dice first.

    An approach that was never timed has one row without a device. Times are in ms an image at batch size 1,
    from the image in memory to its map; `images_per_s` is that of the batch size with the highest.
    """
    rows = []
    for name in contents.ranked():
        quality = _quality(contents, name)
        speeds = [_speed(whole) for whole in _settings(contents.timings, name)] or [{}]
        rows += [{**quality, **speed} for speed in speeds]
    return pd.DataFrame(rows, columns=_MAIN_COLUMNS)


_MAIN_COLUMNS = [
    *("approach", "dataset", "weights", "n", "dice", "dice_low", "dice_high", "dice_median", "dice_sd"),
    *("seeds", "dice_seed_sd", "iou", "accuracy", "precision", "recall", "specificity", "pooled_f1"),
    *("training_seconds", "device", "compute_precision", "layout", "compiled", "copies"),
    *("ms_per_image", "ms_iqr", "images_per_s", "batch_size"),
]


def _quality(contents: Contents, name: str) -> dict[str, Any]:
    dice = contents.statistic(name, "dice")
    others = ("iou", "accuracy", "precision", "recall", "specificity")
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
        "seeds": dice["seeds"],
        "dice_seed_sd": dice["seed_sd"],
        **{metric: contents.statistic(name, metric).get("value") for metric in others},
        "pooled_f1": contents.statistic(name, "f1", "pooled").get("value"),
        "training_seconds": training["seconds"].mean(),
    }


def _settings(timings: pd.DataFrame, name: str) -> list[pd.DataFrame]:
    """The rows of stage "whole" of one approach, a table per device, in the order they were measured.

    Of several settings on one device the first measured is the approach's own; where a time was taken with
    and without copies between host and device, the one with them counts, since every user pays for them.
    """
    whole = timings[(timings["approach"] == name) & (timings["stage"] == "whole")]
    result = []
    for device in whole["device"].drop_duplicates():
        rows = whole[whole["device"] == device]
        rows = rows[_same(rows, rows.iloc[0])]
        with_copies = rows[rows["copies"].map(str) == "True"]
        result.append(with_copies if len(with_copies) else rows)
    return result


def _same(rows: pd.DataFrame, one: pd.Series) -> pd.Series:
    """Which of `rows` were measured in the setting of the row `one`; empty cells equal each other."""
    equal = [(rows[name] == one[name]) | (rows[name].isna() & pd.isna(one[name])) for name in SETTING]
    return pd.concat(equal, axis=1).all(axis=1)


def _speed(whole: pd.DataFrame) -> dict[str, Any]:
    first, single = whole.iloc[0], whole[whole["batch_size"] == 1]
    speed = {
        "device": first["device"],
        "compute_precision": first["precision"],
        "layout": first["layout"],
        "compiled": first["compiled"],
        "copies": first["copies"],
    }
    if len(single):
        speed |= {"ms_per_image": single.iloc[0]["median_ms"], "ms_iqr": single.iloc[0]["iqr_ms"]}
    if whole["images_per_s"].notna().any():
        best = whole.loc[whole["images_per_s"].idxmax()]
        speed |= {"images_per_s": best["images_per_s"], "batch_size": int(best["batch_size"])}
    return speed


def source_frame(contents: Contents) -> pd.DataFrame:
    """Mean Dice of the images of each source (columns) and approach (rows, best first)."""
    means = contents.image_dice().groupby(contents.sources()).mean()
    return means.T.reindex([name for name in contents.ranked() if name in means.columns])


def stage_frame(contents: Contents) -> pd.DataFrame:
    """Median ms of each stage at batch size 1: a row per approach and device, columns in the order of work.

    Column "sum" adds the stages from prepare to finish, to be held beside "whole", which was timed in one go.
    """
    rows = []
    for name in contents.ranked():
        for whole in _settings(contents.timings, name):
            times = _stage_times(contents.timings, whole.iloc[0])
            inner = [time for stage, time in times.items() if stage not in ("decode", "whole")]
            total = sum(inner) if inner else float("nan")
            rows.append({"approach": name, "device": whole.iloc[0]["device"], **times, "sum": total})
    frame = pd.DataFrame(rows, columns=None if rows else ["approach", "device"])
    own = [stage for stage in frame if stage not in ("approach", "device", *BEFORE, *AFTER, "sum", "whole")]
    order = ["approach", "device", *BEFORE, *own, *AFTER, "sum", "whole"]
    return frame[[column for column in order if column in frame]]


def _stage_times(timings: pd.DataFrame, one: pd.Series) -> dict[str, float]:
    rows = timings[
        (timings["approach"] == one["approach"])
        & (timings["device"] == one["device"])
        & (timings["batch_size"] == 1)
    ]
    # Reading a file happens on the host, the same in every setting.
    rows = rows[_same(rows, one) | (rows["stage"] == "decode")]
    # Copies belong to "whole"; the row with them stands first.
    rows = rows.assign(_order=rows["copies"].map(str) != "True").sort_values("_order", kind="stable")
    return {stage: float(part.iloc[0]["median_ms"]) for stage, part in rows.groupby("stage", sort=False)}


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
                }
            )
    return pd.DataFrame(rows)
