"""Checks that the pixel regressor trained on a Dask cluster equals the one trained in one process.

`python -m benchmarks.studies.pixels.distributed_training [--scheduler tcp://HOST:8786]`

Without a scheduler, two workers are started here. LUNGSEG_DATA and LUNGSEG_WEIGHTS are read; without data,
it trains on phantoms. Needs the extra `distributed`. The exit code is 1 if the two models differ, 2 if an
option can't be used.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.studies.images import find_images, make_split
from lungseg.approaches.vgg19_pixels.approach import Vgg19PixelsSettings
from lungseg.approaches.vgg19_pixels.cluster import fit_distributed, fit_locally, require_dask
from lungseg.approaches.vgg19_pixels.sampling import build_table
from lungseg.data.sample import Sample
from lungseg.learning.vgg19.features import PixelFeatures
from lungseg.system.errors import InputError
from lungseg.system.machine import count_usable_cores
from lungseg.system.plugins import validate
from lungseg.system.runtime import Runtime, use_threads

if TYPE_CHECKING:
    from distributed import Client

TOLERANCE = 1e-6
PHANTOMS, SIDE = 140, 128
MOST_VALIDATION = 20  # images


def find_samples(limit: int | None) -> tuple[list[Sample], list[Sample]]:
    """Return training images, `limit` at most, and validation images: of the published split, or phantoms."""
    name, samples = find_images(PHANTOMS, SIDE)
    by_id, split = {sample.id: sample for sample in samples}, make_split(name, samples)
    validation = split.validation[:MOST_VALIDATION]
    return [by_id[key] for key in split.train[:limit]], [by_id[key] for key in validation]


@contextmanager
def connect(scheduler: str | None) -> Iterator[Client]:
    """Give a client of the scheduler at an address, or of two workers that are started here.

    Raises:
        InputError: the extra is missing, or no scheduler answers at the address.
    """
    require_dask()
    from distributed import Client, LocalCluster

    if scheduler is None:
        local = {"host": "127.0.0.1", "dashboard_address": None}
        with LocalCluster(n_workers=2, threads_per_worker=1, **local) as cluster, Client(cluster) as client:
            yield client
        return
    try:
        client = Client(scheduler)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--scheduler: nothing answers at {scheduler} ({error}): start one with `dask scheduler`"
        ) from error
    with client:
        yield client


def compare(arguments: argparse.Namespace) -> float:
    """Fit both models; print and return the largest difference of their predictions on validation pixels."""
    keys = {
        "size": arguments.size,
        "pixels_per_image": arguments.pixels,
        "boosting": {"rounds": arguments.trees},
    }
    settings = validate(Vgg19PixelsSettings, keys, "distributed_training.py")
    train, validation = find_samples(arguments.images)
    with connect(arguments.scheduler) as client:
        begun = time.perf_counter()
        distributed = fit_distributed(client, train, settings, seed=0)
        print(f"{len(train)} images on the cluster: {time.perf_counter() - begun:.1f} s", flush=True)
    begun = time.perf_counter()
    local = fit_locally(train, settings, seed=0, threads=count_usable_cores())
    print(f"in one process, {count_usable_cores()} threads: {time.perf_counter() - begun:.1f} s", flush=True)
    network, runtime = PixelFeatures(settings.weights), Runtime(torch.device("cpu"))
    rows = build_table(validation, network, runtime, arguments.size, arguments.size**2, 0).features
    difference = float(np.abs(distributed.predict(rows) - local.predict(rows)).max())
    result = "equal" if difference <= TOLERANCE else "NOT equal"
    print(f"largest difference on {len(rows):,} pixels of other images: {difference:.3g} ({result})")
    return difference


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--scheduler", help="address of a running scheduler, such as tcp://HOST:8786")
    parser.add_argument("--images", type=int, help="training images at most")
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("--pixels", type=int, default=2304, help="of each image")
    parser.add_argument("--trees", type=int, default=100)
    arguments = parser.parse_args(words)
    if arguments.images is not None and arguments.images < 1:
        parser.error("--images is at least 1")
    use_threads(count_usable_cores())
    try:
        difference = compare(arguments)
    except InputError as error:
        parser.error(str(error))
    sys.exit(difference > TOLERANCE)


if __name__ == "__main__":
    main()
