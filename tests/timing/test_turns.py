"""The clock: who is measured when, what becomes of the answers, and of those that fail."""

import pytest
import torch

from lungseg.spec import TimingSpec
from lungseg.system.runtime import Runtime
from lungseg.timing.turns import START_SECONDS, Pace, _Clock, expect_seconds, list_batch_sizes, plan_rounds

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


def measured(workers, progress=lambda done, total, text: None, **timing):
    spec = TimingSpec(**timing)
    pace, sizes = Pace(progress), list_batch_sizes(spec, "cpu")
    pace.expect(expect_seconds(spec, 2, sizes, spec.twice) - 2 * (1 + spec.twice) * START_SECONDS)
    clock = _Clock(["a", "b"], (60, 50), CPU, spec, pace)
    clock.measure_all(workers, sizes)
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
    assert list_batch_sizes(TimingSpec(batch_sizes=(8, 1, 8)), "cpu") == [1, 8]
    assert list_batch_sizes(TimingSpec(batch_sizes="auto"), "cpu") == [1, 2, 4, 8, 16, 32, 64]
    assert list_batch_sizes(TimingSpec(batch_sizes="auto"), "cuda")[-1] == 1024
    assert list_batch_sizes(TimingSpec(batch_sizes="auto", largest_batch=6), "cuda") == [1, 2, 4]
    timing = TimingSpec(repeats=100, throughput_repeats=30)
    assert plan_rounds(timing, 1) == (100, 10)
    assert plan_rounds(timing, 8) == (30, 3)


def both(seconds, log, twice=(False, True)):
    return [FakeWorker(name, seconds, log, again) for again in twice for name in "ab"]


def test_the_progress_moves_by_the_time_of_a_step_and_is_full_after_the_last_one():
    log, moved = [], []
    measured(both({1: 0.1, 8: 0.8}, log), lambda done, total, text: moved.append((done, len(log), text)))
    done = [step for step, _, _ in moved]
    assert done == sorted(done)
    assert done[-1] == 1000
    before_last = next(step for step, _, text in reversed(moved) if "batches of 1" in text)
    assert before_last < 700  # larger batches take most of the time
    # Nothing but energy, for which there is no counter, is asked after the last step.
    assert {entry[1] for entry in log[moved[-1][1] :]} <= {"energy", "close"}


def test_the_progress_is_never_full_before_the_end_of_auto():
    moved, log = [], []
    faster = {2**power: 0.1 for power in range(7)}  # always gains, beyond the doublings that are expected
    measured(
        both(faster, log, (False,)),
        lambda done, total, text: moved.append(done),
        batch_sizes="auto",
        twice=False,
        repeats=4,
    )
    assert moved[-1] == 1000
    assert moved[-5] < 1000
