"""Training of the pixel regressor on a Dask cluster: workers read the images and grow the trees.

Needs the extra `distributed` (`pip install -e ".[distributed]"` in a checkout).

1. Each worker turns ranges of the images into codes, by bins that all workers share. If a worker dies, the
   others make its codes again.
2. `lightgbm.dask` lets the workers grow the trees together, each on its own rows. If a worker dies now, the
   training ends with an error.

    from dask.distributed import Client, LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1) as cluster, Client(cluster) as client:
        booster = fit_distributed(client, samples, Vgg19PixelsSettings(size=128), seed=0)
    booster.save_model("lightgbm.txt")

The workers must find the image files under the names that the samples have. The model is equal to that of
`fit_locally`, whichever worker holds a row, because gradients are rounded so that sums are exact
(`train_on_codes`). Only the last digit of a feature may differ between processors of different kinds.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightgbm
import lightgbm.dask
import numpy as np
import torch

from lungseg.approaches.vgg19_pixels.approach import Vgg19PixelsSettings
from lungseg.approaches.vgg19_pixels.codes import (
    build_range_table,
    list_image_ranges,
    sample_bins,
    write_pixel_codes,
)
from lungseg.approaches.vgg19_pixels.worker_watch import run_while_workers_live
from lungseg.data.sample import Sample
from lungseg.learning.regressors.boosting import BoostingSettings, make_boosting_parameters
from lungseg.learning.trees.bins import Bins
from lungseg.learning.trees.evaluator import limit_threads
from lungseg.learning.trees.table import open_codes
from lungseg.learning.trees.training import (
    CodedRows,
    boost,
    compute_starting_value,
    to_feature_values,
    train_on_codes,
)
from lungseg.learning.vgg19.features import PixelFeatures
from lungseg.system.errors import InputError
from lungseg.system.runtime import Runtime

if TYPE_CHECKING:
    from distributed import Client, Future

# Lines of a model that tell on which machines LightGBM trained it.
NETWORK_LINES = re.compile(
    r"^\[(machines|local_listen_port|num_machines|time_out|pre_partition): .*\]\n", re.M
)
SOCKET_MINUTES = 5  # LightGBM's `time_out`; with its default of 120, workers wait long for one that is gone


@dataclass(frozen=True)
class _Plan:
    """What a worker needs, besides images, to make codes."""

    network: PixelFeatures
    size: int
    pixels_per_image: int
    seed: int


def fit_distributed(
    client: Client, samples: Sequence[Sample], settings: Vgg19PixelsSettings, seed: int
) -> lightgbm.Booster:
    """Fit a booster that predicts shares of lung from rows float32 N x 64, on the CPUs of a Dask cluster.

    All `settings.boosting.rounds` trees are grown: no validation images stop the training early. Samples are
    pickled and sent to workers. The client finds the weights and sends them, so workers need no file of them.
    Of the settings, `size`, `pixels_per_image`, `weights` and `boosting` are read. The seed determines which
    pixels are sampled.

    Raises:
        InputError: Dask isn't installed, there is no worker, workers died again and again while reading
            images, one left or died while trees grew, or an image or the weights can't be used.
    """
    require_dask()
    from distributed import KilledWorker

    if not client.ncores():
        raise InputError("the Dask cluster has no worker: start one with `dask worker SCHEDULER_ADDRESS`")
    plan = client.submit(
        _return_plan, _Plan(PixelFeatures(settings.weights), settings.size, settings.pixels_per_image, seed)
    )
    bins = client.submit(_find_bins, list(samples), plan)
    tables = [
        client.submit(_encode_range, list(samples[start:end]), start, plan, bins)
        for start, end in list_image_ranges(len(samples))
    ]
    try:
        return _grow_trees(client, tables, bins.result(), settings.boosting, seed)
    except KilledWorker as error:
        raise InputError(
            "workers of the Dask cluster died while reading images, most likely for memory: "
            "give each more of it, or start fewer on a machine"
        ) from error


def _grow_trees(
    client: Client, tables: Sequence[Future], bins: Bins, settings: BoostingSettings, seed: int
) -> lightgbm.Booster:
    import dask.array
    from dask import delayed

    sums = client.gather([client.submit(_sum_targets, table) for table in tables])
    client.rebalance(tables)
    counts = [count for _, count in sums]
    start = compute_starting_value(float(np.sum([total for total, _ in sums])), sum(counts))

    def join(index: int, shape: tuple[int, ...], dtype: type) -> dask.array.Array:
        blocks = [
            dask.array.from_delayed(delayed(table)[index], (count, *shape), dtype)
            for table, count in zip(tables, counts, strict=True)
        ]
        return dask.array.concatenate(blocks)

    parameters = {"bins": bins, "rounds": settings.rounds, "start": start, "time_out": SOCKET_MINUTES}
    parameters |= make_boosting_parameters(settings, seed)
    codes, targets = join(0, (len(bins),), np.uint8), join(1, (), np.float32)

    def train() -> Any:  # a private function, since DaskLGBMRegressor can't start another class on workers
        return lightgbm.dask._train(
            client=client, data=codes, label=targets, params=parameters, model_factory=CodesRegressor
        )

    model = run_while_workers_live(client, tables, train)
    if not isinstance(model, CodesRegressor):
        model.result()  # raises the error of the task that failed
    text = to_feature_values(model.text, bins, start)
    return lightgbm.Booster(model_str=NETWORK_LINES.sub("", text))


def fit_locally(
    samples: Sequence[Sample], settings: Vgg19PixelsSettings, seed: int, threads: int = 1
) -> lightgbm.Booster:
    """Fit the model of `fit_distributed` in this process; codes are kept in a temporary file."""
    network, runtime = PixelFeatures(settings.weights), Runtime(torch.device("cpu"), threads=threads)
    bins = sample_bins(samples, network, runtime, settings.size, seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "codes.npy"
        targets = write_pixel_codes(
            path, samples, bins, network, runtime, settings.size, settings.pixels_per_image, seed
        )
        parameters = {
            **make_boosting_parameters(settings.boosting, seed),
            "num_threads": limit_threads(threads),
        }
        return train_on_codes(
            CodedRows([open_codes(path)], targets), bins, parameters, settings.boosting.rounds
        )


class CodesRegressor:
    """The class that `lightgbm.dask` starts on each worker instead of `LGBMRegressor`: it trains on codes."""

    def __init__(self, bins: Bins, rounds: int, start: float, **parameters: Any) -> None:
        self._bins, self._rounds, self._start = bins, rounds, start
        self._other_params: dict[str, Any] = parameters
        self.fitted_ = False

    def fit(self, codes: np.ndarray, targets: np.ndarray, **_: object) -> CodesRegressor:
        """Grow trees on codes uint8 N x F and targets float32 N, together with the other workers."""
        coded = CodedRows([codes], targets)
        booster, _ = boost(coded, self._bins, self._other_params, self._rounds, start=self._start)
        self.booster_, self.fitted_ = booster, True
        self.text = booster.model_to_string(num_iteration=-1)
        return self

    def __getstate__(self) -> Mapping[str, Any]:
        """Leave out the booster, whose rows stay on the worker."""
        return {key: value for key, value in self.__dict__.items() if key != "booster_"}


def require_dask() -> None:
    """Raise InputError if Dask isn't installed."""
    try:
        import dask.array  # noqa: F401
        import distributed  # noqa: F401
    except ImportError as error:
        raise InputError(
            'training on a cluster needs Dask, which isn\'t installed: run pip install -e ".[distributed]"'
        ) from error


