"""Measures how time and memory of a benchmark's steps grow with the number of images.

`python -m benchmarks.studies.data.benchmark_scale`

Phantoms of 256 pixels and their masks lie in PNG files, made once, which isn't counted. A benchmark of two
quick approaches runs on 500 to 20,000 of them, each number in a process of its own with an empty cache, and
its steps are timed. A run that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmarks.studies.data.benchmark_points import MODULE, STEPS, hash_own_code
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
FEWEST = 40  # of which every side of the split has some


def measure_all(arguments: argparse.Namespace) -> pd.DataFrame:
    """Return the table, one row a count."""
    key = {"code": hash_own_code(), "cpu": describe_cpu(), "versions": list_versions(), "side": SIDE}
    rows = []
    for count in sorted(arguments.counts):
        make_phantom_files(count, arguments.pictures, masks=True)
        path = arguments.out / "points" / f"{count}.json"
        found = get_point(path, key, MODULE, str(count), str(arguments.pictures))
        print(f"{count} images: {found['all']:.0f} s, {found['peak MiB']:.0f} MiB", flush=True)
        rows.append({"images": count} | found)
    return pd.DataFrame(rows)


def list_exponents(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table and a row below it: each column's exponent between the two largest counts."""
    last = table.tail(2)
    found = {name: measure_exponent(last["images"], last[name]) for name in table.columns.drop("images")}
    named = table.astype({"images": object})
    return pd.concat([named, pd.DataFrame([{"images": "exponent"} | found])], ignore_index=True)


def draw(table: pd.DataFrame, out: Path) -> None:
    """Draw seconds of each step against the number of images, as `curve` in the folder."""
    with use_house_style():
        figure = make_figure(SINGLE * 1.3, 3)
        axes = figure.subplots()
        lines = []
        for colour, step in zip(PALETTE, STEPS, strict=True):
            lines += axes.plot(
                table["images"], table[step], color=colour, marker="o", markersize=3, label=step
            )
        linear = table["all"].iloc[0] * table["images"] / table["images"].iloc[0]
        lines += axes.plot(table["images"], linear, color=DARK, linestyle=":", label="in proportion")
        axes.set(xscale="log", yscale="log", xlabel="images", ylabel="seconds")
        set_log_ticks(axes.xaxis, table["images"].min() / 1.3, table["images"].max() * 1.3)
        drawn = table[list(STEPS)].to_numpy()
        set_log_ticks(axes.yaxis, max(drawn.min(), 1e-2) / 1.5, max(drawn.max(), linear.max()) * 1.5)
        axes.grid(axis="y")
        add_legend_below(figure, lines)
        save_figure(figure, out, "curve")


def write_notes(table: pd.DataFrame) -> list[str]:
    """Return the notes below the table."""
    last = table.iloc[-1]
    return [
        f"{last['images']:,.0f} images in {last['all'] / 60:.1f} min, with a peak of "
        f"{last['peak MiB'] / 1024:.2f} GiB of memory. The same command once more, with all stored, takes "
        f"{last['again, all']:.0f} s.",
        "Seconds of each step; the last row is the exponent of growth between the two largest counts: 1 is "
        "in proportion, 2 all with all.",
        f"The images are phantoms of {SIDE} px and their masks, as 8-bit PNG in two folders. Approaches: the "
        "mean of the training masks, and VGG19's features with ridge, 64 pixels an image; 70 % are for "
        "training, 10 % for validation, 20 % for test.",
        "read data: all files are hashed and read once. fit: both approaches. predict and score: both, on "
        "the test images. store pictures: test images and their masks for the report. all: the whole command "
        "without the start of Python, so what no step counts, too.",
        "Each count in a process of its own with an empty cache. Peak MiB: resident memory of the process "
        "with its libraries.",
    ]


def main(words: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__, "results/benchmark-scale")
    parser.add_argument("--counts", type=int, nargs="+", default=list(COUNTS), help="of images, two at least")
    parser.add_argument("--pictures", type=Path, default=FOLDER, help="folder of the phantoms' files")
    arguments = parser.parse_args(words)
    if min(arguments.counts) < FEWEST or len(set(arguments.counts)) < 2:
        parser.error(f"--counts are two different numbers of {FEWEST} or more")
    try:
        table = measure_all(arguments)
        title = "A benchmark: time and memory against the number of images"
        print(write_study(arguments.out, title, list_exponents(table), write_notes(table)))
        draw(table, arguments.out)
    except InputError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
