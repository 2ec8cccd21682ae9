"""The pixel regressor trained on a Dask cluster: images are read, and trees grown, where the workers are.

Needs the extra `distributed` (`pip install -e ".[distributed]"` in a checkout). Each part of the images
becomes codes on some worker, by edges that all workers share; a worker that dies costs the parts that it
held, which others make again. Then `lightgbm.dask` lets the workers grow the trees together, each on the rows
that it has; a worker that dies from then on ends the run with an error.

    from dask.distributed import Client, LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1) as cluster, Client(cluster) as client:
        booster = fit_distributed(client, samples, Vgg19PixelsSettings(size=128), seed=0)
    booster.save_model("lightgbm.txt")

The workers must see the image files under the names that the samples have. The model is the one that
`fit_locally` gives: gradients are rounded so that sums are exact (`train_on_codes`), whichever worker holds a
row. What may differ is the last digit of a feature between processors of different kinds.
"""

from __future__ import annotations

import re
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future as Outcome
from concurrent.futures import wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightgbm
import lightgbm.dask
import numpy as np
import torch

from lungseg.approaches.vgg19_pixels.approach import Vgg19PixelsSettings
from lungseg.approaches.vgg19_pixels.codes import pixel_part, pixel_parts, sample_bins, write_pixel_codes
from lungseg.data.sample import Sample
from lungseg.learning.regressors.boosting import BoostingSettings, boosting_parameters
from lungseg.learning.trees.bins import Bins
from lungseg.learning.trees.table import open_codes
from lungseg.learning.trees.training import (
    CodedRows,
    boost,
    starting_value,
    to_feature_values,
    train_on_codes,
)
from lungseg.learning.vgg19.features import PixelFeatures
from lungseg.system.errors import InputError
from lungseg.system.runtime import Runtime

if TYPE_CHECKING:
    from distributed import Client, Future

# What LightGBM writes into a model about the machines it was trained on.
NETWORK_LINES = re.compile(
    r"^\[(machines|local_listen_port|num_machines|time_out|pre_partition): .*\]\n", re.M
)

SOCKET_MINUTES = 5  # LightGBM's `time_out`; its default of 120 keeps workers waiting for one that is gone


@dataclass(frozen=True)
class _Plan:
    """What a worker needs to make codes of images."""

    network: PixelFeatures
    size: int
    pixels_per_image: int
    seed: int


def fit_distributed(
    client: Client, samples: Sequence[Sample], settings: Vgg19PixelsSettings, seed: int
) -> lightgbm.Booster:
    """Fits the pixel regressor on the workers of a Dask cluster, with CPUs alone.

    All trees of `settings.boosting.rounds` are grown: nothing is held out to stop by.

    Args:
        client: connected to a scheduler with at least one worker.
        samples: images to learn from; each must survive being sent to a worker.
        settings: `size`, `pixels_per_image`, `weights` and `boosting` are read. The client finds the weights
            and sends them; workers need no file of them.
        seed: fixes which pixels are learnt from.

    Returns:
        A booster that predicts the share of lung from feature values float32 N x 64.

    Raises:
        InputError: the extra is missing, there is no worker, workers died again and again while reading
            images, one left or died while trees grew, or an image or the weights can't be used.
    """
    require_extra()
    from distributed import KilledWorker

    if not client.ncores():
        raise InputError("the Dask cluster has no worker: start one with `dask worker SCHEDULER_ADDRESS`")
    plan = client.submit(
        _same, _Plan(PixelFeatures(settings.weights), settings.size, settings.pixels_per_image, seed)
    )
    bins = client.submit(_find_bins, list(samples), plan)
    parts = [
        client.submit(_encode_part, list(samples[start:end]), start, plan, bins)
        for start, end in pixel_parts(len(samples))
    ]
    try:
        return _grow(client, parts, bins.result(), settings.boosting, seed)
    except KilledWorker as error:
        raise InputError(
            "workers of the Dask cluster died while reading images, most likely for memory: "
            "give each more of it, or start fewer on a machine"
        ) from error


