import time

import pytest

from lungseg.scoring.timing import summarise_seconds, time_chain


def test_steps_feed_one_another_and_each_repeat_is_timed_once():
    seen = []
    steps = [("double", lambda v: v * 2), ("keep", lambda v: seen.append(v) or v)]
    seconds = time_chain(steps, 3, repeats=5, warmup=2, synchronise=lambda: None)
    assert {name: len(values) for name, values in seconds.items()} == {"double": 5, "keep": 5, "whole": 5}
    assert set(seen) == {6}
    assert len(seen) == 2 * (5 + 2)


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
