"""What a timing process measures, and how its parent sees it fail."""

import multiprocessing
import signal
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lungseg.approaches.base import Approach, Stage
from lungseg.learning.fit import FitReport
from lungseg.system.errors import InputError
from lungseg.system.files import write_grey
from lungseg.system.memory import PeakMemory
from lungseg.system.plugins import Settings
from lungseg.system.runtime import Runtime
from lungseg.timing.energy import EnergyCounter, NoEnergyCounterError
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
    assert speed["memory"]["peak_memory_mib"] > 50
    assert speed["state"] == {}
    operations = product_of_files.operations()
    assert operations["gflops"] == pytest.approx(2 * 20 * 30 * 5 / 1e9)
    assert operations["peak_gflops_per_s"] > 0


def test_what_ran_is_said_also_of_a_plug_in_that_knows_nothing_of_it(product_of_files, monkeypatch):
    before = torch.are_deterministic_algorithms_enabled()
    try:
        torch.use_deterministic_algorithms(False)
        program = product_of_files.speed(1, repeats=1, warmup=0)["program"]
        assert program == {"graph": None, "folded": None, "deterministic": "no"}
        torch.use_deterministic_algorithms(True, warn_only=True)
        facts = {"graph": "failed", "folded": "no"}
        monkeypatch.setattr(Product, "execution_facts", lambda _: facts, raising=False)
        program = product_of_files.speed(1, repeats=1, warmup=0)["program"]
        assert program == facts | {"deterministic": "yes"}
    finally:
        torch.use_deterministic_algorithms(before, warn_only=True)


def test_a_gpu_is_warm_before_a_round_and_the_worst_of_its_states_counts(product_of_files, monkeypatch):
    """The device is a CPU under another name, so that nothing needs a GPU."""
    names = ("sm_clock_mhz", "power_w", "temperature_c", "throttle")
    states = [(300, 90, 40, []), (1700, 400, 50, []), (1710, 500, 55, ["power cap"]), (1690, 450, 60, [])]
    left = [dict(zip(names, state, strict=True)) for state in (*states[:2], states[1], *states[2:])]
    monkeypatch.setattr(product_of_files, "device", torch.device("cuda"))
    monkeypatch.setattr(product_of_files, "_synchronise", lambda: None)
    monkeypatch.setattr(product_of_files, "_gpu", SimpleNamespace(read_state=lambda: left.pop(0)))
    monkeypatch.setattr("lungseg.timing.measure.PeakMemory", lambda _: PeakMemory(torch.device("cpu")))
    monkeypatch.setattr("lungseg.timing.statistics.WARM_PERIOD", 0.01)
    monkeypatch.setattr("lungseg.timing.measure.ROUND_SECONDS", 0.05)
    speed = product_of_files.speed(1, repeats=2, warmup=1)
    assert left == []  # three readings while it warmed up, one before the round and one after it
    assert speed["state"] == dict(zip(names, (1690, 500, 60, ["power cap"]), strict=True))
    assert len(speed["seconds"]["whole"]) > 2


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

        def __init__(self, joules=6):
            self.joules_a_call = joules

        def read(self):
            return (self.joules_a_call * len(calls),)

        def joules(self, before, after):
            return float(after[0] - before[0])

    prepare = product_of_files.approach.prepare
    monkeypatch.setattr(product_of_files.approach, "prepare", lambda x: calls.append(1) or prepare(x))
    monkeypatch.setattr("lungseg.timing.measure.open_counter", lambda device: PerCall())
    monkeypatch.setattr("lungseg.timing.measure.ENERGY_SECONDS", 0.01)
    assert product_of_files.energy(3)["joules_per_image"] == pytest.approx(2)
    # Beside a GPU the host's processors count too, where they can be read.
    monkeypatch.setattr(product_of_files, "device", torch.device("cuda"))
    monkeypatch.setattr(product_of_files, "_synchronise", lambda: None)
    counters = {"cuda": 6, "cpu": 3}
    monkeypatch.setattr("lungseg.timing.measure.open_counter", lambda device: PerCall(counters[device.type]))
    found = product_of_files.energy(3)
    assert found == pytest.approx({"joules_per_image": 2, "host_joules_per_image": 1})

    def open_gpu_alone(device):
        if device.type == "cpu":
            raise NoEnergyCounterError("only root")
        return PerCall()

    monkeypatch.setattr("lungseg.timing.measure.open_counter", open_gpu_alone)
    assert list(product_of_files.energy(3)) == ["joules_per_image"]
    monkeypatch.undo()
    monkeypatch.setattr("lungseg.timing.energy.RAPL", tmp_path)
    assert "RAPL" in product_of_files.energy(3)["absent"]


def test_a_slow_device_gets_a_smaller_product(monkeypatch):
    sizes, precisions = [], []
    before = torch.backends.cuda.matmul.fp32_precision

    def slow(steps, matrix, repeats, warmup, synchronise, least_s=0.0):
        sizes.append(len(matrix))
        assert least_s == 0  # seconds of products are for a GPU
        # Normal numbers: a device takes less time and power for zeros, or for numbers of one sign.
        assert matrix.float().std() == pytest.approx(1, abs=0.1)
        assert matrix.float().mean() == pytest.approx(0, abs=0.1)
        precisions.append(torch.backends.cuda.matmul.fp32_precision)
        return {"product": [(len(matrix) / 1024) ** 3] * repeats}

    monkeypatch.setattr("lungseg.timing.measure.time_chain", slow)
    assert measure_product_speed(torch.device("cpu"), torch.bfloat16, 2048) == pytest.approx(2 * 1.024**3)
    assert sizes == [256, 512, 512]
    assert precisions == [torch.backends.cudnn.conv.fp32_precision] * 3 != [before] * 3
    assert torch.backends.cuda.matmul.fp32_precision == before


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_worker_times_the_program_of_the_fits_unless_told_otherwise(monkeypatch, tmp_path, deterministic):
    seen = []
    monkeypatch.setattr("lungseg.timing.measure.be_deterministic", lambda: seen.append(True))
    pipe = SimpleNamespace(recv=iter_then_end([]), send=lambda _: None)
    runtime = replace(CPU, deterministic=deterministic)
    run_worker(pipe, Candidate("x", "no-such", {}, tmp_path), [], runtime)
    assert seen == [True] * deterministic


def test_a_worker_drops_recorded_graphs_after_each_answer(monkeypatch, tmp_path):
    events = []
    approach = Product(Settings(), CPU)
    approach.drop_graphs = lambda: events.append("dropped")
    monkeypatch.setattr("lungseg.timing.measure._load", lambda *_: approach)
    monkeypatch.setattr(Stopwatch, "speed", lambda *_: events.append("asked") or {})
    questions = iter_then_end([("speed", 1, 1, 1), ("speed", 2, 1, 1)])
    pipe = SimpleNamespace(recv=questions, send=lambda _: events.append("sent"))
    run_worker(pipe, Candidate("x", "no-such", {}, tmp_path), [], replace(CPU, deterministic=False))
    assert events == ["sent", *["asked", "dropped", "sent"] * 2]


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
