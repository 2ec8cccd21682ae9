"""Time repeated calls and summarise the times by median and spread, never by the best."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

Steps = Sequence[tuple[str, Callable]]
LEAST_GAIN = 0.05  # of images/s, for which "auto" goes on to larger batches
# A clock is steady if it differs by less than this share between two periods of warming up, in seconds.
STEADY, WARM_PERIOD, MOST_PERIODS = 0.02, 0.25, 20
LEAST_CLOCK = 0.95  # of the median clock, below which a round doesn't count


def run_steps(steps: Steps, value: Any) -> Any:
    """Run named steps that feed one another, and return what the last one returns."""
    for _, step in steps:
        value = step(value)
    return value


def warm_up(call: Callable[[], object], read_clock: Callable[[], float | None]) -> None:
    """Repeat a call for at least half a second, and on until the device's clock is steady, at most 5 s.

    `call` returns when the device has finished. `read_clock` returns the clock in any unit, or None if it is
    unknown; then half a second must do.
    """
    before = None
    for _ in range(MOST_PERIODS):
        start = time.perf_counter()
        while time.perf_counter() - start < WARM_PERIOD:
            call()
        clock = read_clock()
        if before is not None and (not clock or abs(clock - before) < STEADY * before):
            return
        before = clock or 0.0


def find_slow_rounds(clocks: Sequence[float | None]) -> list[int]:
    """Return the numbers of the rounds whose clock is below 95 % of the median; unknown ones aren't."""
    known = [clock for clock in clocks if clock]
    least = LEAST_CLOCK * float(np.median(known)) if known else 0.0
    return [number for number, clock in enumerate(clocks) if clock and clock < least]


def time_chain(
    steps: Steps,
    value: object,
    repeats: int,
    warmup: int,
    synchronise: Callable[[], None],
    least_s: float = 0.0,
) -> dict[str, list[float]]:
    """Time the steps of `run_steps`, each alone, and all of them together.

    Passes with a stop after each step alternate with passes without stops, in changing order. So both meet
    the same state of caches, allocator and clock rate, and the steps add up to the whole. `warmup` passes
    before the repeats are not timed. There are more repeats if they take less than `least_s` seconds.
    `synchronise` waits until the device has finished: a GPU returns from a call before the work is done.

    Returns:
        seconds of each repeat by step name; under "whole", those of passes without stops.
    """
    seconds: dict[str, list[float]] = {name: [] for name, _ in steps} | {"whole": []}
    passes = [steps, [("whole", partial(run_steps, steps))]]
    number, start = 0, time.perf_counter()
    while number < warmup + repeats or time.perf_counter() - start < least_s:
        if number == warmup:
            start = time.perf_counter()
        for one in passes if number % 2 == 0 else reversed(passes):
            for name, taken in _time_steps(one, value, synchronise).items():
                if number >= warmup:
                    seconds[name].append(taken)
        number += 1
    return seconds


def _time_steps(steps: Steps, value: object, synchronise: Callable[[], None]) -> dict[str, float]:
    seconds = {}
    for name, step in steps:
        synchronise()
        start = time.perf_counter()
        value = step(value)
        synchronise()
        seconds[name] = time.perf_counter() - start
    return seconds


def summarise_seconds(seconds: Sequence[float], images: int) -> dict[str, float]:
    """Summarise the times of calls: median_ms, iqr_ms, p90_ms, and images_per_s by the median."""
    milliseconds = np.asarray(seconds) * 1e3
    low, median, high, p90 = np.percentile(milliseconds, [25, 50, 75, 90])
    return {"median_ms": median, "iqr_ms": high - low, "p90_ms": p90, "images_per_s": images / median * 1e3}


def divide_repeats(repeats: int, rounds: int) -> list[int]:
    """Divide repeats among rounds as evenly as possible; there are fewer rounds if repeats are fewer."""
    rounds = min(rounds, repeats)
    return [len(range(number, repeats, rounds)) for number in range(rounds)]


def order_turns(count: int, repeats: int, rounds: int) -> Iterator[tuple[int, int]]:
    """Yield (which of `count` is measured, its repeats) in the order of measuring: A B, B A, A B ...

    The order reverses each round, so that a drift of the machine affects all alike.
    """
    for number, share in enumerate(divide_repeats(repeats, rounds)):
        order = range(count) if number % 2 == 0 else range(count - 1, -1, -1)
        for index in order:
            yield index, share


def still_gains(images_per_s: Sequence[float]) -> bool:
    """Return whether the last of growing batch sizes is faster than the best before by at least 5 %."""
    *before, last = images_per_s
    return not before or last >= (1 + LEAST_GAIN) * max(before)


def compare(
    medians: Mapping[str, Sequence[float]], again: Mapping[str, Sequence[float]]
) -> list[dict[str, Any]]:
    """Make the rows of timing_pairs.csv, without the columns that say how they were measured.

    A ratio is taken within a round, where a drift of the machine affects both, and summarised by the median
    over rounds. A/A compares two processes of the same approach: it shows the noise of the measurement. Two
    approaches are distinguishable if |log ratio| exceeds every A/A round's |log ratio| of both.

    Args:
        medians: by approach, the median time of each round, in any unit.
        again: the same of a second process; approaches that are missing here have no A/A row.

    Returns:
        A/A rows, then A/B rows of every pair. `distinguishable` is None for A/A, and if either approach has
        no A/A row.
    """
    rows = []
    noise: dict[str, float] = {}
    for name in medians:
        if name in again:
            spread = _spread_of_ratios(again[name], medians[name])
            noise[name] = max(abs(math.log(spread[end])) for end in ("low", "high"))
            rows.append({"approach": name, "other": name, "kind": "A/A", **spread})
    for name, other in combinations(medians, 2):
        spread = _spread_of_ratios(medians[other], medians[name])
        known = name in noise and other in noise
        apart = abs(math.log(spread["ratio"])) > max(noise[name], noise[other]) if known else None
        rows.append({"approach": name, "other": other, "kind": "A/B", **spread, "distinguishable": apart})
    return [{"distinguishable": None, **row} for row in rows]


def _spread_of_ratios(above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    ratios = [one / other for one, other in zip(above, below, strict=True)]
    return {"rounds": len(ratios), "ratio": float(np.median(ratios)), "low": min(ratios), "high": max(ratios)}
