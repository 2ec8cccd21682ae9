"""The clock: who is measured when, what becomes of the answers, and of those that fail."""

import multiprocessing
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lungseg.approaches.base import Approach, Stage
from lungseg.harness.timings import _phases, estimated_seconds
from lungseg.learning.fit import FitReport
from lungseg.spec import TimingSpec, read_spec
from lungseg.system.errors import InputError
from lungseg.system.files import write_grey
from lungseg.system.plugins import Settings
from lungseg.system.runtime import Runtime
from lungseg.timing.energy import EnergyCounter
from lungseg.timing.measure import Candidate, Stopwatch, product_speed, work
from lungseg.timing.processes import Worker
from lungseg.timing.turns import _Clock, batch_sizes, repeats_and_rounds
from tests.tiny import SPEC

CPU = Runtime(torch.device("cpu"))
FULL = {"error": "OutOfMemoryError: 1 TiB", "memory": True}


class FakeWorker:
    """Answers as a timing process would; `seconds` gives a call's time by batch size, or what went wrong."""

    def __init__(self, name, seconds, log, again=False):
        self.name, self.again, self._seconds, self._log = name, again, seconds, log

    def ask(self, method, *arguments):
        self._log.append((self.name + "'" * self.again, method, *arguments))
        if method == "operations":
            return {"gflops": 3.0, "peak_gflops_per_s": 120.0}
        if method == "energy":
            return {"absent": "no counter"}
        size, repeats, _ = arguments
        seconds = self._seconds[size]
        if isinstance(seconds, dict):
            return seconds
        calls = {"decode": [0.5], "net": [seconds] * repeats, "whole": [seconds] * repeats}
        return {"seconds": calls, "copies": {"whole"}, "peak_memory_mib": 100.0 + len(self._log)}

    def close(self):
        self._log.append((self.name + "'" * self.again, "close"))


def measured(workers, **timing):
    spec = TimingSpec(**timing)
    clock = _Clock(["a", "b"], (60, 50), CPU, spec, lambda text: None)
    clock.measure_all(workers, batch_sizes(spec, "cpu"))
    return clock.timings


def test_two_processes_of_each_take_turns_there_and_back():
    log = []
    workers = [FakeWorker(name, {1: 0.1, 4: 0.2}, log, again) for again in (False, True) for name in "ab"]
    found = measured(workers, batch_sizes=(4, 1), repeats=5, rounds=2, throughput_repeats=20, warmup=2)
    speeds = [entry for entry in log if entry[1] == "speed"]
    there = [(name, "speed", 1, 3, 2) for name in ("a", "b", "a'", "b'")]
    back = [(name, "speed", 1, 2, 2) for name in ("b'", "a'", "b", "a")]
    larger = [(name, "speed", 4, 10, 2) for name in "abba"]
    assert speeds == there + back + larger
    assert log.index(("b'", "close")) < log.index(larger[0])  # their memory is free for larger batches
    assert [(row["approach"], row["other"]) for row in found.pairs] == [("a", "a"), ("b", "b"), ("a", "b")]
    assert not found.failed


def test_rows_hold_what_was_measured_of_the_first_process():
    log = []
    a = [FakeWorker("a", {1: 0.1}, log), FakeWorker("a", {1: 0.3}, log, True)]
    found = measured([*a, FakeWorker("b", {1: 0.2}, log)], batch_sizes=(1,), repeats=4, rounds=2)
    whole = next(row for row in found.rows if (row["approach"], row["stage"]) == ("a", "whole"))
    assert (whole["device"], whole["layout"], whole["height"], whole["width"]) == (
        "cpu",
        "contiguous",
        60,
        50,
    )
    assert whole["median_ms"] == pytest.approx(100)
    assert (whole["repeats"], whole["batch_size"], whole["copies"]) == (4, 1, True)
    assert whole["peak_share"] == pytest.approx(3.0 * 10 / 120)
    assert whole["peak_memory_mib"] == 101  # of the first round
    assert "joules_per_image" not in whole
    assert found.empty == {"joules_per_image": "no counter"}
    net = next(row for row in found.rows if row["stage"] == "net")
    assert "gflops" not in net
    pair = found.pairs[0]
    assert (pair["approach"], pair["kind"], pair["batch_size"], pair["layout"]) == (
        "a",
        "A/A",
        1,
        "contiguous",
    )
    assert pair["ratio"] == pytest.approx(3)


