"""Ways to do the same thing, timed in turns A B, B A: a drift of the machine meets all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from lungseg.timing.statistics import Steps, compare, time_chain, turns

ROUNDS, WARMUP = 8, 1


@dataclass
class Measured:
    """Seconds of every repeat, by step and "whole", and the median "whole" of each round."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    medians: list[float] = field(default_factory=list)

    def faster_than(self, other: Measured) -> dict[str, float]:
        """How many times, by rounds: their median, the smallest and the largest."""
        row = compare({"own": self.medians, "other": other.medians}, {})[0]
        return {"times as fast": row["ratio"], "lowest": row["low"], "highest": row["high"]}

    def percentiles(self, step: str = "whole") -> np.ndarray:
        """Seconds of a repeat: 10th percentile, median, 90th percentile."""
        return np.percentile(self.seconds[step], [10, 50, 90])


def take_turns(chains: Mapping[str, Steps], value: Callable[[int], Any], repeats: int) -> dict[str, Measured]:
    """Times chains of steps (see `time_chain`) in turn.

    Args:
        chains: by name.
        value: of a round's number; what all chains start from in that round.
        repeats: of each chain over all rounds.
    """
    names = list(chains)
    found = {name: Measured() for name in names}
    with torch.inference_mode():
        for number, (index, share) in enumerate(turns(len(names), repeats, ROUNDS)):
            one = found[names[index]]
            start = value(number // len(names))
            seconds = time_chain(chains[names[index]], start, share, WARMUP, synchronise)
            one.medians.append(float(np.median(seconds["whole"])))
            for step, taken in seconds.items():
                one.seconds.setdefault(step, []).extend(taken)
    return found


def synchronise() -> None:
    """Waits for the GPU, if there is one: it returns from a call before the work is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
