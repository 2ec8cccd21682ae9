"""Measures how time and memory of the leak audit grow with the number of pictures.

`python -m benchmarks.studies.data.audit_scale`

Phantoms of 256 pixels lie in PNG files, and 100 changed copies are planted among them. They are made once,
which isn't counted. Each count is measured in a process of its own with an empty cache, and stored. A run
that was interrupted goes on where it stopped; points of other code, libraries or another processor are
measured again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmarks.studies.data.audit_points import COPIED, MODULE, hash_own_code
from benchmarks.studies.data.phantom_files import FOLDER, SIDE, make_phantom_files
from benchmarks.studies.points import get_point, measure_exponent
from benchmarks.studies.study import make_parser, write_study
from lungseg.report.figures.style import (
    DARK,
    PALETTE,
    SINGLE,
    add_legend_below,
    make_figure,
    save_figure,
    set_log_ticks,
    use_house_style,
)
from lungseg.system.errors import InputError
from lungseg.system.machine import describe_cpu, list_versions

COUNTS = (500, 1_000, 2_000, 5_000, 10_000, 20_000)
XRAY_ALIGNMENTS = 606  # counted once, with `audit_points.count_alignments`
LINES = {"seconds": "first audit", "one added, seconds": "one added", "again, seconds": "from the cache"}


def measure_all(arguments: argparse.Namespace) -> pd.DataFrame:
    """Return the table, one row a count."""
    key = {"code": hash_own_code(), "cpu": describe_cpu(), "versions": list_versions(), "side": SIDE}
    rows = []
    for count in sorted(arguments.counts):
        make_phantom_files(count + 1, arguments.pictures)
        path = arguments.out / "points" / f"{count}.json"
        found = get_point(path, key, MODULE, str(count), str(arguments.pictures))
        print(f"{count} pictures: {found['seconds']:.0f} s, {found['peak MiB']:.0f} MiB", flush=True)
        rows.append({"phantoms": count} | found)
    return pd.DataFrame(rows)


def draw(table: pd.DataFrame, out: Path) -> None:
    """Draw seconds against pictures, as `curve` in the folder."""
    with use_house_style():
        figure = make_figure(SINGLE, 3)
        axes = figure.subplots()
        lines = []
        for colour, (column, label) in zip(PALETTE, LINES.items(), strict=False):
            lines += axes.plot(
                table["read"], table[column], color=colour, marker="o", markersize=3, label=label
            )
        first = table.iloc[0]
        linear = first["seconds"] * table["read"] / first["read"]
        lines += axes.plot(table["read"], linear, color=DARK, linestyle=":", label="in proportion")
        axes.set(xscale="log", yscale="log", xlabel="pictures", ylabel="seconds")
        set_log_ticks(axes.xaxis, table["read"].min() / 1.3, table["read"].max() * 1.3)
        drawn = table[list(LINES)].to_numpy()
        set_log_ticks(axes.yaxis, drawn.min() / 1.5, drawn.max() * 1.5)
        axes.grid(axis="y")
        add_legend_below(figure, lines)
        save_figure(figure, out, "curve")


def _measure_slope(table: pd.DataFrame) -> float:
    """The exponent by which seconds grow with the pictures that were read."""
    return measure_exponent(table["read"], table["seconds"])


def write_notes(table: pd.DataFrame) -> list[str]:
    last = table.iloc[-1]
    notes = [
        f"{last['read']:,} pictures in {last['seconds']:.0f} s, reading included, with a peak of "
        f"{last['peak MiB'] / 1024:.2f} GiB of memory.",
        f"Copies of the five promised kinds found at every count: at least {table['copies found'].min()} of "
        f"{table['copies'].max()}, the same copies each time. False alarms: {table['false alarms'].sum()}.",
        f"The background are phantoms of {SIDE} px as 8-bit PNG, no X-rays. The copies are of the first "
        f"{COPIED}, the same at every count. Aligning them takes most of the time of the smallest counts, so "
        "the exponent over all counts is below 1.",
        f"Real X-rays are more alike: {XRAY_ALIGNMENTS} alignments among the 704 of cxr704, and "
        "their number grows with the pairs, so 20,000 X-rays take far longer than 20,000 phantoms. "
        "That is not measured here.",
        "Each count in a process of its own with an empty cache. Read: pictures that were read, copies "
        "included. Aligned: alignments of a window with a whole picture, upright or mirrored. Peak MiB: "
        "resident memory of the process with its libraries.",
        "Again: the same audit once more. One added: once more with one picture more; "
        f"it read {table['one added, read'].min()} to {table['one added, read'].max()} pictures. Both in "
        "the same process, from the cache; the files of all pictures are hashed, no picture is read again.",
    ]
    if len(table) > 1:
        notes.insert(
            1,
            f"Seconds grow with the pictures to the power of {_measure_slope(table):.2f} (least "
            f"squares on log axes), and {_measure_slope(table.tail(2)):.2f} between the two largest "
            "counts. In proportion it would be 1, all with all 2.",
        )
    if not (table["same again"] & table["same pairs with one added"]).all():
        notes.insert(
            0, "The audits from the cache found something else than the first one: that is a defect."
        )
    return notes


def main(words: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__, "results/audit-scale")
    parser.add_argument("--counts", type=int, nargs="+", default=list(COUNTS), help="of phantoms")
    parser.add_argument("--pictures", type=Path, default=FOLDER, help="folder of the phantoms' files")
    arguments = parser.parse_args(words)
    if min(arguments.counts) < 20:
        parser.error("--counts are at least 20, of which copies are made")
    try:
        table = measure_all(arguments)
        shown = table.drop(columns=["same again", "same pairs with one added"])
        title = "Leak audit: time and memory against the number of pictures"
        print(write_study(arguments.out, title, shown, write_notes(table)))
        draw(table, arguments.out)
    except InputError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
