import os
import signal
import sys
import threading
import time
from pathlib import Path

import dask
import lightgbm.dask
import numpy as np
import pytest
import torch
from distributed import Client, LocalCluster

from lungseg.approaches.vgg19_pixels.approach import Vgg19PixelsSettings
from lungseg.approaches.vgg19_pixels.cluster import fit_distributed, fit_locally
from lungseg.approaches.vgg19_pixels.worker_watch import list_workers
from lungseg.data.sample import Sample
from lungseg.learning.vgg19.features import PixelFeatures
from lungseg.system.errors import InputError

SETTINGS = Vgg19PixelsSettings(
    weights="random", size=32, pixels_per_image=700, boosting={"rounds": 20, "min_leaf": 10}
)


class FileSample(Sample):
    """An image in a file. If `marker` is given, the first worker that reads it says who it is and waits."""

    def __init__(self, folder: Path, image: np.ndarray, mask: np.ndarray, number: int) -> None:
        self.id = self.patient = f"disc-{number}"
        self.source, self.label = "s", ""
        self.path, self.marker = folder / f"{number}.npz", None
        np.savez(self.path, image=image, mask=mask)

    def image(self) -> np.ndarray:
        if self.marker is not None and not self.marker.exists():
            self.marker.with_suffix(".part").write_text(str(os.getpid()))
            self.marker.with_suffix(".part").rename(self.marker)
            time.sleep(60)
        return np.load(self.path)["image"]

    def mask(self) -> np.ndarray:
        return np.load(self.path)["mask"]

    def content(self) -> bytes:
        return self.path.read_bytes()


@pytest.fixture(scope="module")
def client(forks):
    with (
        dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}),
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def samples(discs, tmp_path):
    # 76 images are ten parts, the last of them a small one; some pictures have black borders, whose pixels
    # every feature splits off alike.
    found = []
    for number, sample in enumerate(discs(76, size=32)):
        image = sample.image().copy()
        image[:, : number % 9] = 0
        found.append(FileSample(tmp_path, image, sample.mask(), number))
    return found


@pytest.fixture
def unseen():
    images = np.random.default_rng(5).uniform(0, 1, (3, 1, 32, 32)).astype(np.float32)
    maps = PixelFeatures("random")(torch.from_numpy(images))
    return maps.permute(0, 2, 3, 1).reshape(-1, 64).numpy()


def test_workers_that_are_there_are_seen_at_each_look(client):
    # What a client knows of the scheduler, refreshed thousands of times as often as by default: no look may
    # meet the moment in which it knows of no worker.
    with (
        dask.config.set({"distributed.client.scheduler-info-interval": "1ms"}),
        Client(client.scheduler.address) as restless,
    ):
        assert {len(list_workers(restless)) for _ in range(300)} == {2}


def test_two_workers_give_the_local_model(client, samples, unseen):
    booster = fit_distributed(client, samples, SETTINGS, seed=0)
    local = fit_locally(samples, SETTINGS, seed=0)
    assert booster.num_trees() == 20
    assert np.ptp(local.predict(unseen)) > 0.5
    np.testing.assert_allclose(booster.predict(unseen), local.predict(unseen), rtol=0, atol=1e-6)
    assert "127.0.0.1" not in booster.model_to_string()


def test_a_worker_killed_while_it_reads_images_costs_a_retry(client, samples, unseen, tmp_path):
    marker = tmp_path / "read"
    not_for_edges = set(range(76)) - set(np.linspace(0, 75, 64).astype(int).tolist())
    samples[min(not_for_edges)].marker = marker
    killed = []

    def kill() -> None:
        deadline = time.monotonic() + 30
        while not marker.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        killed.append(int(marker.read_text()))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    booster = fit_distributed(client, samples, SETTINGS, seed=0)
    killer.join()
    assert killed
    local = fit_locally(samples, SETTINGS, seed=0)
    np.testing.assert_allclose(booster.predict(unseen), local.predict(unseen), rtol=0, atol=1e-6)


def test_an_unreadable_image_is_named(client, samples):
    samples[3].path.unlink()
    with pytest.raises(InputError, match=r"can't read the image 'disc-3' \(.*3\.npz"):
        fit_distributed(client, samples, SETTINGS, seed=0)


def test_a_worker_killed_while_trees_grow_ends_the_run_and_the_cluster_is_fit_for_another(
    client, samples, monkeypatch
):
    endless = Vgg19PixelsSettings(
        weights="random", size=32, pixels_per_image=700, boosting={"rounds": 50_000, "min_leaf": 10}
    )
    pids, begun = client.run(os.getpid), threading.Event()
    train = lightgbm.dask._train

    def begin(**arguments):
        begun.set()
        return train(**arguments)

    def kill() -> None:
        begun.wait(30)
        time.sleep(0.3)  # trees grow by then; a death just before is no other to the caller
        os.kill(min(pids.values()), signal.SIGKILL)

    monkeypatch.setattr(lightgbm.dask, "_train", begin)
    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(InputError, match="died while trees grew: run the same command again"):
        fit_distributed(client, samples, endless, seed=0)
    killer.join()
    client.wait_for_workers(2, timeout=30)
    assert fit_distributed(client, samples, SETTINGS, seed=0).num_trees() == 20


def test_without_dask_one_sentence_says_what_to_install(samples, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"pip install -e \"\.\[distributed\]\""):
        fit_distributed(None, samples, SETTINGS, seed=0)