def _grow(
    client: Client, parts: Sequence[Future], bins: Bins, settings: BoostingSettings, seed: int
) -> lightgbm.Booster:
    import dask.array
    from dask import delayed

    sums = client.gather([client.submit(_sum, part) for part in parts])
    client.rebalance(parts)
    counts = [count for _, count in sums]
    start = starting_value(float(np.sum([total for total, _ in sums])), sum(counts))

    def column(index: int, shape: tuple[int, ...], kind: type) -> dask.array.Array:
        blocks = [
            dask.array.from_delayed(delayed(part)[index], (count, *shape), kind)
            for part, count in zip(parts, counts, strict=True)
        ]
        return dask.array.concatenate(blocks)

    parameters = {
        "bins": bins,
        "rounds": settings.rounds,
        "start": start,
        "time_out": SOCKET_MINUTES,
        **boosting_parameters(settings, seed),
    }
    codes, targets = column(0, (len(bins),), np.uint8), column(1, (), np.float32)

    def train() -> Any:  # DaskLGBMRegressor has no place for another regressor on the workers
        return lightgbm.dask._train(
            client=client, data=codes, label=targets, params=parameters, model_factory=CodesRegressor
        )

    model = unless_a_worker_dies(client, parts, train)
    if not isinstance(model, CodesRegressor):
        model.result()  # a part that failed: raises its error here
    text = to_feature_values(model.text, bins, start)
    return lightgbm.Booster(model_str=NETWORK_LINES.sub("", text))


