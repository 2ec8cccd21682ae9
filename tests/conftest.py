import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import lru_cache
from multiprocessing import forkserver, get_context
from multiprocessing.context import BaseContext
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from lungseg.data.datasets import phantom
from lungseg.data.sample import Sample
from lungseg.learning.fit import FitContext
from lungseg.system.runtime import Runtime

ROOT = Path(__file__).parents[1]
IMPORTED = [
    "lungseg.harness.run",
    "lungseg.timing.measure",
    "lungseg.approaches.deeplabv3plus.approach",
    "benchmarks.studies.deeplab.ways",
]
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


class ArraySample(Sample):
    """An image and mask given as arrays."""

    def __init__(self, name: str, image: np.ndarray, mask: np.ndarray, source: str = "s") -> None:
        self.id = self.patient = name
        self.source, self.label = source, ""
        self._image, self._mask = image.astype(np.float32), mask

    def image(self) -> np.ndarray:
        return self._image

    def mask(self) -> np.ndarray:
        return self._mask

    def content(self) -> bytes:
        return self._image.tobytes() + self._mask.tobytes()


def dark_discs(count: int, size: int = 64, seed: int = 0) -> list[Sample]:
    """Noisy bright pictures with one dark disc each, the disc being the mask: easy for any approach."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    samples = []
    for index in range(count):
        y, x = rng.uniform(0.35, 0.65, 2) * size
        mask = (rows - y) ** 2 + (columns - x) ** 2 < (rng.uniform(0.2, 0.3) * size) ** 2
        image = np.clip(np.where(mask, 0.25, 0.75) + rng.normal(0, 0.05, mask.shape), 0, 1)
        samples.append(ArraySample(f"disc-{index:03d}", image, mask))
    return samples


@pytest.fixture(scope="session", autouse=True)
def phantoms_rendered_once():
    """A phantom is the same at each call, and most benchmarks of the tests have the same dozen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phantom, "render", lru_cache(128)(phantom.render))
        yield


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No test reads or writes the user's cache."""
    monkeypatch.setenv("LUNGSEG_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def discs() -> Callable[..., list[Sample]]:
    return dark_discs


@pytest.fixture
def runtime() -> Runtime:
    return Runtime(torch.device("cpu"), threads=torch.get_num_threads())


@pytest.fixture
def new_fit_context(tmp_path) -> Callable[..., FitContext]:
    """Make contexts of fits; their history rows are kept in `rows`."""

    def make(
        seed: int = 0, folder: str = "checkpoints", score=lambda maps: 0.5 * (len(list(maps)) > 0)
    ) -> FitContext:
        (tmp_path / folder).mkdir(exist_ok=True)
        rows: list[dict] = []
        fit_context = FitContext(
            seed, tmp_path / folder, lambda **row: rows.append(row), lambda *_: None, score
        )
        fit_context.rows = rows
        return fit_context

    return make


@pytest.fixture(autouse=True)
def _no_data_or_weights(monkeypatch):
    """Tests don't depend on what is on the machine; those that want it set it themselves."""
    monkeypatch.delenv("LUNGSEG_WEIGHTS", raising=False)
    monkeypatch.delenv("LUNGSEG_DATA", raising=False)


@pytest.fixture
def without_figures(request, monkeypatch):
    """For benchmarks that are run for their tables: figures take most of their time.

    A test marked `figures` draws them nevertheless.
    """
    if not request.node.get_closest_marker("figures"):
        monkeypatch.setattr("lungseg.report.write.draw_figures", lambda contents: [])


@pytest.fixture(scope="session", autouse=True)
def rendered_once():
    """Draw each phantom once for all tests: they make the same few again and again, from seed 0 on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phantom, "render", lru_cache(maxsize=256)(phantom.render))
        yield


@pytest.fixture(scope="session")
def forks() -> BaseContext:
    """Processes forked from one that has done nothing but import the libraries, which takes seconds.

    A process has one such server, whoever starts it: all that need one ask for this first.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    forkserver.ensure_running()
    return context


@pytest.fixture
def short_backbone(monkeypatch):
    """Give DeepLabV3+ fewer blocks and channels, where its own number of them is not the subject."""
    from lungseg.approaches.deeplabv3plus import network
    from tests.short_backbone import SHORT

    for name, value in SHORT.items():
        monkeypatch.setattr(network, name, value)


@pytest.fixture
def spec_file(tmp_path) -> Path:
    """The tiny spec as a file, for a test to change."""
    from tests.tiny import SPEC

    path = tmp_path / "tiny.toml"
    path.write_text(SPEC)
    return path


@pytest.fixture(scope="session")
def finished_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results directory that `finished` copies; not to be changed."""
    # Not before: most tests need neither.
    from lungseg.harness.run import benchmark
    from lungseg.spec import read_spec
    from tests.tiny import NO_TIMING, SPEC

    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.toml").write_text(SPEC)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUNGSEG_CACHE", str(folder / "cache"))
        patch.setattr("lungseg.report.write.draw_figures", lambda contents: [])
        benchmark(read_spec(folder / "tiny.toml", NO_TIMING), folder / "out")
    return folder / "out"


@pytest.fixture
def finished(finished_once: Path, tmp_path: Path) -> Path:
    """Results of `read_spec(spec_file, NO_TIMING)`, without figures; a test may change them."""
    return shutil.copytree(finished_once, tmp_path / "finished")


@pytest.fixture(scope="session", autouse=True)
def own_salt(tmp_path_factory):
    """Patients' names with a salt of their own, and none in the user's folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        yield


@pytest.fixture
def lungseg(monkeypatch, capfd):
    """The command line within this process: a function of its words."""
    from lungseg.cli import main

    def run(*words: str, **environment: str) -> subprocess.CompletedProcess:
        capfd.readouterr()
        with monkeypatch.context() as patch:
            patch.chdir(ROOT)
            patch.setattr(sys, "argv", ["lungseg", *words])
            patch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # main sets it: so it is taken back
            for name in [name for name in os.environ if name.startswith("LUNGSEG_")]:
                patch.delenv(name)
            for name, value in environment.items():
                patch.setenv(name, value)
            patch.setenv("MPLBACKEND", "agg")  # likewise
            former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
            try:
                with pytest.raises(SystemExit) as ended:
                    main()
            finally:
                for number, handler in former.items():
                    signal.signal(number, handler)
        out, err = capfd.readouterr()
        return subprocess.CompletedProcess(words, ended.value.code or 0, out, err)

    return run
