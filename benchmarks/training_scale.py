"""How time and memory of boosted trees on pixels grow with the rows: `python benchmarks/training_scale.py`.

LightGBM on codes (a byte a feature, in a mapped file) against LightGBM on float32 rows in memory, on all
pixels of as many images as the rows need. Each point is measured in a process of its own and stored; a run
that was cut goes on where it stopped. LUNGSEG_DATA and LUNGSEG_WEIGHTS are read; without data, on phantoms.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import lightgbm
import numpy as np
import pandas as pd
import torch
from matplotlib.lines import Line2D

from lungseg.approaches.approach import Runtime
from lungseg.approaches.vgg19_pixels.boosting import BoostingSettings
from lungseg.approaches.vgg19_pixels.code_table import (
    CodeWriter,
    open_codes,
    pixel_part,
    pixel_parts,
    sample_bins,
)
from lungseg.approaches.vgg19_pixels.code_training import CodedRows, boosting_parameters, train_on_codes
from lungseg.approaches.vgg19_pixels.features import CHANNELS, PixelFeatures
from lungseg.approaches.vgg19_pixels.sampling import PixelTable, build_table
from lungseg.approaches.weights import find_weights
from lungseg.data import Sample, load_dataset
from lungseg.environment import PeakMemory, usable_cores, use_threads
from lungseg.report.style import PALETTE, SINGLE, house_style, legend_below, log_ticks, new_figure, save
from lungseg.storage import read_json, write_json
from lungseg.study import write_study

SIZE, TREES, LEAVES = 128, 100, 63
ROWS = (100_000, 300_000, 1_000_000, 3_000_000, 704 * SIZE**2)
AIM_GIB = 8
CODES, PLAIN = "codes", "float32 rows"
STEPS = ("features", "encoding", "dataset", "training")


class PeakAnonymous:
    """Peak of what this process allocated itself, looked at every 20 ms; mapped files are not part of it.

    The kernel keeps a peak of all resident memory only (`PeakMemory`).
    """

    def __enter__(self) -> "PeakAnonymous":
        self.mib, self._done = 0.0, threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
            self.mib = max(self.mib, int(found[1]) / 1024)

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watcher.join()


class Clock:
    """Seconds by step."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STEPS, 0.0)

    @contextmanager
    def step(self, name: str):
        start = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - start

    @contextmanager
    def boosting(self):
        """Gives a callback for `lightgbm.train` that tells making the dataset from growing trees."""
        start = time.perf_counter()
        first = []

        def callback(_: lightgbm.callback.CallbackEnv) -> None:
            if not first:
                first.append(time.perf_counter())

        callback.before_iteration = True
        yield callback
        self.seconds["dataset"] += first[0] - start
        self.seconds["training"] += time.perf_counter() - first[0]


def all_samples() -> tuple[str, list[Sample]]:
    root = os.environ.get("LUNGSEG_DATA")
    name = "cxr704" if root else "phantom"
    options = {} if root else {"count": 704, "size": 256}
    return name, load_dataset(name, options, Path(root) if root else None).samples()


def evenly(samples: list[Sample], count: int) -> list[Sample]:
    return [samples[place] for place in np.linspace(0, len(samples) - 1, count).astype(int)]


def fit_codes(samples: list[Sample], network: PixelFeatures, runtime: Runtime, clock: Clock, folder: Path):
    with clock.step("encoding"):
        bins = sample_bins(samples, network, runtime, SIZE, 0)
    path, targets = folder / "codes.npy", np.empty(len(samples) * SIZE**2, np.float32)
    with CodeWriter(path, len(targets), CHANNELS) as table:
        for start, end in pixel_parts(len(samples)):
            with clock.step("features"):
                part = pixel_part(samples[start:end], start, network, runtime, SIZE, SIZE**2, 0)
            with clock.step("encoding"):
                table.write(bins.encode(part.features))
            targets[start * SIZE**2 : end * SIZE**2] = part.targets
    with clock.boosting() as callback:
        coded = CodedRows([open_codes(path)], targets)
        return train_on_codes(coded, bins, parameters(runtime.threads), TREES, callbacks=[callback])


