"""What a timing process measures, and how its parent sees it fail."""

import multiprocessing
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lungseg.approaches.base import Approach, Stage
from lungseg.learning.fit import FitReport
from lungseg.system.errors import InputError
from lungseg.system.files import write_grey
from lungseg.system.plugins import Settings
from lungseg.system.runtime import Runtime
from lungseg.timing.energy import EnergyCounter
from lungseg.timing.measure import Candidate, Stopwatch, measure_product_speed, run_worker
from lungseg.timing.processes import Worker

CPU = Runtime(torch.device("cpu"))


class Product(Approach):
    """One matrix product and nothing else: h x w times w x 5."""

    Settings = Settings

    def fit(self, train, validation, run):
        return FitReport("images", 0)

    def prepare(self, images):
        return torch.from_numpy(np.stack(images))[:, None]

    def stages(self):
        return [Stage("product", lambda batch: batch @ torch.ones(batch.shape[-1], 5))]

    def finish(self, maps, sizes):
        return [np.zeros(size, np.float32) for size in sizes]

    def save(self, directory):
        pass

    @classmethod
    def load(cls, directory, settings, runtime):
        return cls(settings, runtime)


@pytest.fixture
def product_of_files(tmp_path, monkeypatch):
    monkeypatch.setattr("lungseg.timing.measure.PRODUCT_SIZE", {"cpu": 64})
    write_grey(tmp_path / "x.png", np.random.default_rng(0).random((20, 30)))
    return Stopwatch(Product(Settings(), CPU), [tmp_path / "x.png"])


def test_a_stopwatch_measures_stages_memory_and_operations(product_of_files):
    speed = product_of_files.speed(3, repeats=4, warmup=1)
    assert list(speed["seconds"]) == ["decode", "prepare", "product", "finish", "whole"]
    assert {len(seconds) for seconds in speed["seconds"].values()} == {4}
    assert speed["copies"] == {"prepare", "finish", "whole"}
    assert speed["peak_memory_mib"] > 50
    operations = product_of_files.operations()
    assert operations["gflops"] == pytest.approx(2 * 20 * 30 * 5 / 1e9)
    assert operations["peak_gflops_per_s"] > 0


def test_what_was_not_compiled_is_no_row_of_what_was(product_of_files, monkeypatch):
    assert product_of_files.operations()["compile_s"] is None
    monkeypatch.setattr(Product, "not_compiled", "no compiler here", raising=False)
    with pytest.raises(InputError, match=r"torch.compile failed: no compiler here"):
        product_of_files.speed(1, repeats=1, warmup=0)


def test_operations_are_counted_with_nothing_replayed(product_of_files, monkeypatch):
    seen = []
    monkeypatch.setattr(
        product_of_files.approach, "predict", lambda images: seen.append(product_of_files.approach.counted)
    )
    product_of_files.operations()
    assert seen == [True]
    assert not product_of_files.approach.counted


def test_energy_is_that_of_whole_predictions_or_the_reason_why_not(product_of_files, monkeypatch, tmp_path):
    calls = []

    class PerCall(EnergyCounter):
        """Six joules for each call of `prepare` since the counter was last read."""

        def read(self):
            return (6 * len(calls),)

        def joules(self, before, after):
            return float(after[0] - before[0])

    prepare = product_of_files.approach.prepare
    monkeypatch.setattr(product_of_files.approach, "prepare", lambda x: calls.append(1) or prepare(x))
    monkeypatch.setattr("lungseg.timing.measure.open_counter", lambda device: PerCall())
    monkeypatch.setattr("lungseg.timing.measure.ENERGY_SECONDS", 0.01)
    assert product_of_files.energy(3)["joules_per_image"] == pytest.approx(2)
    monkeypatch.undo()
    monkeypatch.setattr("lungseg.timing.energy.RAPL", tmp_path)
    assert "RAPL" in product_of_files.energy(3)["absent"]


def test_a_slow_device_gets_a_smaller_product(monkeypatch):
    sizes = []

    def slow(steps, matrix, repeats, warmup, synchronise):
        sizes.append(len(matrix))
        return {"product": [(len(matrix) / 1024) ** 3] * repeats}

    monkeypatch.setattr("lungseg.timing.measure.time_chain", slow)
    assert measure_product_speed(torch.device("cpu"), torch.bfloat16, 2048) == pytest.approx(2 * 1.024**3)
    assert sizes == [256, 512, 512]


def test_a_worker_that_cannot_load_or_is_gone_is_a_reason_not_a_traceback(tmp_path):
    mine, theirs = multiprocessing.Pipe()
    process = SimpleNamespace(join=lambda timeout: None, exitcode=-signal.SIGKILL)
    worker = Worker(Candidate("x", "no-such", {}, tmp_path), False, mine, process)
    mine.send(("speed", 1, 1, 1))  # a question that waits: `work` runs in this process here
    other = SimpleNamespace(recv=iter_then_end([theirs.recv()]), send=theirs.send)
    run_worker(other, Candidate("x", "no-such", {}, tmp_path), [], CPU)
    worker.wait()
    assert "unknown approach 'no-such'" in mine.recv()["error"]
    theirs.close()
    gone = worker.ask("speed", 1, 1, 1)
    assert "memory" in gone["error"]
    assert gone["memory"]
    process.exitcode = -signal.SIGSEGV  # no fault of the memory's size
    gone = worker.ask("speed", 1, 1, 1)
    assert "-11" in gone["error"]
    assert not gone["memory"]


def iter_then_end(questions):
    left = iter(questions)

    def receive():
        try:
            return next(left)
        except StopIteration:
            raise EOFError from None

    return receive
