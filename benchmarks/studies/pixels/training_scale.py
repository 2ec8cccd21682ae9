"""How time and memory of boosted trees on pixels grow with the rows.

`python -m benchmarks.studies.pixels.training_scale`

LightGBM on codes (a byte a feature, in a mapped file) against LightGBM on float32 rows in memory, on all
pixels of as many images as the rows need. Each point is measured in a process of its own and stored; a run
that was cut goes on where it stopped, and measures again what other code, libraries or another processor
measured. LUNGSEG_DATA and LUNGSEG_WEIGHTS are read; without data, on phantoms.
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

from benchmarks.studies.images import all_images
from benchmarks.studies.pixels.scale_points import (
    LEAVES,
    MODULE,
    PHANTOM_SIDE,
    SIZE,
    STEPS,
    TREES,
    code_of_points,
)
from benchmarks.studies.study import write_study
from lungseg.learning.weights import find_weights
from lungseg.report.figures.style import (
    PALETTE,
    SINGLE,
    house_style,
    legend_below,
    log_ticks,
    new_figure,
    save,
)
from lungseg.system.errors import InputError
from lungseg.system.files import make_folder, read_json, write_json
from lungseg.system.machine import cpu_name, usable_cores, versions

PHANTOMS = 704  # as many as the X-rays
ROWS = (100_000, 300_000, 1_000_000, 3_000_000, PHANTOMS * SIZE**2)
AIM_GIB = 8
CODES, PLAIN = "codes", "float32 rows"
WAYS = {"codes": CODES, "plain": PLAIN}


def point(arguments: argparse.Namespace, how: str, images: int, key: dict[str, object]) -> dict[str, float]:
    """One point, from its file if `key` is what it was measured with, or else measured now."""
    path = arguments.out / "points" / f"{how}-{images}.json"
    if path.exists():
        stored = read_json(path)
        if stored.get("key") == key:
            return stored["found"]
    found = measured(how, images, arguments.threads, arguments.scratch)
    write_json(path, {"key": key, "found": found})
    took = f"{found['seconds']:.0f} s, {found['resident MiB']:.0f} MiB"
    print(f"{WAYS[how]}, {images} images: {took}", flush=True)
    return found


def measured(how: str, images: int, threads: int, scratch: Path | None) -> dict[str, float]:
    """One point, from a new process. Raises InputError if that didn't end well."""
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


def what_counts(data: str, weights: str, threads: int) -> dict[str, object]:
    """All that a point depends on besides its way and its images; a stored one with another is old."""
    settings = {"data": data, "weights": weights, "size": SIZE, "trees": TREES, "leaves": LEAVES}
    machine = {"threads": threads, "cpu": cpu_name(), "versions": versions()}
    return {**settings, **machine, "code": code_of_points()}


def measure_all(arguments: argparse.Namespace) -> tuple[pd.DataFrame, str, str]:
    """The table, the dataset's name and the weights'. Raises InputError for what can't be measured."""
    data, samples = all_images(PHANTOMS, PHANTOM_SIDE)
    if max(arguments.rows) > len(samples) * SIZE**2:
        raise InputError(f"--rows: {data} has {len(samples) * SIZE**2:,} pixels at {SIZE} x {SIZE}, no more")
    weights = "ImageNet" if find_weights("vgg19", "auto") else "random"
    if arguments.scratch:
        make_folder(arguments.scratch)
    key, rows = what_counts(data, weights, arguments.threads), []
    for wanted in sorted(arguments.rows):
        images = max(1, round(wanted / SIZE**2))
        for how in ("codes", "plain") if wanted <= arguments.plain_up_to else ("codes",):
            found = point(arguments, how, images, key)
            row = {"trained on": WAYS[how], "images": images, "rows": images * SIZE**2}
            row |= {name: found[name] for name in (*(f"{step} s" for step in STEPS), "seconds")}
            row |= {"GiB": found["resident MiB"] / 1024, "anonymous GiB": found["anonymous MiB"] / 1024}
            rows.append({**row, "loss": found["loss"]})
    return pd.DataFrame(rows).sort_values(["trained on", "rows"], ignore_index=True), data, weights


