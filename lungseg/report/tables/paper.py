"""Make the tables for a paper, in LaTeX: a small one, and the full one in blocks below one another."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

import pandas as pd

from lungseg.report.contents import Contents
from lungseg.report.markup import (
    EMPTY,
    Table,
    escape_tex,
    format_amount,
    format_count,
    format_interval,
    format_score,
)
from lungseg.report.numbers.quality import find_distance_unit
from lungseg.report.numbers.timing import is_true
from lungseg.report.sentences.cautions import list_cautions
from lungseg.report.sentences.images import find_unit
from lungseg.report.sentences.leaks import warn_of_lookalikes
from lungseg.report.tables.main import TIMES, describe_columns, find_columns, label_devices
from lungseg.system.errors import InputError
from lungseg.system.plugins import suggest

MOST_COLUMNS = 7  # more aren't readable in the width of a page
MOST_LINES = 40  # of all blocks of one float; with its caption and notes it fills a page
NAME_LETTERS = 20  # of a name in a line of its column, about
DEFAULT = ("dice", "iou", "hd95", "assd", "training_seconds", "ms_per_image")
# Of several devices; the intersection over union says the same as Dice.
WITH_DEVICE = ("dice", "hd95", "assd", "training_seconds", "device", "ms_per_image")
BLOCKS = [
    ("dice", "group", "dice_seed_sd", "iou", "accuracy", "pooled_f1"),
    ("hd95", "assd", "hausdorff", "surface_dice_1", "surface_dice_2"),
    ("precision", "recall", "specificity", "dice_left", "dice_right", "brier"),
    ("weights", "training_seconds", "device", "ms_per_image", "ms_iqr", "peak_memory_mib"),
]
_TWO_COLUMNS = "% in a document with two columns, write table* in place of table"


def _show_text(value: Any) -> str:
    return EMPTY if pd.isna(value) or value == "" else str(value)


def _show_share(value: float) -> str:
    return format_score(value).removeprefix("0")


def _show_count(value: float) -> str:
    return EMPTY if pd.isna(value) else f"{value:,.0f}"


def _show_yes(value: Any) -> str:
    return EMPTY if pd.isna(value) or value == "" else "yes" if is_true(value) else "no"


def _show_minutes(seconds: float) -> str:
    return format_amount(seconds / 60)


def _show_percent(share: float) -> str:
    return format_amount(100 * share)


# The title of each column in two lines, and the format of its cells.
_COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "approach": ("Approach", _show_text),
    "dataset": ("Dataset", _show_text),
    "weights": ("Weights", _show_text),
    "n": ("n", _show_count),
    "dice": ("Dice", _show_share),
    "dice_low": ("Dice\nlower end", _show_share),
    "dice_high": ("Dice\nupper end", _show_share),
    "group": ("Group", _show_text),
    "dice_median": ("Dice\nmedian", _show_share),
    "dice_sd": ("Dice\nSD", _show_share),
    "dice_p5": ("Dice\n5th perc.", _show_share),
    "dice_p95": ("Dice\n95th perc.", _show_share),
    "seeds": ("Seeds", _show_count),
    "dice_seed_sd": ("Seed\nSD", _show_share),
    "pooled_f1": ("Pooled\nF1", _show_share),
    "iou": ("IoU", _show_share),
    "accuracy": ("Pixel\naccuracy", _show_share),
    "precision": ("Precision", _show_share),
    "recall": ("Recall", _show_share),
    "specificity": ("Specificity", _show_share),
    "distance_unit": ("Unit of\ndistances", _show_text),
    "hd95": ("HD95\n({unit})", format_amount),
    "assd": ("ASSD\n({unit})", format_amount),
    "hausdorff": ("Hausdorff\n({unit})", format_amount),
    "surface_dice_1": ("Surface\nDice 1 %", _show_share),
    "surface_dice_2": ("Surface\nDice 2 %", _show_share),
    "hd95_low": ("HD95\nlow ({unit})", format_amount),
    "hd95_high": ("HD95\nhigh ({unit})", format_amount),
    "assd_low": ("ASSD\nlow ({unit})", format_amount),
    "assd_high": ("ASSD\nhigh ({unit})", format_amount),
    "dice_left": ("Dice\nleft", _show_share),
    "dice_right": ("Dice\nright", _show_share),
    "area_error": ("Area\nerror", _show_share),
    "brier": ("Brier\nscore", _show_share),
    "calibration_error": ("Calibr.\nerror", _show_share),
    "training_seconds": ("Training\n(min)", _show_minutes),
    "device": ("Device", _show_text),
    "compute_precision": ("Number\nformat", _show_text),
    "layout": ("Layout", _show_text),
    "compiled": ("Compiled", _show_yes),
    "copies": ("Copies", _show_yes),
    "ms_per_image": ("ms/image", format_amount),
    "ms_iqr": ("IQR\n(ms)", format_amount),
    "ms_p90": ("90th perc.\n(ms)", format_amount),
    "best_images_per_s": ("Fastest\n(images/s)", format_amount),
    "best_batch_size": ("Fastest\nbatch", _show_count),
    "peak_memory_mib": ("Memory\n(MiB)", format_amount),
    "joules_per_image": ("Energy\n(J/image)", format_amount),
    "gflops": ("Work\n(GFLOP)", format_amount),
    "peak_share": ("Of peak\n(%)", _show_percent),
    "leaks": ("Leaks", _show_count),
}
_WORDS = {name for name, (_, show) in _COLUMNS.items() if show in (_show_text, _show_yes)}


def make_paper_table(contents: Contents, frame: pd.DataFrame, columns: Sequence[str] | None = None) -> str:
    """Make summary.tex: a float with one table of at most seven columns, its notes below it.

    Args:
        frame: of `collect_main_rows`.
        columns: names of summary.csv; None for Dice, IoU, distances and times, as far as there are any.

    Raises:
        InputError: an unknown column, too many of them, or times of several devices without the device.
    """
    if columns is None:
        chosen = find_columns(frame, WITH_DEVICE if _has_several_devices(frame) else DEFAULT)
    else:
        chosen = _choose_columns(frame, columns)
    intervals = _find_intervals(frame, ["dice"])
    table = _make_block(frame, chosen, find_distance_unit(contents), intervals)
    means = f"{'mean Dice' if 'dice' in chosen else 'means'} over {find_unit(contents)}s"
    means += " with its 95 % interval" if {*chosen} & {*intervals} else ""
    caption = f"{_describe_images(contents)}: {means}."
    label = _make_label(contents)
    lines = _make_float("table", caption, label, [table], _write_notes(contents, frame, chosen))
    return "\n".join([_name_packages("summary"), _TWO_COLUMNS, *lines, ""])


def make_full_paper_table(contents: Contents, frame: pd.DataFrame) -> str:
    """Make summary-full.tex: blocks of at most seven columns in a float as wide as the page.

    `frame` is of `collect_main_rows`. Blocks that don't fit on one page go into further floats.
    """
    unit, intervals = find_distance_unit(contents), _find_intervals(frame, ["dice", "hd95", "assd"])
    found = [block for block in (find_columns(frame, names) for names in BLOCKS) if block]
    pages = _divide([(block, _make_block(frame, block, unit, intervals)) for block in found])
    parts = []
    for number, page in enumerate(pages, 1):
        part = f" (part {number} of {len(pages)})" if len(pages) > 1 else ""
        caption = f"{_describe_images(contents)}: means over {find_unit(contents)}s and times{part}."
        label = _make_label(contents) + "-full" + (f"-{number}" if number > 1 else "")
        notes = _write_notes(contents, frame, [name for block, _ in page for name in block])
        parts += _make_float("table*", caption, label, [table for _, table in page], notes)
    return "\n".join([_name_packages("summary-full"), *parts, ""])


def _choose_columns(frame: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """Check the names of columns; return them without the approach, which is always first."""
    for name in columns:
        if name not in _COLUMNS:
            advice = suggest(name, _COLUMNS, ": choose")
            raise InputError(f"unknown column {name!r}{advice} from {', '.join(_COLUMNS)}")
    chosen = [name for name in dict.fromkeys(columns) if name != "approach"]
    if len(chosen) >= MOST_COLUMNS:
        raise InputError(
            f"{len(chosen) + 1} columns with the approach don't fit into a page's width: choose at most "
            f"{MOST_COLUMNS - 1} beside it"
        )
    if TIMES & {*chosen} and "device" not in chosen and _has_several_devices(frame):
        raise InputError("several devices were timed, so a column of times needs its device: add device")
    return chosen


def _has_several_devices(frame: pd.DataFrame) -> bool:
    return len(set(label_devices(frame).dropna())) > 1


def _find_intervals(frame: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Return the columns that have intervals: there are none with a single patient."""
    return [name for name in names if frame[f"{name}_low"].notna().any()]


