"""How fast: repeated, warmed-up, synchronised calls, reported by median and spread, never by the best."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np


def time_chain(
    steps: Sequence[tuple[str, Callable]],
    value: object,
    repeats: int,
    warmup: int,
    synchronise: Callable[[], None],
) -> dict[str, list[float]]:
    """Times named steps that feed one another, each alone, and all of them together.

    Args:
        steps: name and function; the first gets `value`, each other what the one before returned.
        value: input of the first step.
        repeats: timed passes.
        warmup: passes before them that are not timed.
        synchronise: waits until the device has finished; a GPU returns from a call before the work is done.

    Returns:
        seconds of each repeat by step name, and under "whole" those of passes without a wait between steps.
    """
    seconds: dict[str, list[float]] = {name: [] for name, _ in steps} | {"whole": []}
    for number in range(warmup + repeats):
        timed = number >= warmup
        current = value
        for name, step in steps:
            synchronise()
            start = time.perf_counter()
            current = step(current)
            synchronise()
            if timed:
                seconds[name].append(time.perf_counter() - start)
        start = time.perf_counter()
        current = value
        for _, step in steps:
            current = step(current)
        synchronise()
        if timed:
            seconds["whole"].append(time.perf_counter() - start)
    return seconds


def summarise_seconds(seconds: Sequence[float], images: int) -> dict[str, float]:
    """median_ms, iqr_ms, p90_ms of calls, and images_per_s by the median.

    Args:
        seconds: one number a call.
        images: in each call.
    """
    milliseconds = np.asarray(seconds) * 1e3
    low, median, high, p90 = np.percentile(milliseconds, [25, 50, 75, 90])
    return {
        "median_ms": median,
        "iqr_ms": high - low,
        "p90_ms": p90,
        "images_per_s": images / median * 1e3,
    }
