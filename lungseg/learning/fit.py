"""What the harness gives to a fit, and what the fit reports back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass
class FitContext:
    """What the harness gives to a fit.

    Attributes:
        seed: fixes everything random in the fit.
        checkpoints: a folder of this trial alone. What a fit stores there is still there after a kill.
        history: called once a step with step=int, unit="epoch" (or "round", "stage") and the losses and
            accuracies that are columns of history.csv.
        progress: called with (done, total, text) to move the progress bar.
        score: computes the mean Dice of the maps of all validation samples, in the order of the samples.
        scores: computes the Dice of each map, of the validation samples with the given indices.
    """

    seed: int
    checkpoints: Path
    history: Callable[..., None]
    progress: Callable[[int, int, str], None]
    score: Callable[[Iterable[np.ndarray]], float]
    scores: Callable[[Iterable[np.ndarray], Sequence[int]], list[float]] | None = None


@dataclass
class FitReport:
    """What a fit reports about itself: a row of training.csv.

    Attributes:
        unit: "images" or "rows".
        items: how many of them went through training; each epoch counts.
        parameters: fitted numbers; None if the approach can't tell.
        best_step: the epoch or round that was kept, where there are several.
        wait_share: share of the time in which the device waited for data or a checkpoint was written.
        seconds_before: seconds of former sessions that this fit went on from.
    """

    unit: str
    items: int
    parameters: int | None = 0
    best_step: int | None = None
    wait_share: float | None = None
    seconds_before: float = 0.0
