"""Measures one point of `training_scale.py` in this process: fitting on all pixels of so many images.

`python -m benchmarks.studies.pixels.scale_points codes|plain IMAGES PHANTOMS THREADS FOLDER`

Prints it as one line of JSON. Without data, the images are taken from so many phantoms. The table of codes is
written into the folder.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import lightgbm
import numpy as np
import torch

from benchmarks.studies.images import find_images
from lungseg.approaches.vgg19_pixels.sampling import IMAGES_A_BATCH, build_table
from lungseg.data.sample import Sample
from lungseg.learning.regressors.base import PixelTable
from lungseg.learning.regressors.boosting import BoostingSettings, make_boosting_parameters
from lungseg.learning.trees.bins import Bins
from lungseg.learning.trees.table import SAMPLE_IMAGES, SAMPLE_PIXELS, CodeWriter, open_codes
from lungseg.learning.trees.training import CodedRows, train_on_codes
from lungseg.learning.vgg19.features import CHANNELS, PixelFeatures
from lungseg.system.hashing import hash_code
from lungseg.system.memory import PeakMemory
from lungseg.system.runtime import Runtime, use_threads

MODULE = "benchmarks.studies.pixels.scale_points"
SIZE, TREES, LEAVES = 128, 100, 63
PHANTOM_SIDE = 256
STEPS = ("features", "encoding", "dataset", "training")


def hash_own_code() -> str:
    """Return the sha256 of the code that a point depends on."""
    return hash_code(MODULE)


def list_image_ranges(count: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges in which `count` images are read: first and last index, the last exclusive."""
    for start in range(0, count, IMAGES_A_BATCH):
        yield start, min(start + IMAGES_A_BATCH, count)


def build_range_table(
    samples: Sequence[Sample],
    start: int,
    network: PixelFeatures,
    runtime: Runtime,
    size: int,
    pixels_per_image: int,
    seed: int,
) -> PixelTable:
    """Build the table of a range of images; the first one's index and the seed determine the sample."""
    own_seed = int(np.random.SeedSequence([seed, start]).generate_state(1)[0])
    return build_table(samples, network, runtime, size, pixels_per_image, own_seed)


def sample_bins(
    samples: Sequence[Sample], network: PixelFeatures, runtime: Runtime, size: int, seed: int
) -> Bins:
    """Find bins of the features from at most 64 evenly spaced images and 4096 pixels of each."""
    places = np.unique(np.linspace(0, len(samples) - 1, SAMPLE_IMAGES).astype(int))
    chosen = [samples[place] for place in places]
    return Bins.from_sample(build_table(chosen, network, runtime, size, SAMPLE_PIXELS, seed).features)


class PeakAnonymous:
    """Peak of the memory that this process allocated itself, read every 20 ms; mapped files are left out.

    The kernel keeps a peak of all resident memory only (`PeakMemory`).
    """

    def __enter__(self) -> PeakAnonymous:
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
    def time_step(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - start

    @contextmanager
    def time_boosting(self) -> Iterator[Callable]:
        """Give a callback for `lightgbm.train` that separates making the dataset from growing trees."""
        start = time.perf_counter()
        first = []

        def callback(_: lightgbm.callback.CallbackEnv) -> None:
            if not first:
                first.append(time.perf_counter())

        callback.before_iteration = True
        yield callback
        self.seconds["dataset"] += first[0] - start
        self.seconds["training"] += time.perf_counter() - first[0]


def choose_evenly(samples: list[Sample], count: int) -> list[Sample]:
    return [samples[place] for place in np.linspace(0, len(samples) - 1, count).astype(int)]


def fit_codes(
    samples: list[Sample], network: PixelFeatures, runtime: Runtime, clock: Clock, folder: Path
) -> lightgbm.Booster:
    """Fit on codes, a byte a feature, in a mapped file in the folder."""
    with clock.time_step("encoding"):
        bins = sample_bins(samples, network, runtime, SIZE, 0)
    path, targets = folder / "codes.npy", np.empty(len(samples) * SIZE**2, np.float32)
    with CodeWriter(path, len(targets), CHANNELS) as table:
        for start, end in list_image_ranges(len(samples)):
            with clock.time_step("features"):
                part = build_range_table(samples[start:end], start, network, runtime, SIZE, SIZE**2, 0)
            with clock.time_step("encoding"):
                table.write(bins.encode(part.features))
            targets[start * SIZE**2 : end * SIZE**2] = part.targets
    with clock.time_boosting() as callback:
        coded = CodedRows([open_codes(path)], targets)
        return train_on_codes(coded, bins, make_parameters(runtime.threads), TREES, callbacks=[callback])


def fit_plain(
    samples: list[Sample], network: PixelFeatures, runtime: Runtime, clock: Clock, _: Path
) -> lightgbm.Booster:
    """Fit on float32 rows in memory."""
    with clock.time_step("features"):
        table = build_table(samples, network, runtime, SIZE, SIZE**2, 0)
    with clock.time_boosting() as callback:
        settings = {**make_parameters(runtime.threads), "objective": "regression", "verbosity": -1}
        rows = lightgbm.Dataset(table.features, table.targets, params=settings)
        return lightgbm.train(settings, rows, TREES, callbacks=[callback])


FITS: dict[str, Callable[..., lightgbm.Booster]] = {"codes": fit_codes, "plain": fit_plain}


def make_parameters(threads: int) -> dict[str, object]:
    return {**make_boosting_parameters(BoostingSettings(leaves=LEAVES), 0), "num_threads": threads}


def measure(how: str, images: int, phantoms: int, threads: int, folder: Path) -> dict[str, float]:
    """Return seconds of each step and in all, MiB at the peak, and the loss."""
    use_threads(threads)
    runtime = Runtime(torch.device("cpu"), threads=threads)
    samples = choose_evenly(find_images(phantoms, PHANTOM_SIDE)[1], images)
    network, clock = PixelFeatures("auto"), Clock()
    with PeakMemory(runtime.device) as resident, PeakAnonymous() as anonymous:
        booster = FITS[how](samples, network, runtime, clock, folder)
    return {
        **{f"{name} s": seconds for name, seconds in clock.seconds.items()},
        "seconds": sum(clock.seconds.values()),
        "resident MiB": resident.mib,
        "anonymous MiB": anonymous.mib,
        "loss": compute_loss(booster, build_table(samples[:4], network, runtime, SIZE, SIZE**2, 0)),
    }


def compute_loss(booster: lightgbm.Booster, table: PixelTable) -> float:
    """Return the mean squared error."""
    return float(np.mean((booster.predict(table.features) - table.targets) ** 2))


if __name__ == "__main__":
    how, *numbers, folder = sys.argv[1:]
    print(json.dumps(measure(how, *map(int, numbers), Path(folder))))