def fit_locally(
    samples: Sequence[Sample], settings: Vgg19PixelsSettings, seed: int, threads: int = 1
) -> lightgbm.Booster:
    """The same model as `fit_distributed` from this process alone; codes go through a temporary file."""
    network, runtime = PixelFeatures(settings.weights), Runtime(torch.device("cpu"), threads=threads)
    bins = sample_bins(samples, network, runtime, settings.size, seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "codes.npy"
        targets = write_pixel_codes(
            path, samples, bins, network, runtime, settings.size, settings.pixels_per_image, seed
        )
        parameters = {**boosting_parameters(settings.boosting, seed), "num_threads": threads}
        return train_on_codes(
            CodedRows([open_codes(path)], targets), bins, parameters, settings.boosting.rounds
        )


class CodesRegressor:
    """What `lightgbm.dask` starts on each worker in the place of `LGBMRegressor`: it trains on codes.

    Attributes:
        text: of the model on codes, once fitted.
    """

    def __init__(self, bins: Bins, rounds: int, start: float, **parameters: Any) -> None:
        self._bins, self._rounds, self._start = bins, rounds, start
        self._other_params: dict[str, Any] = parameters
        self.fitted_ = False

    def fit(self, codes: np.ndarray, targets: np.ndarray, **_: object) -> CodesRegressor:
        """Grows trees on codes uint8 N x F and targets float32 N, together with the other workers."""
        coded = CodedRows([codes], targets)
        booster, _ = boost(coded, self._bins, self._other_params, self._rounds, start=self._start)
        self.booster_, self.fitted_ = booster, True
        self.text = booster.model_to_string(num_iteration=-1)
        return self

    def __getstate__(self) -> Mapping[str, Any]:
        """Without the booster, whose rows stay on the worker."""
        return {key: value for key, value in self.__dict__.items() if key != "booster_"}


def require_extra() -> None:
    """Raises InputError if Dask isn't installed."""
    try:
        import dask.array  # noqa: F401
        import distributed  # noqa: F401
    except ImportError as error:
        raise InputError(
            'training on a cluster needs Dask, which isn\'t installed: run pip install -e ".[distributed]"'
        ) from error


def _same(plan: _Plan) -> _Plan:
    # As a task's result, unlike sent data, it can be made again when the worker that holds it dies.
    return plan


def _runtime() -> Runtime:
    from distributed import get_worker

    threads = get_worker().state.nthreads
    torch.set_num_threads(threads)
    return Runtime(torch.device("cpu"), threads=threads)


class _Readable(Sample):
    """A sample whose errors of reading say which image they are of."""

    def __init__(self, sample: Sample) -> None:
        self._sample = sample

    def image(self) -> np.ndarray:
        return self._read(self._sample.image)

    def mask(self) -> np.ndarray:
        return self._read(self._sample.mask)

    def content(self) -> bytes:
        return self._read(self._sample.content)

    def _read(self, how: Callable[[], Any]) -> Any:
        try:
            return how()
        except OSError as error:
            raise InputError(
                f"a worker of the Dask cluster can't read the image {self._sample.id!r} ({error}): make its "
                "files readable under the same name on every worker"
            ) from error


def _find_bins(samples: Sequence[Sample], plan: _Plan) -> Bins:
    return sample_bins([*map(_Readable, samples)], plan.network, _runtime(), plan.size, plan.seed)


def _encode_part(
    samples: Sequence[Sample], start: int, plan: _Plan, bins: Bins
) -> tuple[np.ndarray, np.ndarray]:
    readable = [*map(_Readable, samples)]
    rows = pixel_part(readable, start, plan.network, _runtime(), plan.size, plan.pixels_per_image, plan.seed)
    return bins.encode(rows.features), rows.targets


def _sum(part: tuple[np.ndarray, np.ndarray]) -> tuple[float, int]:
    return float(part[1].sum(dtype=np.float64)), len(part[1])


LOOK_SECONDS = 0.5  # between two looks at which workers are there


RESTART_SECONDS = 30


def unless_a_worker_dies(client: Client, parts: Sequence[Future], train: Callable[[], Any]) -> Any:
    """What `train` returns, unless a worker of the cluster goes meanwhile.

    The others would wait for it, or read from its closed socket, for ever (LightGBM's issue 5920), each in a
    task that can't be stopped: they are restarted, and what the cluster holds is given up.

    Args:
        client: of the cluster.
        parts: all that `train` learns from, as the cluster holds it.
        train: waits for the cluster; runs in another thread.

    Raises:
        InputError: a worker that was there at the start has gone.
    """
    before = _workers(client)
    outcome = Outcome()
    # A thread that ends with the process: what it waits for may never come.
    threading.Thread(target=_run, args=(train, outcome), daemon=True).start()
    done = False
    while not done:
        done = bool(wait([outcome], LOOK_SECONDS).done)
        if done and outcome.exception() is None:
            break
        if done:
            time.sleep(LOOK_SECONDS)  # LightGBM may see a closed socket before the scheduler misses a worker
        gone = before - _seen(client, before)
        if gone:
            left = _give_up(client, parts, before - gone)
            raise InputError(f"a worker of the Dask cluster died while trees grew: {left}") from (
                outcome.exception() if done else None
            )
    return outcome.result()


def _run(train: Callable[[], Any], outcome: Outcome) -> None:
    try:
        outcome.set_result(train())
    except BaseException as error:
        outcome.set_exception(error)


def _seen(client: Client, otherwise: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The workers, or `otherwise` if the scheduler can't be asked: it is the one to miss a worker.

    Where it can't be reached for good, the client gives up what it waits for, and `train` ends.
    """
    try:
        return _workers(client)
    except (OSError, AttributeError):  # a client that has closed itself has None for a scheduler
        return otherwise


def _workers(client: Client) -> set[tuple[str, str]]:
    """Address and folder of each worker; one that a nanny restarts may keep its address."""
    # Not `scheduler_info`: what it returns may be the refresh without workers that runs every few seconds.
    workers = client.sync(client.scheduler.identity, n_workers=-1)["workers"]
    return {(address, worker["local_directory"]) for address, worker in workers.items()}


def _give_up(client: Client, parts: Sequence[Future], workers: set[tuple[str, str]]) -> str:
    """Frees the cluster of a training that can't go on; returns what is left for the user to do."""
    client.cancel(list(parts), force=True)  # and all that depends on them, so the waiting thread ends
    try:
        client.restart_workers([address for address, _ in workers], timeout=RESTART_SECONDS)
    except Exception:  # without a nanny, or not back in time; there is no common class
        return "restart the other workers, which wait for it, then run the same command again"
    return "run the same command again"
