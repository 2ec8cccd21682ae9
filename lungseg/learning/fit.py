"""What the harness gives to a fit, and what the fit reports back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass
class FitContext:
    """What the harness gives to a fit."""

    seed: int  # fixes everything random in the fit
    checkpoints: Path  # a folder of this trial alone; what a fit stores there is still there after a kill
    # Called once a step with step=int, unit="epoch" (or "round", "stage") and the losses and accuracies that
    # are columns of history.csv.
    history: Callable[..., None]
    progress: Callable[[int, int, str], None]  # called with (done, total, text) to move the progress bar
    # Computes the mean Dice of the maps of all validation samples, in their order.
    score: Callable[[Iterable[np.ndarray]], float]
    # Computes the Dice of each map, of the validation samples with the given indices.
    scores: Callable[[Iterable[np.ndarray], Sequence[int]], list[float]] | None = None


@dataclass
class FitReport:
    """What a fit reports about itself: a row of training.csv."""

    unit: str  # "images" or "rows"
    items: int  # how many of them went through training; each epoch counts
    parameters: int | None = 0  # fitted numbers; None if the approach can't tell
    best_step: int | None = None  # the epoch or round that was kept, where there are several
    wait_share: float | None = None  # share of the time in which the device waited for data or a checkpoint
    seconds_before: float = 0.0  # of former sessions that this fit went on from
    busy_share: float | None = None  # share of the time in which a GPU computed; None if it isn't known
    accumulation_steps: int | None = None  # parts of a batch whose gradients were summed up before a step
