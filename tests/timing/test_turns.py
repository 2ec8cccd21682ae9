"""The clock: who is measured when, what becomes of the answers, and of those that fail."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from lungseg.spec import TimingSpec
from lungseg.system.runtime import Runtime
from lungseg.timing import turns
from lungseg.timing.measure import Candidate
from lungseg.timing.pace import START_SECONDS, Pace, expect_seconds, list_batch_sizes, plan_rounds
from lungseg.timing.processes import group_candidates
from lungseg.timing.turns import _Clock, time_approaches

CPU, GPU = Runtime(torch.device("cpu")), Runtime(torch.device("cuda"))
FULL = {"error": "OutOfMemoryError: 1 TiB", "memory": True}


class FakeWorker:
    """Answers as a timing process would.

    `seconds` gives a call's time by batch size (or that of the stage on the device and of the whole), or what
    went wrong.
    """

    def __init__(self, name, seconds, log, again=False, states=(), copies=("whole",)):
        self.name, self.again, self._seconds, self._log = name, again, seconds, log
        self._states = list(states)  # of the GPU, in each answer
        self._copies = set(copies)

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
        net, seconds = seconds if isinstance(seconds, tuple) else (seconds, seconds)
        calls = {"decode": [0.5], "net": [net] * repeats, "whole": [seconds] * repeats}
        memory = {"peak_memory_mib": 100.0 + len(self._log), "host_memory_mib": 7.0}
        program = {"graph": "replayed", "folded": "yes", "deterministic": "yes"}
        state = self._states.pop(0) if self._states else {}
        answer = {
            "seconds": calls,
            "copies": self._copies,
            "memory": memory,
            "program": program,
            "state": state,
        }
        return answer

    def close(self):
        self._log.append((self.name + "'" * self.again, "close"))


def measured(workers, progress=lambda done, total, text: None, runtime=CPU, **timing):
    spec = TimingSpec(**timing)
    pace, sizes = Pace(progress), list_batch_sizes(spec, "cpu")
    pace.expect(expect_seconds(spec, 2, sizes, spec.twice) - 2 * (1 + spec.twice) * START_SECONDS)
    clock = _Clock(["a", "b"], (60, 50), runtime, spec, pace)
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
    assert (whole["tuned"], whole["graph"], whole["folded"], whole["deterministic"]) == (
        True,
        "replayed",
        "yes",
        "yes",
    )
    assert whole["device_images_per_s"] == pytest.approx(10)
    assert whole["host_memory_mib"] == 7
    assert "sm_clock_mhz" not in whole
    assert found.rounds == []
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


def test_on_a_gpu_auto_goes_by_the_device_not_by_the_host():
    # The device doubles its images/s each time; resizing on the host leaves 10 images/s of the whole.
    seconds = {1: (0.1, 0.1), 2: (0.1, 0.2), 4: (0.1, 0.4), 8: (0.2, 0.8)}
    for runtime, last in ((CPU, 2), (GPU, 8)):
        worker = FakeWorker("a", seconds, [])
        found = measured([worker], runtime=runtime, batch_sizes="auto", repeats=4)
        assert max(row["batch_size"] for row in found.rows) == last
    whole = next(row for row in found.rows if (row["stage"], row["batch_size"]) == ("whole", 4))
    assert (whole["images_per_s"], whole["device_images_per_s"]) == (pytest.approx(10), pytest.approx(40))


def test_a_stage_that_copies_is_no_throughput_of_the_device():
    workers = [FakeWorker("a", {1: 0.1}, [], copies=("whole", "net")), FakeWorker("b", {1: 0.1}, [])]
    found = measured(workers, runtime=GPU, batch_sizes=(1,), repeats=4)
    whole = {row["approach"]: row for row in found.rows if row["stage"] == "whole"}
    assert "device_images_per_s" not in whole["a"]
    assert whole["b"]["device_images_per_s"] == pytest.approx(10)


def state(clock, throttle=()):
    return {"sm_clock_mhz": clock, "power_w": clock / 4, "temperature_c": 50, "throttle": list(throttle)}


def test_a_round_with_a_low_clock_is_void_and_measured_again_with_all_that_it_is_compared_with():
    log = []
    # The second of three rounds is slow once: 1000 is below .95 x 1700.
    a = FakeWorker(
        "a", {1: 0.1}, log, states=[state(1700), state(1000, ["power cap"]), state(1700), state(1690)]
    )
    b = FakeWorker("b", {1: 0.2}, log, states=[state(1500)] * 4)
    found = measured([a, b], runtime=GPU, batch_sizes=(1,), repeats=6, rounds=3, twice=False)
    assert [entry[0] for entry in log if entry[1] == "speed"] == [*"abba", *"ab", *"ba"]
    whole = next(row for row in found.rows if (row["approach"], row["stage"]) == ("a", "whole"))
    assert (whole["sm_clock_mhz"], whole["void_rounds"], whole["repeats"]) == (1700, 1, 6)
    assert whole["throttle"] == ""  # of the rounds that count
    assert [(one["round"], one["sm_clock_mhz"]) for one in found.rounds if one["void"]] == [
        *((1, 1500), (1, 1000))  # in the order of their second turn
    ]
    assert [one["sm_clock_mhz"] for one in found.rounds if one["approach"] == "a" and not one["void"]] == [
        *(1700, 1690, 1700)
    ]
    assert not [what for what in found.empty if "clock" in what]


def test_a_clock_that_never_recovers_ends_in_a_reason_and_not_in_an_endless_run():
    log = []
    states = [state(1700), state(1000), state(1700), *[state(1000)] * 9]
    found = measured(
        [FakeWorker("a", {1: 0.1}, log, states=states)], runtime=GPU, batch_sizes=(1,), repeats=6, rounds=3
    )
    assert len([entry for entry in log if entry[1] == "speed"]) == 3 + 2
    assert found.empty["a steady clock of a, batches of 1"] == (
        "1 of 3 rounds were below 95 % of the median clock, though measured 3 times"
    )
    assert {row["void_rounds"] for row in found.rows if row["stage"] == "whole"} == {2}


def test_a_worker_that_fails_while_a_round_is_measured_again_has_no_row_and_the_others_go_on():
    log = []

    class Dies(FakeWorker):
        def ask(self, method, *arguments):
            died = method == "speed" and len([entry for entry in log if entry[0] == "a"]) == 3
            return super().ask(method, *arguments) | ({"error": "killed", "memory": False} if died else {})

    a = Dies("a", {1: 0.1}, log, states=[state(1700), state(1000), state(1700)])
    b = FakeWorker("b", {1: 0.2}, log, states=[state(1500)] * 4)
    found = measured([a, b], runtime=GPU, batch_sizes=(1,), repeats=6, rounds=3, twice=False)
    assert {row["approach"] for row in found.rows} == {"b"}
    assert found.failed == {"a, batches of 1": "killed"}


def test_groups_share_the_first_candidate_which_has_its_rows_once():
    log = []
    clock = _Clock([*"abc"], (60, 50), GPU, TimingSpec(batch_sizes=(1, 8), repeats=4), Pace(lambda *_: None))
    for group in ("ab", "ac"):
        clock.pace.expect(1000)
        clock.measure_all(
            [FakeWorker(x, {1: 0.1, 8: 0.2}, log, again) for again in (False, True) for x in group], [1, 8]
        )
    rows = [(row["approach"], row["batch_size"]) for row in clock.timings.rows if row["stage"] == "whole"]
    assert rows == [("a", 1), ("a", 8), ("b", 1), ("b", 8), ("c", 1), ("c", 8)]
    pairs = [(row["approach"], row["other"], row["distinguishable"]) for row in clock.timings.pairs]
    assert pairs == [
        *(("a", "a", None), ("b", "b", None), ("a", "b", False), ("c", "c", None), ("a", "c", False))
    ]
    of_a = [entry for entry in log if entry[0] == "a" and entry[1] == "speed" and entry[2] == 8]
    assert len(of_a) == 3  # rounds: not again at the larger size, where nothing is compared


def test_what_does_not_fit_together_is_timed_in_groups_one_after_the_other(monkeypatch, tmp_path):
    started, moved = [], []

    @contextmanager
    def start(group, twice, files, runtime, progress):
        started.append("".join(one.name for one in group))
        yield [FakeWorker(one.name, {1: 0.1}, [], again) for again in (False, True) for one in group]

    monkeypatch.setattr(turns, "start_workers", start)
    monkeypatch.setattr(turns, "energy_seconds", lambda device: 0.0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (7 * 2**30, 8 * 2**30))
    found = time_approaches(
        [Candidate(name, "x", {}, tmp_path) for name in "abc"],
        [np.zeros((4, 5), np.float32)],
        GPU,
        TimingSpec(batch_sizes=(1,), repeats=4),
        lambda done, total, text: moved.append(done),
    )
    assert started == ["ab", "ac"]
    assert [row["approach"] for row in found.rows if row["stage"] == "whole"] == [*"abc"]
    assert "2 groups" in found.empty["ratios of two approaches"]
    assert moved == sorted(moved)


@pytest.mark.parametrize(
    ("free_gib", "twice", "shared", "groups"),
    [
        (140, True, True, ["abcde"]),
        (7, True, True, ["ab", "ac", "ad", "ae"]),  # four processes
        (7, False, True, ["abcd", "ae"]),
        (7, False, False, ["abcd", "e"]),  # nothing is compared
        (1, True, True, ["ab", "ac", "ad", "ae"]),  # fewer can't be compared; what doesn't fit has a reason
    ],
)
def test_processes_that_are_alive_at_once_fit_into_a_gpus_free_memory(
    monkeypatch, tmp_path, free_gib, twice, shared, groups
):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free_gib * 2**30, 160 * 2**30))
    candidates = [Candidate(name, "x", {}, tmp_path) for name in "abcde"]
    found = group_candidates(candidates, twice, shared, GPU.device)
    assert ["".join(one.name for one in group) for group in found] == groups
    assert group_candidates(candidates, twice, shared, CPU.device) == [candidates]


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