def test_auto_ends_for_each_approach_where_a_doubling_gains_nothing_or_memory_ends():
    log = []
    slow = {1: 0.1, 2: 0.2, 4: 0.4}  # always 10 images a second
    fast = {1: 0.1, 2: 0.1, 4: 0.1, 8: FULL}
    found = measured([FakeWorker("a", slow, log), FakeWorker("b", fast, log)], batch_sizes="auto", repeats=4)
    sizes = {name: {row["batch_size"] for row in found.rows if row["approach"] == name} for name in "ab"}
    assert sizes == {"a": {1, 2}, "b": {1, 2, 4}}
    assert not found.failed  # the end of memory is what "auto" looks for
    assert "1 TiB" in found.empty["b, batches of 8 and more"]


def test_what_fails_has_a_reason_and_no_row_and_the_others_go_on():
    log = []
    broken = {"error": "RuntimeError: no compiler", "memory": False}
    workers = [FakeWorker("a", {1: broken}, log), FakeWorker("b", {1: 0.1, 8: FULL}, log)]
    found = measured(workers, batch_sizes=(1, 8), repeats=4, rounds=2)
    assert found.failed == {
        "a, batches of 1 and more": "RuntimeError: no compiler",
        "b, batches of 8": "OutOfMemoryError: 1 TiB",
    }
    assert {(row["approach"], row["batch_size"]) for row in found.rows} == {("b", 1)}
    assert len([entry for entry in log if entry[0] == "a"]) == 1  # not asked again


def test_batch_sizes_and_rounds():
    assert batch_sizes(TimingSpec(batch_sizes=(8, 1, 8)), "cpu") == [1, 8]
    assert batch_sizes(TimingSpec(batch_sizes="auto"), "cpu") == [1, 2, 4, 8, 16, 32, 64]
    assert batch_sizes(TimingSpec(batch_sizes="auto"), "cuda")[-1] == 1024
    assert batch_sizes(TimingSpec(batch_sizes="auto", largest_batch=6), "cuda") == [1, 2, 4]
    timing = TimingSpec(repeats=100, throughput_repeats=30)
    assert repeats_and_rounds(timing, 1) == (100, 10)
    assert repeats_and_rounds(timing, 8) == (30, 3)


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
def product_of_files(tmp_path):
    write_grey(tmp_path / "x.png", np.random.default_rng(0).random((20, 30)))
    return Stopwatch(Product(Settings(), CPU), [tmp_path / "x.png"])


def test_a_stopwatch_measures_stages_memory_and_operations(product_of_files, monkeypatch):
    speed = product_of_files.speed(3, repeats=4, warmup=1)
    assert list(speed["seconds"]) == ["decode", "prepare", "product", "finish", "whole"]
    assert {len(seconds) for seconds in speed["seconds"].values()} == {4}
    assert speed["copies"] == {"prepare", "finish", "whole"}
    assert speed["peak_memory_mib"] > 50
    monkeypatch.setattr("lungseg.timing.measure.PRODUCT_SIZE", {"cpu": 64})
    operations = product_of_files.operations()
    assert operations["gflops"] == pytest.approx(2 * 20 * 30 * 5 / 1e9)
    assert operations["peak_gflops_per_s"] > 0


def test_what_was_not_compiled_is_no_row_of_what_was(product_of_files, monkeypatch):
    assert product_of_files.operations()["compile_s"] is None
    monkeypatch.setattr(Product, "not_compiled", "no compiler here")
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
    assert product_speed(torch.device("cpu"), torch.bfloat16, 2048) == pytest.approx(2 * 1.024**3)
    assert sizes == [2048, 1024, 512, 512]