def draw(table: pd.DataFrame, out: Path) -> None:
    with house_style():
        figure = new_figure(SINGLE, 4)
        panels = figure.subplots(2, 1, sharex=True)
        for axes, column, label in zip(
            panels, ("seconds", "GiB"), ("seconds", "peak memory, GiB"), strict=True
        ):
            for colour, (_, rows) in zip(PALETTE, table.groupby("trained on", sort=False), strict=False):
                axes.plot(rows["rows"] / 1e6, rows[column], color=colour, marker="o", markersize=3)
            axes.set(xscale="log", yscale="log", ylabel=label)
            values = [*table[column], *([AIM_GIB] if column == "GiB" else [])]
            log_ticks(axes.yaxis, min(values) / 1.5, max(values) * 1.5)
            axes.grid(axis="y")
        panels[1].axhline(AIM_GIB, color="#777777", linestyle=":")
        panels[1].set_xlabel("rows, millions")
        log_ticks(panels[1].xaxis, table["rows"].min() / 1.5e6, table["rows"].max() * 1.5 / 1e6)
        names = list(dict.fromkeys(table["trained on"]))
        handles = [
            Line2D([], [], color=PALETTE[i], marker="o", markersize=3, label=name)
            for i, name in enumerate(names)
        ]
        handles.append(Line2D([], [], color="#777777", linestyle=":", label=f"aim: {AIM_GIB} GiB"))
        legend_below(figure, handles)
        save(figure, out, "curve")


def notes(table: pd.DataFrame, arguments: argparse.Namespace, data: str, weights: str) -> list[str]:
    codes = table[table["trained on"] == CODES]
    largest = codes.loc[codes["rows"].idxmax()]
    kept = "kept" if largest["GiB"] < AIM_GIB else "missed"
    return [
        f"Aim: all pixels of 704 images at {SIZE} x {SIZE} (11.5 million rows) in under {AIM_GIB} GiB: "
        f"{largest['rows']:,} rows on codes take {largest['GiB']:.2f} GiB, "
        f"{kept if largest['rows'] >= ROWS[-1] else 'too few rows to say'}.",
        f"{TREES} trees of {LEAVES} leaves, {arguments.threads} threads, 64 features of relu1_2 ({weights} "
        f"weights), all pixels of images of {data}, evenly spaced in its order, at {SIZE} x {SIZE}.",
        "GiB is the peak of resident memory that the kernel counted in a process of its own, pages of the "
        "mapped file included, which it may drop at any time; anonymous GiB is without these, and what must "
        "fit. The Python libraries take a share of both.",
        "Features: reading, resizing and the network. Encoding: edges from a sample (with its features), "
        "then codes, then the file. Dataset: LightGBM's own form of the rows. Loss: mean squared error on "
        "the first four images, which were learnt from.",
        f"On float32 rows LightGBM bins by itself; measured up to {arguments.plain_up_to:,} rows.",
    ]


def parse(words: Sequence[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/training-scale"))
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS))
    parser.add_argument("--plain-up-to", type=int, default=3_000_000, help="rows, of LightGBM on float32")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--scratch", type=Path, help="folder for the table of codes, 64 bytes a row")
    arguments = parser.parse_args(words)
    if min(*arguments.rows, arguments.threads) < 1:
        parser.error("--rows and --threads are at least 1")
    return parser, arguments


def main(words: Sequence[str] | None = None) -> None:
    parser, arguments = parse(words)
    try:
        table, data, weights = measure_all(arguments)
        said = notes(table, arguments, data, weights)
        print(write_study(arguments.out, "Training on more and more pixels", table, said))
        draw(table, arguments.out)
    except InputError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
