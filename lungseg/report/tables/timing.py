"""Tables of how fast: latency, throughput, what can be told apart, stages, training."""

from __future__ import annotations

from typing import Any

import pandas as pd

from lungseg.report.contents import Contents
from lungseg.report.markup import EMPTY, Section, Table, amount, count, duration, share
from lungseg.report.numbers.quality import training_frame
from lungseg.report.numbers.timing import (
    is_true,
    latency_frame,
    speed_ratios,
    stage_frame,
    throughput_frame,
)

APART = 0.1  # how far the sum of the stages may be from the whole before it is marked
_SETTING = ["Device", "Precision", "Layout", "Compiled", "Copies"]


def timing_sections(contents: Contents) -> list[Section]:
    """All tables of time that the stored results have numbers for."""
    found = [
        latency_section(contents),
        throughput_section(contents),
        ratio_section(contents),
        stage_section(contents),
        training_section(contents),
    ]
    return [section for section in found if section]


def latency_section(contents: Contents) -> Section | None:
    """Every device and setting at batch size 1, with what one image costs there."""
    frame = latency_frame(contents)
    if frame.empty:
        return None
    sizes = _sizes(frame)
    header = ["Approach", *_SETTING, *(["Image"] if len(sizes) > 1 else [])]
    words = len(header)
    header += ["Median, ms", "IQR, ms", "90th percentile, ms"]
    header += ["Peak memory, MiB", "J/image", "GFLOP/image", "Of measured peak"]
    rows = [
        [
            row["approach"],
            *_setting_cells(row),
            *([_size(row)] if len(sizes) > 1 else []),
            *(amount(row[name]) for name in ("median_ms", "iqr_ms", "p90_ms")),
            *(amount(row[name]) for name in ("peak_memory_mib", "joules_per_image", "gflops")),
            share(row["peak_share"]),
        ]
        for row in frame.to_dict("records")
    ]
    of_size = f" of {next(iter(sizes))} pixels" if len(sizes) == 1 and EMPTY not in sizes else ""
    repeats = {int(value) for value in frame["repeats"].dropna()}
    calls = f", {count(repeats.pop(), 'call')}" if len(repeats) == 1 else ""
    text = (
        f"One image{of_size} at a time, from memory to its map{calls}. Copies: whether those between host "
        "and device are in the time. Memory: of the approach's own process, on CUDA what was allocated on "
        "the device. GFLOP: 2 x multiply-add, as torch counts matrix products and convolutions; what trees "
        "do is in the time alone. Measured peak: a matrix product on the same device in the same precision "
        "(float32 on a GPU: TF32 where torch takes it for convolutions)."
    )
    return Section("Latency", Table(header, rows, text=set(range(words))), text)


def _setting_cells(row: dict[str, Any]) -> list[str]:
    compiled, copies = (EMPTY if pd.isna(row[name]) else _yes(row[name]) for name in ("compiled", "copies"))
    return [row["device"].upper(), row["precision"] or EMPTY, row["layout"] or EMPTY, compiled, copies]


def _yes(value: Any) -> str:
    return "yes" if is_true(value) else "no"


def _sizes(frame: pd.DataFrame) -> set[str]:
    return {_size(row) for row in frame.to_dict("records")}


def _size(row: dict[str, Any]) -> str:
    return EMPTY if pd.isna(row["height"]) else f"{row['height']:.0f} x {row['width']:.0f}"


def throughput_section(contents: Contents) -> Section | None:
    """Images/s by batch size, the highest of each row in bold."""
    frame = throughput_frame(contents)
    if frame.empty:
        return None
    keys = [dict(zip(frame.index.names, key, strict=True)) for key in frame.index]
    sizes = {_size(key) for key in keys}
    header = ["Approach", *_SETTING, *(["Image"] if len(sizes) > 1 else [])]
    words = len(header)
    rows, bold = [], set()
    for number, (key, values) in enumerate(zip(keys, frame.to_numpy(), strict=True)):
        size = [_size(key)] if len(sizes) > 1 else []
        rows.append([key["approach"], *_setting_cells(key), *size, *map(amount, values)])
        bold |= {(number, words + i) for i, value in enumerate(values) if value == pd.Series(values).max()}
    text = "Images per second by the number of images in a batch, by the median time of a batch."
    table = Table([*header, *(f"{batch:.0f}" for batch in frame)], rows, bold, text=set(range(words)))
    return Section("Throughput, images/s by batch size", table, text)


