"""Measures how time and memory of boosted trees on pixels grow with the rows.

`python -m benchmarks.studies.pixels.training_scale`

Compares LightGBM on codes (a byte a feature, in a mapped file) with LightGBM on float32 rows in memory, on
all pixels of as many images as the rows need. Each point is measured in a process of its own and stored. A
run that was interrupted goes on where it stopped; points of other code, libraries or another processor are
measured again. LUNGSEG_DATA and LUNGSEG_WEIGHTS are read; without data, it trains on phantoms.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.lines import Line2D

from benchmarks.studies.images import find_images
from benchmarks.studies.pixels.scale_points import (
    LEAVES,
    MODULE,
    PHANTOM_SIDE,
    SIZE,
    STEPS,
    TREES,
    hash_own_code,
)
from benchmarks.studies.study import make_parser, write_study
from lungseg.learning.weights import find_weights
from lungseg.report.figures.style import (
    PALETTE,
    SINGLE,
    add_legend_below,
    make_figure,
    save_figure,
    set_log_ticks,
    use_house_style,
)
from lungseg.system.errors import InputError
from lungseg.system.files import make_folder, read_json, write_json
from lungseg.system.machine import count_usable_cores, describe_cpu, list_versions

PHANTOMS = 704  # as many as the X-rays
ROWS = (100_000, 300_000, 1_000_000, 3_000_000, PHANTOMS * SIZE**2)
CODES, PLAIN = "codes", "float32 rows"
WAYS = {"codes": CODES, "plain": PLAIN}


def get_point(
    arguments: argparse.Namespace, how: str, images: int, key: dict[str, object]
) -> dict[str, float]:
    """Return a point from its file if that was measured with the same `key`; else measure it."""
    path = arguments.out / "points" / f"{how}-{images}.json"
    if path.exists():
        stored = read_json(path)
        if stored.get("key") == key:
            return stored["found"]
    found = measure_point(how, images, arguments.threads, arguments.scratch)
    write_json(path, {"key": key, "found": found})
    took = f"{found['seconds']:.0f} s, {found['resident MiB']:.0f} MiB"
    print(f"{WAYS[how]}, {images} images: {took}", flush=True)
    return found


def measure_point(how: str, images: int, threads: int, scratch: Path | None) -> dict[str, float]:
    """Measure a point in a new process.

    Raises:
        InputError: the process failed.
    """
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        words = [sys.executable, "-m", MODULE, how, *map(str, (images, PHANTOMS, threads)), folder]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True)
    if done.returncode == -signal.SIGKILL:
        raise InputError(
            f"the process that measured {WAYS[how]} of {images} images was killed, most likely for memory: "
            f"give it more, or ask for fewer rows with {'--plain-up-to' if how == 'plain' else '--rows'}"
        )
    if done.returncode:
        raise InputError(
            f"the process that measured {WAYS[how]} of {images} images failed with exit code "
            f"{done.returncode}: mend what it says above, then run the same command again"
        )
    return json.loads(done.stdout.splitlines()[-1])


def make_key(data: str, weights: str, threads: int) -> dict[str, object]:
    """Return all that a point depends on besides its way and its images."""
    settings = {"data": data, "weights": weights, "size": SIZE, "trees": TREES, "leaves": LEAVES}
    machine = {"threads": threads, "cpu": describe_cpu(), "versions": list_versions()}
    return {**settings, **machine, "code": hash_own_code()}


def measure_all(arguments: argparse.Namespace) -> tuple[pd.DataFrame, str, str]:
    """Return the table, and the names of the dataset and of the weights.

    Raises:
        InputError: something that was asked for can't be measured.
    """
    data, samples = find_images(PHANTOMS, PHANTOM_SIDE)
    if max(arguments.rows) > len(samples) * SIZE**2:
        raise InputError(f"--rows: {data} has {len(samples) * SIZE**2:,} pixels at {SIZE} x {SIZE}, no more")
    weights = "ImageNet" if find_weights("vgg19", "auto") else "random"
    if arguments.scratch:
        make_folder(arguments.scratch)
    key, rows = make_key(data, weights, arguments.threads), []
    for wanted in sorted(arguments.rows):
        images = max(1, round(wanted / SIZE**2))
        for how in ("codes", "plain") if wanted <= arguments.plain_up_to else ("codes",):
            found = get_point(arguments, how, images, key)
            row = {"trained on": WAYS[how], "images": images, "rows": images * SIZE**2}
            row |= {name: found[name] for name in (*(f"{step} s" for step in STEPS), "seconds")}
            row |= {"GiB": found["resident MiB"] / 1024, "anonymous GiB": found["anonymous MiB"] / 1024}
            rows.append({**row, "loss": found["loss"]})
    return pd.DataFrame(rows).sort_values(["trained on", "rows"], ignore_index=True), data, weights


def draw(table: pd.DataFrame, out: Path) -> None:
    """Draw seconds and memory against rows, as `curve` in the folder."""
    with use_house_style():
        figure = make_figure(SINGLE, 4)
        panels = figure.subplots(2, 1, sharex=True)
        for axes, column, label in zip(
            panels, ("seconds", "GiB"), ("seconds", "peak memory, GiB"), strict=True
        ):
            for colour, (_, rows) in zip(PALETTE, table.groupby("trained on", sort=False), strict=False):
                axes.plot(rows["rows"] / 1e6, rows[column], color=colour, marker="o", markersize=3)
            axes.set(xscale="log", yscale="log", ylabel=label)
            set_log_ticks(axes.yaxis, table[column].min() / 1.5, table[column].max() * 1.5)
            axes.grid(axis="y")
        panels[1].set_xlabel("rows, millions")
        set_log_ticks(panels[1].xaxis, table["rows"].min() / 1.5e6, table["rows"].max() * 1.5 / 1e6)
        names = list(dict.fromkeys(table["trained on"]))
        handles = [
            Line2D([], [], color=PALETTE[i], marker="o", markersize=3, label=name)
            for i, name in enumerate(names)
        ]
        add_legend_below(figure, handles)
        save_figure(figure, out, "curve")


def write_notes(table: pd.DataFrame, arguments: argparse.Namespace, data: str, weights: str) -> list[str]:
    codes = table[table["trained on"] == CODES]
    largest = codes.loc[codes["rows"].idxmax()]
    return [
        f"{largest['rows']:,} rows on codes, all pixels of {largest['images']} images at {SIZE} x {SIZE}, "
        f"take {largest['GiB']:.2f} GiB.",
        f"{TREES} trees of {LEAVES} leaves, {arguments.threads} threads, 64 features of relu1_2 ({weights} "
        f"weights), all pixels of images of {data}, evenly spaced in its order, at {SIZE} x {SIZE}.",
        "GiB is the peak of resident memory of the point's process, as the kernel counts it. It includes "
        "pages of the mapped file, which the kernel may drop at any time; anonymous GiB is without these, "
        "and has to fit into memory. The Python libraries take a share of both.",
        "Features: reading, resizing and the network. Encoding: edges from a sample (with its features), "
        "then codes, then the file. Dataset: LightGBM's own form of the rows. Loss: mean squared error on "
        "the first four training images.",
        f"On float32 rows LightGBM bins by itself; measured up to {arguments.plain_up_to:,} rows.",
    ]


def parse(words: Sequence[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = make_parser(__doc__, "results/training-scale")
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS))
    parser.add_argument("--plain-up-to", type=int, default=3_000_000, help="rows, of LightGBM on float32")
    parser.add_argument("--threads", type=int, default=count_usable_cores())
    parser.add_argument("--scratch", type=Path, help="folder for the table of codes, 64 bytes a row")
    arguments = parser.parse_args(words)
    if min(*arguments.rows, arguments.threads) < 1:
        parser.error("--rows and --threads are at least 1")
    return parser, arguments


def main(words: Sequence[str] | None = None) -> None:
    parser, arguments = parse(words)
    try:
        table, data, weights = measure_all(arguments)
        notes = write_notes(table, arguments, data, weights)
        print(write_study(arguments.out, "Training on more and more pixels", table, notes))
        draw(table, arguments.out)
    except InputError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