def fit_plain(samples: list[Sample], network: PixelFeatures, runtime: Runtime, clock: Clock, _: Path):
    with clock.step("features"):
        table = build_table(samples, network, runtime, SIZE, SIZE**2, 0)
    with clock.boosting() as callback:
        settings = {**parameters(runtime.threads), "objective": "regression", "verbosity": -1}
        rows = lightgbm.Dataset(table.features, table.targets, params=settings)
        return lightgbm.train(settings, rows, TREES, callbacks=[callback])


FITS: dict[str, Callable] = {CODES: fit_codes, PLAIN: fit_plain}


def parameters(threads: int) -> dict[str, object]:
    return {**boosting_parameters(BoostingSettings(leaves=LEAVES), 0), "num_threads": threads}


def measure(how: str, images: int, threads: int, folder: Path) -> dict[str, object]:
    """One point, in this process."""
    use_threads(threads)
    runtime = Runtime(torch.device("cpu"), threads=threads)
    samples = evenly(all_samples()[1], images)
    network, clock = PixelFeatures("auto"), Clock()
    with PeakMemory(runtime.device) as resident, PeakAnonymous() as anonymous:
        booster = FITS[how](samples, network, runtime, clock, folder)
    return {
        **{f"{name} s": seconds for name, seconds in clock.seconds.items()},
        "seconds": sum(clock.seconds.values()),
        "resident MiB": resident.mib,
        "anonymous MiB": anonymous.mib,
        "loss": loss(booster, build_table(samples[:4], network, runtime, SIZE, SIZE**2, 0)),
    }


def loss(booster: lightgbm.Booster, table: PixelTable) -> float:
    return float(np.mean((booster.predict(table.features) - table.targets) ** 2))


def point(arguments: argparse.Namespace, how: str, images: int, settings: dict) -> dict[str, object]:
    """One point, from its file, or measured in a new process."""
    path = arguments.out / "points" / f"{how.replace(' ', '-')}-{images}.json"
    if path.exists() and read_json(path)["settings"] == settings:
        return read_json(path)["found"]
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        words = ["--point", how, str(images), folder, "--threads", str(arguments.threads)]
        done = subprocess.run(
            [sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True, check=True
        )
    found = json.loads(done.stdout.splitlines()[-1])
    write_json(path, {"settings": settings, "found": found})
    print(f"{how}, {images} images: {found['seconds']:.0f} s, {found['resident MiB']:.0f} MiB", flush=True)
    return found


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/training-scale"))
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS))
    parser.add_argument("--plain-up-to", type=int, default=3_000_000, help="rows, of LightGBM on float32")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--scratch", type=Path, help="folder for the table of codes, 64 bytes a row")
    parser.add_argument("--point", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.point:
        how, images, folder = arguments.point
        print(json.dumps(measure(how, int(images), arguments.threads, Path(folder))))
        return
    data, samples = all_samples()
    if max(arguments.rows) > len(samples) * SIZE**2:
        parser.error(f"--rows: {data} has {len(samples) * SIZE**2:,} pixels at {SIZE} x {SIZE}, no more")
    weights = "ImageNet" if find_weights("vgg19", "auto") else "random"
    settings = {
        "data": data, "weights": weights, "size": SIZE, "trees": TREES, "leaves": LEAVES,
        "threads": arguments.threads,
    }  # fmt: skip
    rows = []
    for wanted in sorted(arguments.rows):
        images = max(1, round(wanted / SIZE**2))
        for how in FITS:
            if how == PLAIN and wanted > arguments.plain_up_to:
                continue
            found = point(arguments, how, images, settings)
            row = {"trained on": how, "images": images, "rows": images * SIZE**2}
            row |= {name: found[name] for name in (*(f"{step} s" for step in STEPS), "seconds")}
            row |= {"GiB": found["resident MiB"] / 1024, "anonymous GiB": found["anonymous MiB"] / 1024}
            rows.append({**row, "loss": found["loss"]})
            table = pd.DataFrame(rows).sort_values(["trained on", "rows"], ignore_index=True)
    print(
        write_study(
            arguments.out, "Training on more and more pixels", table, notes(table, arguments, data, weights)
        )
    )
    draw(table, arguments.out)


if __name__ == "__main__":
    main()