def ratio_section(contents: Contents) -> Section | None:
    """How many times as fast one approach is as another, and the noise floor of that."""
    frame = speed_ratios(contents)
    if frame.empty:
        return None
    rows = [
        [
            row["approach"],
            "itself" if row["kind"] == "A/A" else row["other"],
            row["device"].upper(),
            row["precision"] or EMPTY,
            row["layout"] or EMPTY,
            EMPTY if pd.isna(row["compiled"]) else _yes(row["compiled"]),
            f"{row['batch_size']:.0f}",
            _ratio(row),
            EMPTY if pd.isna(row["low"]) else f"{amount(row['low'])} to {amount(row['high'])}",
            EMPTY if pd.isna(row["rounds"]) else f"{row['rounds']:.0f}",
        ]
        for row in frame.to_dict("records")
    ]
    header = ["Approach", "Other", *_SETTING[:4], "Batch", "Times as fast", "Range of rounds", "Rounds"]
    text = (
        "The time of other over that of approach, each ratio taken within a round; the median over rounds "
        "and the smallest and largest. An approach beside itself, in two processes, shows the noise floor: "
        "two approaches are told apart only if their ratio is farther from 1 than every round of either "
        "beside itself."
    )
    return Section("Which speeds can be told apart", Table(header, rows, text=set(range(6))), text)


def _ratio(row: dict[str, Any]) -> str:
    if row["kind"] == "A/A":
        return amount(row["ratio"])
    if pd.isna(row["distinguishable"]):
        return f"{amount(row['ratio'])} (no noise floor)"
    return amount(row["ratio"]) if is_true(row["distinguishable"]) else "not told apart"


def stage_section(contents: Contents) -> Section | None:
    """Median ms of each stage; None if nothing was timed at batch size 1."""
    frame = stage_frame(contents)
    if frame.empty or "whole" not in frame:
        return None
    rows = []
    for row in frame.to_dict("records"):
        cells = [amount(value) for name, value in row.items() if name not in ("approach", "device", "ratio")]
        far = " *" if abs(row["ratio"] - 1) > APART else ""
        ratio = EMPTY if pd.isna(row["ratio"]) else f"{row['ratio']:.2f}{far}"
        rows.append([row["approach"], row["device"].upper(), *cells, ratio])
    header = [*(name.capitalize() for name in frame if name != "ratio"), "Sum/whole"]
    marked = " * More than 10 % apart." if any(row[-1].endswith("*") for row in rows) else ""
    text = (
        "Median at batch size 1. Sum adds prepare to finish; whole is the same way timed in one go."
        f"{marked} Decode, reading the image from an 8-bit PNG file, is in neither."
    )
    return Section("Time by stage, ms per image", Table(header, rows, text={0, 1}), text)


def training_section(contents: Contents) -> Section | None:
    """What training took; None if nothing was trained."""
    frame = training_frame(contents)
    if frame.empty:
        return None
    waited = frame["wait_share"].notna().any()
    header = ["Approach", "Fits", "Time per fit", "Speed", "Parameters", "Best step", "Peak memory, MiB"]
    rows = [
        [
            row["approach"],
            str(row["fits"]),
            duration(row["seconds"]),
            f"{amount(row['items_per_s'])} {row['unit']}/s" if pd.notna(row["items_per_s"]) else EMPTY,
            f"{int(row['parameters']):,}" if row["parameters"] > 0 else EMPTY,
            ", ".join(str(step) for step in row["best_steps"]) or EMPTY,
            amount(row["peak_memory_mib"]),
            *([share(row["wait_share"])] if waited else []),
        ]
        for row in frame.to_dict("records")
    ]
    text = (
        "Means over fits; memory is the largest of them: on a CPU that of the whole process, in which the "
        "fits run one after the other, on CUDA what was allocated on the device."
    )
    if waited:
        header.append("Waiting")
        text += " Waiting: the share of the time in which data were not there yet, or a state was stored."
    return Section("Training", Table(header, rows), text)
