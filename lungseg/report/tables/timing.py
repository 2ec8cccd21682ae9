"""Make the tables of time: latency, throughput, distinguishable speeds, stages, training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lungseg.report.contents import Contents
from lungseg.report.markup import (
    EMPTY,
    Section,
    Table,
    format_amount,
    format_count,
    format_duration,
    format_share,
)
from lungseg.report.numbers.timing import (
    collect_ratios,
    collect_stages,
    collect_throughput,
    is_true,
    name_program,
    select_latencies,
    summarise_training,
)

FAR = 0.1  # a sum of stages that differs from the whole by a larger share of it is marked
_SETTING = ["Device", "Precision", "Layout", "Compiled"]


def make_timing_sections(contents: Contents) -> list[Section | None]:
    """Make all tables of time; None in place of one that the stored results have no numbers for."""
    return [
        _make_latency_section(contents),
        _make_throughput_section(
            "Throughput, images/s by batch size",
            "Images per second by the number of images in a batch, by the median time of a batch.",
            collect_throughput(contents),
        ),
        _make_throughput_section(
            "Throughput of the device alone, images/s by batch size",
            "As above, without prepare and finish, which resize images and maps and copy them.",
            collect_throughput(contents, "device_images_per_s"),
        ),
        _make_ratio_section(contents),
        _make_stage_section(contents),
        _make_training_section(contents),
    ]


def _make_latency_section(contents: Contents) -> Section | None:
    """Show the time, memory and energy of one image at batch size 1, on every device and in every setting."""
    frame = select_latencies(contents)
    if frame.empty:
        return None
    records = frame.to_dict("records")
    header, keys = _format_keys(records)
    words = set(range(len(header)))
    header += ["Median, ms", "IQR, ms", "90th percentile, ms"]
    header += ["Peak memory, MiB", "J/image", "GFLOP/image", "Of measured peak"]
    shown = ("median_ms", "iqr_ms", "p90_ms", "peak_memory_mib", "joules_per_image", "gflops")
    on_gpu = frame.loc[frame["device"] != "cpu", "host_memory_mib"].notna().any()
    header += ["Process on the GPU, MiB", "Host memory, MiB", "SM clock, MHz"] if on_gpu else []
    more = ("process_memory_mib", "host_memory_mib", "sm_clock_mhz") if on_gpu else ()
    rows = [
        [*key, *(format_amount(row[name]) for name in shown), format_share(row["peak_share"])]
        + [format_amount(row[name]) for name in more]
        for key, row in zip(keys, records, strict=True)
    ]
    sizes = {_format_size(row) for row in records}
    of_size = f" of {next(iter(sizes))} pixels" if len(sizes) == 1 and EMPTY not in sizes else ""
    repeats = {int(value) for value in frame["repeats"].dropna()}
    calls = f", {format_count(repeats.pop(), 'call')}" if len(repeats) == 1 else ""
    text = (
        f"One image{of_size} at a time, from memory to its map{calls}. Copies: whether those between host "
        "and device are in the time. Memory: of the approach's own process, on CUDA what was allocated on "
        "the device. GFLOP: 2 x multiply-add, as torch counts matrix products and convolutions; what trees "
        "do is in the time alone. Measured peak: a matrix product on the same device in the same precision "
        "(float32 on a GPU: TF32 where torch takes it for convolutions)."
    )
    return Section("Latency", Table(header, rows, text=words), text)


def _format_keys(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return titles and cells of what was timed, and how.

    The program, and the size of the image, are columns only if there are several.
    """
    header = ["Approach", *_SETTING, "Copies"]
    keys = [[row["approach"], *_format_setting(row), _format_yes(row["copies"])] for row in rows]
    for title, make_cell in (("Program", _format_program), ("Image", _format_size)):
        cells = [make_cell(row) for row in rows]
        if len(set(cells)) > 1:
            header.append(title)
            keys = [[*key, cell] for key, cell in zip(keys, cells, strict=True)]
    return header, keys


def _format_program(row: dict[str, Any]) -> str:
    return name_program(row["tuned"], row["deterministic"]) or "tuned, deterministic"


def _format_setting(row: dict[str, Any]) -> list[str]:
    """Format the cells below `_SETTING`."""
    compiled = _format_yes(row["compiled"])
    return [row["device"].upper(), row["precision"] or EMPTY, row["layout"] or EMPTY, compiled]


def _format_yes(value: Any) -> str:
    return EMPTY if pd.isna(value) else "yes" if is_true(value) else "no"


def _format_size(row: dict[str, Any]) -> str:
    return EMPTY if pd.isna(row["height"]) else f"{row['height']:.0f} x {row['width']:.0f}"


def _make_throughput_section(title: str, text: str, frame: pd.DataFrame) -> Section | None:
    """Show images/s by batch size, the highest of each row in bold."""
    if frame.empty:
        return None
    header, keys = _format_keys(frame.index.to_frame().to_dict("records"))
    words = len(header)
    rows, bold = [], set()
    for number, (key, values) in enumerate(zip(keys, frame.to_numpy(), strict=True)):
        rows.append([*key, *map(format_amount, values)])
        bold |= {(number, words + i) for i, value in enumerate(values) if value == np.nanmax(values)}
    table = Table([*header, *(f"{batch:.0f}" for batch in frame)], rows, bold, text=set(range(words)))
    return Section(title, table, text)


