"""Ways to do the same thing, timed in turns A B, B A, so that a drift of the machine affects all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from lungseg.timing.statistics import Steps, compare, order_turns, time_chain

ROUNDS, WARMUP = 8, 1


@dataclass
class Measured:
    """Seconds of every repeat, by step and "whole", and the median "whole" of each round."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    medians: list[float] = field(default_factory=list)

    @property
    def repeats(self) -> int:
        """The number of whole passes that were timed."""
        return len(self.seconds["whole"])

    def compare_with(self, other: Measured) -> dict[str, float]:
        """Return how many times as fast this one is: the median of the rounds, the lowest and the highest."""
        row = compare({"own": self.medians, "other": other.medians}, {})[0]
        return {"times as fast": row["ratio"], "lowest": row["low"], "highest": row["high"]}

    def percentiles(self, step: str = "whole") -> np.ndarray:
        """Return seconds of a repeat: 10th percentile, median, 90th percentile."""
        return np.percentile(self.seconds[step], [10, 50, 90])

    def row_speed(self, rows: int) -> dict[str, float]:
        """Return table cells for a pass over so many rows; p10 is the slower end."""
        slow, median, fast = rows / self.percentiles()[::-1] / 1e6
        return {"million rows/s": median, "p10": slow, "p90": fast, "repeats": self.repeats}


def take_turns(chains: Mapping[str, Steps], value: Callable[[int], Any], repeats: int) -> dict[str, Measured]:
    """Time chains of steps (see `time_chain`) in turn.

    Args:
        chains: by name.
        value: gives the input of all chains in a round, from the round's number.
        repeats: of each chain, over all rounds.
    """
    names = list(chains)
    found = {name: Measured() for name in names}
    with torch.inference_mode():
        for number, (index, share) in enumerate(order_turns(len(names), repeats, ROUNDS)):
            one = found[names[index]]
            start = value(number // len(names))
            seconds = time_chain(chains[names[index]], start, share, WARMUP, synchronise)
            one.medians.append(float(np.median(seconds["whole"])))
            for step, taken in seconds.items():
                one.seconds.setdefault(step, []).extend(taken)
    return found


def synchronise() -> None:
    """Wait for the GPU, if there is one: it returns from a call before the work is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
