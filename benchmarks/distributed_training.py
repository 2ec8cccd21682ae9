"""The pixel regressor trained on a Dask cluster, and whether it equals the one trained in one process.

`python benchmarks/distributed_training.py [--scheduler tcp://HOST:8786]`; without a scheduler, two workers
are started here. LUNGSEG_DATA and LUNGSEG_WEIGHTS are read; without data, on phantoms. Needs the extra
`distributed`.
"""

import argparse
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from distributed import Client, LocalCluster

from lungseg.approaches.approach import Runtime
from lungseg.approaches.vgg19_pixels.approach import Vgg19PixelsSettings
from lungseg.approaches.vgg19_pixels.distributed import fit_distributed, fit_locally
from lungseg.approaches.vgg19_pixels.features import PixelFeatures
from lungseg.approaches.vgg19_pixels.sampling import build_table
from lungseg.data import Sample, load_dataset
from lungseg.data.splits import SplitOptions, make_splits
from lungseg.environment import usable_cores, use_threads
from lungseg.errors import InputError

TOLERANCE = 1e-6


def sides(limit: int | None) -> tuple[list[Sample], list[Sample]]:
    """Training and validation images: of the published split, or of phantoms."""
    root = os.environ.get("LUNGSEG_DATA")
    name, rule = ("cxr704", "published:cxr704-ovcharenko") if root else ("phantom", "every-14th")
    options = {} if root else {"count": 140, "size": 128}
    samples = {s.id: s for s in load_dataset(name, options, Path(root) if root else None).samples()}
    split = make_splits(rule, list(samples.values()), SplitOptions())[0]
    return [samples[key] for key in split.train[:limit]], [samples[key] for key in split.validation[:20]]


def compare(arguments: argparse.Namespace) -> float:
    """Fits both and prints how far apart their predictions on validation pixels are at most."""
    settings = Vgg19PixelsSettings(
        size=arguments.size, pixels_per_image=arguments.pixels, boosting={"rounds": arguments.trees}
    )
    train, held = sides(arguments.images)
    with ExitStack() as stack:
        address = arguments.scheduler or stack.enter_context(
            LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None)
        )
        client = stack.enter_context(Client(address))
        begun = time.perf_counter()
        spread = fit_distributed(client, train, settings, seed=0)
        print(f"{len(train)} images on the cluster: {time.perf_counter() - begun:.1f} s", flush=True)
    begun = time.perf_counter()
    local = fit_locally(train, settings, seed=0, threads=usable_cores())
    print(f"in one process, {usable_cores()} threads: {time.perf_counter() - begun:.1f} s", flush=True)
    network, runtime = PixelFeatures(settings.weights), Runtime(torch.device("cpu"))
    rows = build_table(held, network, runtime, arguments.size, arguments.size**2, 0).features
    difference = float(np.abs(spread.predict(rows) - local.predict(rows)).max())
    verdict = "equal" if difference <= TOLERANCE else "NOT equal"
    print(f"largest difference on {len(rows):,} pixels of other images: {difference:.3g} ({verdict})")
    return difference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--scheduler", help="address of a running scheduler, such as tcp://HOST:8786")
    parser.add_argument("--images", type=int, help="training images at most")
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("--pixels", type=int, default=2304, help="of each image")
    parser.add_argument("--trees", type=int, default=100)
    arguments = parser.parse_args()
    use_threads(usable_cores())
    try:
        sys.exit(compare(arguments) > TOLERANCE)
    except InputError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