def _make_ratio_section(contents: Contents) -> Section | None:
    """Show how many times as fast one approach is as another, and the noise floor."""
    frame = collect_ratios(contents)
    if frame.empty:
        return None
    rows = [
        [
            row["approach"],
            "itself" if row["kind"] == "A/A" else row["other"],
            *_format_setting(row),
            f"{row['batch_size']:.0f}",
            _format_ratio(row),
            EMPTY if pd.isna(row["low"]) else f"{format_amount(row['low'])} to {format_amount(row['high'])}",
            EMPTY if pd.isna(row["rounds"]) else f"{row['rounds']:.0f}",
        ]
        for row in frame.to_dict("records")
    ]
    header = ["Approach", "Other", *_SETTING, "Batch", "Times as fast", "Range of rounds", "Rounds"]
    text = (
        "The time of other over that of approach, each ratio taken within a round; the median over rounds "
        "and the smallest and largest. An approach beside itself, in two processes, shows the noise floor: "
        "two approaches are distinguishable only if their ratio is farther from 1 than every round of either "
        "beside itself."
    )
    return Section("Which speeds are distinguishable", Table(header, rows, text=set(range(6))), text)


def _format_ratio(row: dict[str, Any]) -> str:
    if row["kind"] == "A/A":
        return format_amount(row["ratio"])
    if pd.isna(row["distinguishable"]):
        return f"{format_amount(row['ratio'])} (no noise floor)"
    return format_amount(row["ratio"]) if is_true(row["distinguishable"]) else "not distinguishable"


def _make_stage_section(contents: Contents) -> Section | None:
    """Show the median ms of each stage; None if nothing was timed at batch size 1."""
    frame = collect_stages(contents)
    if frame.empty or "whole" not in frame:
        return None
    rows = []
    for row in frame.to_dict("records"):
        times = [value for name, value in row.items() if name not in ("approach", "device", "ratio")]
        far = " *" if abs(row["ratio"] - 1) > FAR else ""
        ratio = EMPTY if pd.isna(row["ratio"]) else f"{row['ratio']:.2f}{far}"
        rows.append([row["approach"], row["device"].upper(), *map(format_amount, times), ratio])
    header = [*(name.capitalize() for name in frame if name != "ratio"), "Sum/whole"]
    marked = " * More than 10 % apart." if any(row[-1].endswith("*") for row in rows) else ""
    text = (
        "Median at batch size 1. Sum adds prepare to finish; whole is the same way timed in one go."
        f"{marked} Decode, reading the image from an 8-bit PNG file, is in neither."
    )
    return Section("Time by stage, ms per image", Table(header, rows, text={0, 1}), text)


def _make_training_section(contents: Contents) -> Section | None:
    """Show the time and memory of training; None if nothing was trained."""
    frame = summarise_training(contents)
    if frame.empty:
        return None
    waited = frame["wait_share"].notna().any()
    split = any(max(parts, default=1) > 1 for parts in frame["parts"])
    memory = ("process_memory_mib", "host_memory_mib") if frame["on_gpu"].any() else ()
    header = ["Approach", "Fits", "Time per fit", "Speed", "Parameters", "Best step", "Peak memory, MiB"]
    rows = [
        [
            row["approach"],
            str(row["fits"]),
            format_duration(row["seconds"]),
            f"{format_amount(row['items_per_s'])} {row['unit']}/s" if pd.notna(row["items_per_s"]) else EMPTY,
            f"{int(row['parameters']):,}" if row["parameters"] > 0 else EMPTY,
            ", ".join(str(step) for step in row["best_steps"]) or EMPTY,
            format_amount(row["peak_memory_mib"]),
            *(format_amount(row[name]) for name in memory),
            *([format_share(row["wait_share"])] if waited else []),
            *([", ".join(map(str, row["parts"])) or EMPTY] if split else []),
        ]
        for row in frame.to_dict("records")
    ]
    text = (
        "Means over fits; memory is the largest of them: on a CPU that of the whole process, in which the "
        "fits run one after the other, on CUDA what was allocated on the device."
    )
    header += ["Process on the GPU, MiB", "Host memory, MiB"] if memory else []
    if waited:
        header.append("Waiting")
        text += " Waiting: the share of the time in which data were not there yet, or a state was stored."
    if split:
        header.append("Parts of a batch")
        text += _explain_parts(frame)
    return Section("Training", Table(header, rows), text)


def _explain_parts(frame: pd.DataFrame) -> str:
    """Say why batches were split, and of which approaches not all fits were made alike."""
    text = (
        " Parts: a batch was split so that it fits into memory, and gradients were added up; batch norms "
        "that are not frozen saw one part at a time."
    )
    unequal = frame.loc[frame["parts"].map(len) > 1, "approach"].tolist()
    if unequal:
        text += (
            f" Fits of {', '.join(unequal)} had different parts, because different memory was free: the "
            "spread of their seeds has that in it."
        )
    return text
