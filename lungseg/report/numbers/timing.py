"""Collect what the tables and figures of time show from timings.csv and timing_pairs.csv."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from lungseg.report.contents import Contents

# Two timings of the same stage that differ in one of these are different measurements.
SETTING = ["precision", "layout", "compiled", "height", "width"]
# Of timings.csv alone, since only the run's own runtime has ratios. Empty in tables of an older version.
TIMED = [*SETTING, "tuned", "deterministic"]
BEFORE, AFTER = ("decode", "prepare"), ("finish",)
AT_ONE = ("peak_memory_mib", "joules_per_image", "gflops", "peak_share")  # shown at batch size 1


def is_true(value: Any) -> bool:
    """Return whether a cell says True. With empty cells in its column, pandas reads it as an object."""
    return str(value) in ("True", "1", "1.0")


def name_program(tuned: Any, deterministic: Any) -> str:
    """Return what a program is not that others are: tuned, deterministic; "" if it is both or unknown."""
    missing = ["tuned"] if str(tuned) in ("False", "0", "0.0") else []
    missing += ["deterministic"] if deterministic == "no" else []
    return f"not {' nor '.join(missing)}" if missing else ""


def split_by_device(timings: pd.DataFrame, name: str) -> list[pd.DataFrame]:
    """Return the rows of stage "whole" of one approach, a table per device, in the order of measurement.

    Of several settings on one device, only the first measured, the approach's own, is kept.
    """
    whole = timings[(timings["approach"] == name) & (timings["stage"] == "whole")]
    devices = [rows for _, rows in whole.groupby("device", sort=False)]
    return [keep_copies(rows[_match_setting(rows, rows.iloc[0])]) for rows in devices]


def keep_copies(rows: pd.DataFrame) -> pd.DataFrame:
    """Keep the times with copies between host and device if there are any: every user pays for them."""
    with_copies = rows[rows["copies"].map(is_true)]
    return with_copies if len(with_copies) else rows


def _match_setting(rows: pd.DataFrame, one: pd.Series) -> pd.Series:
    """Return which of `rows` were measured in the setting of the row `one`; empty cells are equal."""
    equal = [(rows[name] == one[name]) | (rows[name].isna() & pd.isna(one[name])) for name in TIMED]
    return pd.concat(equal, axis=1).all(axis=1)


def summarise_speed(whole: pd.DataFrame) -> dict[str, Any]:
    """Return the main table's columns on time: latency at batch size 1, throughput at the best batch size.

    `whole` is one of the tables of `split_by_device`.
    """
    first, single = whole.iloc[0], whole[whole["batch_size"] == 1]
    found = {name: first[name] for name in ("device", "layout", "compiled", "copies")}
    found["compute_precision"] = first["precision"]
    if len(single):
        row = single.iloc[0]
        found |= {"ms_per_image": row["median_ms"], "ms_iqr": row["iqr_ms"], "ms_p90": row["p90_ms"]}
        found |= {name: row[name] for name in AT_ONE}
    if whole["images_per_s"].notna().any():
        best = whole.loc[whole["images_per_s"].idxmax()]
        found["best_images_per_s"], found["best_batch_size"] = best["images_per_s"], int(best["batch_size"])
    return found


def select_latencies(contents: Contents) -> pd.DataFrame:
    """Return the timings of stage "whole" at batch size 1: every device and setting, best Dice first."""
    whole = _select_whole(contents)
    return whole[whole["batch_size"] == 1]


def collect_throughput(contents: Contents, column: str = "images_per_s") -> pd.DataFrame:
    """Return images/s of stage "whole": a row per approach, device and setting, a column per batch size.

    The index has the levels approach, device, `TIMED` and copies. The columns are sorted. With `column`
    "device_images_per_s" it is that of the device alone, for GPUs.
    """
    whole = _select_whole(contents).dropna(subset=[column])
    if column != "images_per_s":
        whole = whole[whole["device"] != "cpu"]
    index = ["approach", "device", *TIMED, "copies"]
    if whole.empty:
        return pd.DataFrame()
    rows = {}
    # Not pivoted: a pivot drops rows with an empty level, such as an unknown layout.
    for key, part in whole.groupby(index, dropna=False, sort=False):
        rows[key] = part.drop_duplicates("batch_size").set_index("batch_size")[column]
    wide = pd.DataFrame(rows.values(), index=pd.MultiIndex.from_tuples(rows, names=index))
    return wide[sorted(wide.columns)]


def _select_whole(contents: Contents) -> pd.DataFrame:
    whole = contents.timings[contents.timings["stage"] == "whole"]
    place = {name: number for number, name in enumerate(contents.sort_names(whole["approach"]))}
    return whole.sort_values("approach", key=lambda names: names.map(place), kind="stable")


def collect_stages(contents: Contents) -> pd.DataFrame:
    """Return the median ms of each stage at batch size 1: a row per approach and device.

    Columns are in the order in which stages run. "sum" adds the stages from prepare to finish; "whole" is the
    same work timed in one go; "ratio" is sum / whole.
    """
    rows = []
    for name in contents.ranked:
        for whole in split_by_device(contents.timings, name):
            times = _find_stage_times(contents.timings, whole.iloc[0])
            inner = [time for stage, time in times.items() if stage not in ("decode", "whole")]
            total = sum(inner) if inner else float("nan")
            ratio = total / times.get("whole", float("nan"))
            device = whole.iloc[0]["device"]
            rows.append({"approach": name, "device": device, **times, "sum": total, "ratio": ratio})
    frame = pd.DataFrame(rows, columns=None if rows else ["approach", "device"])
    first, last = ("approach", "device", *BEFORE), (*AFTER, "sum", "whole", "ratio")
    own = [stage for stage in frame if stage not in (*first, *last)]
    return frame[[column for column in (*first, *own, *last) if column in frame]]


def _find_stage_times(timings: pd.DataFrame, one: pd.Series) -> dict[str, float]:
    same = (timings["approach"] == one["approach"]) & (timings["device"] == one["device"])
    rows = timings[same & (timings["batch_size"] == 1)]
    # Reading a file happens on the host, the same in every setting.
    rows = rows[_match_setting(rows, one) | (rows["stage"] == "decode")]
    # Copies belong to "whole": the row with them comes first.
    rows = rows.assign(_order=~rows["copies"].map(is_true).astype(bool)).sort_values("_order", kind="stable")
    return {stage: float(part.iloc[0]["median_ms"]) for stage, part in rows.groupby("stage", sort=False)}


def collect_ratios(contents: Contents) -> pd.DataFrame:
    """Return timing_pairs.csv with the A/A rows first, and the faster of the two as `approach`.

    `ratio` is then at least 1: how many times as fast `approach` is as `other`. Within a device, setting and
    batch size the fastest approach comes first.
    """
    pairs = contents.timing_pairs
    same = pairs[pairs["kind"] == "A/A"].to_dict("records")
    different = pairs[(pairs["kind"] == "A/B") & (pairs["ratio"] > 0)].to_dict("records")
    frame = pd.DataFrame(map(_put_faster_first, different), columns=pairs.columns)
    keys = ["device", *SETTING, "batch_size"]
    frame["_measured"] = frame.groupby(keys, dropna=False, sort=False).ngroup()
    frame["_wins"] = frame.groupby(["_measured", "approach"])["other"].transform("count")
    frame = frame.sort_values(["_measured", "_wins", "ratio"], ascending=[True, False, True], kind="stable")
    return pd.DataFrame([*same, *frame[list(pairs.columns)].to_dict("records")], columns=pairs.columns)


def find_as_fast(contents: Contents, name: str, device: str, others: Iterable[str]) -> list[str]:
    """Return those of `others` whose time of one image isn't distinguishable from that of an approach."""
    pairs = collect_ratios(contents)
    rows = pairs[(pairs["kind"] == "A/B") & (pairs["device"] == device) & (pairs["batch_size"] == 1)]
    rows = rows[~rows["distinguishable"].map(is_true)]
    equal = {
        row.other if row.approach == name else row.approach
        for row in rows.itertuples()
        if name in (row.approach, row.other)
    }
    return [other for other in others if other in equal]


def _put_faster_first(row: dict[str, Any]) -> dict[str, Any]:
    if row["ratio"] >= 1:
        return row
    changed = {"approach": row["other"], "other": row["approach"], "ratio": 1 / row["ratio"]}
    return row | changed | {"low": 1 / row["high"], "high": 1 / row["low"]}


def summarise_training(contents: Contents) -> pd.DataFrame:
    """Return a row per trained approach, best Dice first: means over fits, and the largest peak of memory."""
    fits = dict(iter(contents.training.groupby("approach")))
    rows = [
        {
            "approach": name,
            "fits": len(fits[name]),
            **{column: fits[name][column].mean() for column in ("seconds", "items_per_s", "wait_share")},
            **{
                column: fits[name][column].max()
                for column in ("parameters", "peak_memory_mib", "process_memory_mib", "host_memory_mib")
            },
            "on_gpu": fits[name]["reserved_memory_mib"].notna().any(),
            "unit": fits[name]["unit"].iloc[0],
            "parts": sorted(int(parts) for parts in fits[name]["accumulation_steps"].dropna().unique()),
            "best_steps": sorted(int(step) for step in fits[name]["best_step"].dropna()),
        }
        for name in contents.ranked
        if name in fits
    ]
    return pd.DataFrame(rows)
