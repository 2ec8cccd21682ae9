"""What a fit is given, and what it reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass
class FitContext:
    """What the harness hands to a fit.

    Attributes:
        seed: fixes everything random in the fit.
        checkpoints: a folder of this part alone; what a fit stores there survives a kill.
        history: call with step=int, unit="epoch" and losses/accuracies of HISTORY_COLUMNS, once a step.
        progress: call with (done, total, text) to move the bar.
        score: the benchmark's own Dice of validation maps, in the order of the validation samples.
        scores: the same image by image, of maps of the validation samples with these indices.
    """

    seed: int
    checkpoints: Path
    history: Callable[..., None]
    progress: Callable[[int, int, str], None]
    score: Callable[[Iterable[np.ndarray]], float]
    scores: Callable[[Iterable[np.ndarray], Sequence[int]], list[float]] | None = None


@dataclass
class FitReport:
    """What a fit reports about itself, for training.csv."""

    unit: str  # "images" or "rows"
    items: int  # how many of them were passed through training, epochs counted
    parameters: int = 0
    best_step: int | None = None
    wait_share: float | None = None  # of the time: no data yet, or a state was stored
    seconds_before: float = 0.0  # spent by former sittings that this fit went on from
