"""Which batch sizes and rounds are timed, and how long that takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from lungseg.spec import TimingSpec
from lungseg.timing.energy import NoEnergyCounterError, open_counter
from lungseg.timing.measure import ENERGY_SECONDS
from lungseg.timing.statistics import divide_repeats

LARGEST_BATCH = {"cpu": 64, "cuda": 1024}
CALLS_A_ROUND = 10  # at least, for batches larger than one
# Rules of thumb for the time left: the start of a process, an image of a call, what is measured once of an
# approach (its operations and the device's matrix product), and the doublings that "auto" goes through.
START_SECONDS, IMAGE_SECONDS, ONCE_SECONDS, DOUBLINGS = 3.0, 0.03, 3.0, 4


def list_batch_sizes(timing: TimingSpec, device: str) -> list[int]:
    """Return the batch sizes to measure, growing; with "auto" timing may end before the last one."""
    if timing.batch_sizes != "auto":
        return sorted(set(timing.batch_sizes))
    largest = timing.largest_batch or LARGEST_BATCH[device]
    return [2**power for power in range(largest.bit_length())]


def plan_rounds(timing: TimingSpec, batch_size: int) -> tuple[int, int]:
    """Return the timed calls of one batch size, and the number of rounds they are divided into."""
    if batch_size == 1:
        return timing.repeats, timing.rounds
    rounds = max(1, timing.throughput_repeats // CALLS_A_ROUND)
    return timing.throughput_repeats, min(rounds, timing.rounds)


def expect_seconds(
    timing: TimingSpec, candidates: int, sizes: Sequence[int], twice: bool, energy_s: float = 0.0
) -> float:
    """Estimate the seconds of all processes and batch sizes by rules of thumb."""
    likely = sizes[:DOUBLINGS] if timing.batch_sizes == "auto" else sizes
    one = START_SECONDS + ONCE_SECONDS + seconds_of_sizes(timing, likely, energy_s)
    again = START_SECONDS + _seconds_of_size(timing, 1) if twice else 0.0
    return candidates * (one + again)


def energy_seconds(device: torch.device) -> float:
    """Return the seconds that measuring the energy of a batch size takes; 0 without a counter."""
    try:
        open_counter(device)
    except NoEnergyCounterError:
        return 0.0
    return ENERGY_SECONDS


def seconds_of_sizes(timing: TimingSpec, sizes: Sequence[int], energy_s: float) -> float:
    """Estimate the seconds of one process for all its batch sizes."""
    return sum(_seconds_of_size(timing, size) + energy_s for size in sizes)


def _seconds_of_size(timing: TimingSpec, size: int) -> float:
    return sum(seconds_of_turn(timing, size, share) for share in divide_repeats(*plan_rounds(timing, size)))


def seconds_of_turn(timing: TimingSpec, size: int, share: int) -> float:
    """Estimate the seconds of a round of one process: each call is made by stages and as a whole."""
    return 2 * (share + timing.warmup) * size * IMAGE_SECONDS


class Pace:
    """Moves a progress by the seconds that a step is expected to take, so that its bar moves evenly."""

    def __init__(self, progress: Callable[[int, int, str], None]) -> None:
        self._progress = progress
        self._done = self._total = 0.0

    def expect(self, seconds: float) -> None:
        """Set how many seconds are left, by estimate."""
        self._total = self._done + seconds

    def step(self, seconds: float, text: str) -> None:
        """Report a step that should have taken so many seconds."""
        self._done += seconds
        self._progress(round(1000 * min(1.0, self._done / self._total)), 1000, text)