def _make_block(frame: pd.DataFrame, columns: Sequence[str], unit: str, intervals: Collection[str]) -> Table:
    """Make a table of the approach and `columns`; those in `intervals` have theirs beside the mean.

    Where no column is of a time there is a row per approach, else one per device, with means in the first.
    """
    timed = bool(TIMES & {*columns})
    rows = frame.assign(device=label_devices(frame))
    rows = rows if timed else rows.drop_duplicates("approach")
    names = ["approach", *columns]
    header = [_write_title(name, unit, name in intervals) for name in names]
    cells, bold, seen = [], set(), set()
    for row in rows.to_dict("records"):
        first = row["approach"] not in seen
        seen.add(row["approach"])
        cells.append([_show(row, name, intervals) if first or name in TIMES else "" for name in names])
        if first and "dice" in columns and row["dice"] == frame["dice"].max():
            bold.add((len(cells) - 1, names.index("dice")))
    return Table(header, cells, bold, text={i for i, name in enumerate(names) if name in _WORDS})


def _write_title(name: str, unit: str, has_interval: bool) -> str:
    title = _COLUMNS[name][0].replace("({unit})", f"({unit})" if unit else "").strip()
    return title.replace("\n", " ") + "\n[95 % interval]" if has_interval else title


def _show(row: dict[str, Any], name: str, intervals: Collection[str]) -> str:
    show = _COLUMNS[name][1]
    if name in intervals:
        return format_interval(show, row[name], row[f"{name}_low"], row[f"{name}_high"])
    return show(row[name])