def _return_plan(plan: _Plan) -> _Plan:
    # The result of a task, unlike data that is sent, can be made again if the worker that holds it dies.
    return plan


def _make_runtime() -> Runtime:
    from distributed import get_worker

    threads = get_worker().state.nthreads
    torch.set_num_threads(threads)
    return Runtime(torch.device("cpu"), threads=threads)


class _Readable(Sample):
    """A sample whose reading errors name the image."""

    def __init__(self, sample: Sample) -> None:
        self._sample = sample

    def image(self) -> np.ndarray:
        return self._read(self._sample.image)

    def mask(self) -> np.ndarray:
        return self._read(self._sample.mask)

    def content(self) -> bytes:
        return self._read(self._sample.content)

    def _read(self, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except OSError as error:
            raise InputError(
                f"a worker of the Dask cluster can't read the image {self._sample.id!r} ({error}): make its "
                "files readable under the same name on every worker"
            ) from error


def _find_bins(samples: Sequence[Sample], plan: _Plan) -> Bins:
    return sample_bins([*map(_Readable, samples)], plan.network, _make_runtime(), plan.size, plan.seed)


def _encode_range(
    samples: Sequence[Sample], start: int, plan: _Plan, bins: Bins
) -> tuple[np.ndarray, np.ndarray]:
    readable = [*map(_Readable, samples)]
    table = build_range_table(
        readable, start, plan.network, _make_runtime(), plan.size, plan.pixels_per_image, plan.seed
    )
    return bins.encode(table.features), table.targets


def _sum_targets(table: tuple[np.ndarray, np.ndarray]) -> tuple[float, int]:
    """Return the sum and the number of the targets of a table (codes, targets)."""
    return float(table[1].sum(dtype=np.float64)), len(table[1])
