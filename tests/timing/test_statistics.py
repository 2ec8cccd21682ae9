import math
import time

import pytest

from lungseg.timing import statistics
from lungseg.timing.statistics import (
    compare,
    divide_repeats,
    find_slow_rounds,
    order_turns,
    still_gains,
    summarise_seconds,
    time_chain,
    warm_up,
)


def test_steps_feed_one_another_and_each_repeat_is_timed_once():
    seen = []
    steps = [("double", lambda v: v * 2), ("keep", lambda v: seen.append(v) or v)]
    seconds = time_chain(steps, 3, repeats=5, warmup=2, synchronise=lambda: None)
    assert {name: len(values) for name, values in seconds.items()} == {"double": 5, "keep": 5, "whole": 5}
    assert set(seen) == {6}
    assert len(seen) == 2 * (5 + 2)


def test_passes_in_steps_and_whole_ones_take_turns_in_coming_first():
    events = []
    steps = [("one", lambda v: events.append("call") or v), ("two", lambda v: events.append("call") or v)]
    time_chain(steps, 0, repeats=2, warmup=1, synchronise=lambda: events.append("wait"))
    by_step = ["wait", "call", "wait"] * 2
    whole = ["wait", "call", "call", "wait"]
    assert events == by_step + whole + whole + by_step + by_step + whole


def test_work_that_ends_after_the_call_is_counted_by_the_synchronisation():
    due = [0.0]

    def launch(value):
        due[0] = time.perf_counter() + 0.02  # as a GPU: returns at once, works on
        return value

    def synchronise():
        time.sleep(max(0.0, due[0] - time.perf_counter()))

    seconds = time_chain([("kernel", launch)], 0, repeats=3, warmup=1, synchronise=synchronise)
    assert min(seconds["kernel"]) >= 0.019
    assert min(seconds["whole"]) >= 0.019


def test_summary_reports_median_and_spread_not_the_best():
    summary = summarise_seconds([0.001, 0.002, 0.003, 0.004, 0.100], images=4)
    assert summary["median_ms"] == pytest.approx(3)
    assert summary["iqr_ms"] == pytest.approx(2)
    assert summary["p90_ms"] == pytest.approx(61.6)
    assert summary["images_per_s"] == pytest.approx(4 / 0.003)


def test_turns_go_there_and_back_with_all_repeats():
    assert list(order_turns(2, repeats=5, rounds=2)) == [(0, 3), (1, 3), (1, 2), (0, 2)]
    assert divide_repeats(4, 10) == [1, 1, 1, 1]  # no round without a call
    assert sum(divide_repeats(100, 7)) == 100


def test_a_larger_batch_gains_only_by_a_twentieth_over_the_best_so_far():
    assert still_gains([10.0])
    assert still_gains([10.0, 10.5])
    assert not still_gains([10.0, 10.4])
    assert not still_gains([10.0, 20.0, 18.0])
    assert not still_gains([20.0, 18.0, 20.5])


def test_pairs_by_hand():
    first = {"a": [10.0, 20.0, 10.0], "b": [11.0, 22.0, 12.0], "c": [30.0, 60.0, 30.0]}
    again = {"a": [10.0, 21.0, 8.0], "b": [11.0, 22.0, 12.6], "c": [30.0, 60.0, 30.0]}
    rows = {(row["approach"], row["other"]): row for row in compare(first, again)}
    assert list(rows) == [("a", "a"), ("b", "b"), ("c", "c"), ("a", "b"), ("a", "c"), ("b", "c")]

    noise = rows["a", "a"]  # rounds 1, 1.05 and 0.8
    assert (noise["kind"], noise["rounds"], noise["distinguishable"]) == ("A/A", 3, None)
    assert [noise[key] for key in ("ratio", "low", "high")] == pytest.approx([1, 0.8, 1.05])

    close = rows["a", "b"]  # rounds 1.1, 1.1 and 1.2: less than a's 1 / 0.8 = 1.25
    assert (close["kind"], close["distinguishable"]) == ("A/B", False)
    assert [close[key] for key in ("ratio", "low", "high")] == pytest.approx([1.1, 1.1, 1.2])
    assert rows["a", "c"]["ratio"] == pytest.approx(3)
    assert rows["a", "c"]["distinguishable"] is True
    assert rows["b", "c"]["distinguishable"] is True


def test_noise_counts_in_either_direction_and_of_either_approach():
    quiet, loud = {"a": [1.0, 1.0]}, {"b": [1.3, 1.3]}
    for factor in (0.7, 1 / 0.7):  # |log 0.7| > log 1.3
        again = {"a": [1.0, 1.0], "b": [1.3, 1.3 * factor]}
        assert compare(quiet | loud, again)[-1]["distinguishable"] is False
        assert compare(loud | quiet, again)[-1]["distinguishable"] is False
    assert compare(quiet | loud, {"a": [1.0, 1.1], "b": [1.3, 1.3]})[-1]["distinguishable"] is True


def test_without_a_second_process_nothing_is_called_distinguishable():
    rows = compare({"a": [1.0], "b": [2.0], "c": [3.0]}, {"a": [1.0]})
    assert [row["kind"] for row in rows] == ["A/A", "A/B", "A/B", "A/B"]
    assert all(row["distinguishable"] is None for row in rows)
    assert math.log(rows[-1]["ratio"]) == pytest.approx(math.log(1.5))


class Clock:
    """Time that moves by what calls take, in the place of `time`."""

    now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr(statistics, "time", found)
    return found


@pytest.mark.parametrize(
    ("readings", "seconds"),
    [
        ([345, 900, 1600, 1750, 1755, 1755], 1.25),  # until two periods agree within 2 %
        ([1755, 1755], 0.5),
        ([None, None], 0.5),  # without NVML
        ([1000, 2000] * 10, 5.0),  # never steady
    ],
)
def test_a_device_is_warmed_up_until_its_clock_is_steady(clock, readings, seconds):
    left, calls = list(readings), []

    def call():
        calls.append(1)
        clock.now += 0.0625

    warm_up(call, lambda: left.pop(0))
    assert clock.now == seconds
    assert len(calls) == seconds / 0.0625


def test_a_round_that_is_too_short_has_more_repeats(clock):
    def step(value):
        clock.now += 0.125
        return value

    found = time_chain([("a", step), ("b", step)], 0, 2, 1, lambda: None)
    assert {name: len(seconds) for name, seconds in found.items()} == {"a": 2, "b": 2, "whole": 2}
    found = time_chain([("a", step), ("b", step)], 0, 2, 1, lambda: None, least_s=2.0)
    # A repeat takes 0.5 s: a and b alone, then together.
    assert {name: len(seconds) for name, seconds in found.items()} == {"a": 4, "b": 4, "whole": 4}
    assert set(found["whole"]) == {0.25}


def test_a_round_with_a_low_clock_is_found():
    assert find_slow_rounds([1755, 1740, 1600, 1755, 1668]) == [2]  # below .95 x 1740 = 1653
    assert find_slow_rounds([1755, None, 1600, 1755]) == [2]
    assert find_slow_rounds([None, None]) == find_slow_rounds([]) == []