def _divide(blocks: Sequence[tuple[list[str], Table]]) -> list[list[tuple[list[str], Table]]]:
    """Divide blocks into those that go into one float, by the lines that they need with wrapped names."""
    pages, left = [], 0
    for columns, table in blocks:
        lines = 3 + sum(max(1, -(-len(row[0]) // NAME_LETTERS)) for row in table.rows)
        if lines > left:
            pages.append([])
            left = MOST_LINES
        pages[-1].append((columns, table))
        left -= lines
    return pages


def _make_float(kind: str, caption: str, label: str, tables: Sequence[Table], notes: str) -> list[str]:
    """Write a float of tables below one another, with a caption above and notes below, as lines."""
    blocks = "\n\\par\\medskip\n".join(table.to_tex().rstrip("\n") for table in tables)
    return [
        rf"\begin{{{kind}}}",
        r"\centering",
        r"\setlength{\belowcaptionskip}{4pt}",
        rf"\caption{{{escape_tex(caption)}}}",
        rf"\label{{{label}}}",
        r"\footnotesize",
        r"\setlength{\tabcolsep}{3pt}",
        blocks,
        r"\par\smallskip\raggedright",
        escape_tex(notes),
        rf"\end{{{kind}}}",
    ]


def _name_packages(file: str) -> str:
    return rf"% \usepackage{{booktabs,tabularx}} in the preamble, then \input{{{file}}} where it belongs"


def _make_label(contents: Contents) -> str:
    return "tab:" + re.sub(r"[^A-Za-z0-9-]+", "-", contents.run["name"])


def _describe_images(contents: Contents) -> str:
    run, count = contents.run, contents.scores["image_id"].nunique()
    trained = f", trained on {run['training_data']['dataset']}" if run["training_data"] else ""
    images = format_count(count, f"{run['evaluate_on']} image")
    return f"Lung segmentation on {images} of {run['data']['dataset']}{trained}"


def _write_notes(contents: Contents, frame: pd.DataFrame, columns: Collection[str]) -> str:
    """Say what columns mean, and what a reader must be careful about; names of images are in summary.md."""
    lookalikes = warn_of_lookalikes(contents)
    short = lookalikes.partition(" Please check")[0]
    cautions = [short if line == lookalikes else line for line in list_cautions(contents)]
    return " ".join([describe_columns(frame, columns), *cautions])