def test_a_worker_that_cannot_load_or_is_gone_is_a_reason_not_a_traceback(tmp_path):
    mine, theirs = multiprocessing.Pipe()
    process = SimpleNamespace(join=lambda timeout: None, exitcode=-signal.SIGKILL)
    worker = Worker(Candidate("x", "no-such", {}, tmp_path), False, mine, process)
    mine.send(("speed", 1, 1, 1))  # a question that waits: `work` runs in this process here
    other = SimpleNamespace(recv=iter_then_end([theirs.recv()]), send=theirs.send)
    work(other, Candidate("x", "no-such", {}, tmp_path), [], CPU)
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


VARIANTS = """
[[timing.variants]]
precision = "float32"
channels_last = false
[[timing.variants]]
compiled = true
approaches = ["pixels"]
"""


def test_variants_are_phases_after_the_runs_own_and_those_that_change_nothing_are_left_out(spec_file):
    spec_file.write_text(SPEC + VARIANTS)
    spec = read_spec(spec_file)
    plain = SimpleNamespace(spec=spec, runtime=CPU)
    assert [phase.label for phase in _phases(plain)[0]] == ["cpu", "cpu, float32, contiguous, compiled"]
    mixed = SimpleNamespace(spec=spec, runtime=Runtime(torch.device("cuda"), "bfloat16", True))
    (own, float32, compiled, cpu), problems = _phases(mixed)
    assert problems == {}
    assert [phase.label for phase in (own, float32, compiled, cpu)] == [
        "cuda",
        "cuda, float32, contiguous",
        "cuda, bfloat16, channels-last, compiled",
        "cpu",
    ]
    assert own.timing.twice
    assert not float32.timing.twice
    assert compiled.approaches == ("pixels",)
    assert cpu.timing.batch_sizes == (1,)


def test_a_cpu_beside_the_gpu_that_can_not_compile_is_said(spec_file, monkeypatch):
    monkeypatch.setattr("lungseg.harness.runtime.why_not_compiled", lambda device: "no C++ compiler")
    spec = read_spec(spec_file, ["runtime.compiled=true"])
    phases, problems = _phases(
        SimpleNamespace(spec=spec, runtime=Runtime(torch.device("cuda"), compiled=True))
    )
    assert [phase.runtime.compiled for phase in phases] == [True, False]
    assert problems == {"predictions by torch.compile on cpu": "no C++ compiler"}


def test_a_variant_of_an_unknown_approach_and_wrong_batch_sizes_name_their_key(spec_file):
    spec_file.write_text(SPEC + VARIANTS.replace("pixels", "pixel"))
    with pytest.raises(InputError, match=r"timing.variants names the approach 'pixel'.*mean-mask, pixels"):
        read_spec(spec_file)
    for value in ("all", "[0]", "[]"):
        spec_file.write_text(SPEC)
        with pytest.raises(InputError, match=r"timing\.batch_sizes"):
            read_spec(spec_file, [f"timing.batch_sizes={value}"])
    assert read_spec(spec_file, ["timing.batch_sizes=auto"]).timing.batch_sizes == "auto"


def test_the_estimate_grows_with_what_is_asked_for():
    plain = TimingSpec(batch_sizes=(1,), twice=False)
    once = estimated_seconds(plain, 2)
    assert estimated_seconds(plain.model_copy(update={"twice": True}), 2) == pytest.approx(2 * once)
    assert estimated_seconds(plain.model_copy(update={"batch_sizes": (1, 8)}), 2) > once
    assert estimated_seconds(plain.model_copy(update={"enabled": False}), 2) == 0
    variants = TimingSpec(batch_sizes=(1,), twice=False, variants=({"approaches": ("a",)}, {}))
    assert estimated_seconds(variants, 2) == pytest.approx(once + 1.5 * once)
