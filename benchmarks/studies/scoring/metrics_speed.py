"""How long the metrics of one image take, ours and MONAI's.

`python -m benchmarks.studies.scoring.metrics_speed`

One thread. Ours and MONAI's take turns within each repeat, so that a drift of the machine meets both.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.studies.scoring.pairs import Pair, deform
from benchmarks.studies.scoring.reference import monai_groups
from benchmarks.studies.study import write_study
from lungseg.data.datasets.phantom import render
from lungseg.scoring.calibration import reliability_bins
from lungseg.scoring.distances import boundary_metrics
from lungseg.scoring.lungs import lung_dice
from lungseg.scoring.metrics import score_map, score_mask
from lungseg.scoring.overlap import confusion, overlap
from lungseg.system.runtime import use_threads
from lungseg.timing.statistics import summarise_seconds

SIZE = 512
AIM_MS, AIM_RATIO = 10, 8  # of the whole set on the lung-like pair, and over MONAI in what both have
SHARED = "overlap + boundary"
WHOLE = "all that a run computes: score_map, calibration bins"


def pairs() -> dict[str, Pair]:
    """Predictions from good to bad, with their truth."""
    rng = np.random.default_rng(0)
    truth, other = render(0, 1, SIZE)[1], render(0, 3, SIZE)[1]
    return {
        "deformed lungs": (deform(truth, rng, 0.01), truth),
        "another patient's lungs": (other, truth),
        "speckled (50 % noise)": (rng.random(truth.shape) < 0.5, truth),
    }


def groups(prediction: np.ndarray, truth: np.ndarray) -> dict[str, tuple[Callable, Callable | None]]:
    """By the group's name: how we compute it, and how MONAI does, if it does."""
    monai = monai_groups(prediction, truth)
    probability = np.where(prediction, np.float32(0.9), np.float32(0.1))

    def shared() -> None:
        overlap(**confusion(prediction, truth))
        boundary_metrics(prediction, truth)

    return {
        "overlap": (lambda: overlap(**confusion(prediction, truth)), monai["overlap"]),
        "boundary": (
            lambda: boundary_metrics(prediction, truth),
            lambda: (monai["distances"](), monai["surface Dice"]()),
        ),
        SHARED: (shared, lambda: [compute() for compute in monai.values()]),
        "per lung": (lambda: lung_dice(prediction, truth), None),
        "score_mask": (lambda: score_mask(prediction, truth), None),
        WHOLE: (lambda: (score_map(probability, truth, 0.5), reliability_bins(probability, truth)), None),
    }


def measure(calls: tuple[Callable, Callable | None], repeats: int) -> np.ndarray:
    """Seconds of each repeat, ours and MONAI's in turn: repeats x (ours, MONAI) x (processor, elapsed)."""
    seconds = np.full((repeats, 2, 2), np.nan)
    for repeat in range(-3, repeats):  # three to warm up
        for which in (0, 1) if repeat % 2 else (1, 0):
            if calls[which] is None:
                continue
            processor, elapsed = time.process_time(), time.perf_counter()
            calls[which]()
            passed = time.process_time() - processor, time.perf_counter() - elapsed
            if repeat >= 0:
                seconds[repeat, which] = passed
    return seconds


def row(pair: str, group: str, calls: tuple[Callable, Callable | None], repeats: int) -> dict[str, object]:
    seconds = measure(calls, repeats)
    found: dict[str, object] = {"pair": pair, "metrics": group}
    for which, name in enumerate(("ours", "MONAI")):
        processor, elapsed = (summarise_seconds(seconds[:, which, clock], 1) for clock in (0, 1))
        found |= {
            f"{name} ms": processor["median_ms"],
            f"{name} IQR ms": processor["iqr_ms"],
            f"{name} elapsed ms": elapsed["median_ms"],
        }
    return {**found, "MONAI / ours": found["MONAI ms"] / found["ours ms"], "repeats": repeats}


def verdict(table: pd.DataFrame) -> str:
    lungs = table[table["pair"] == "deformed lungs"].set_index("metrics")
    whole, ratio = lungs["ours ms"][WHOLE], lungs["MONAI / ours"][SHARED]
    return (
        f"Aim: all metrics of a lung-like {SIZE} x {SIZE} pair in under {AIM_MS} ms of one core: "
        f"{whole:.2f} ms, {'kept' if whole < AIM_MS else 'missed'}. "
        f"Aim: what MONAI also has at least {AIM_RATIO} times as fast: {ratio:.1f} times, "
        f"{'kept' if ratio >= AIM_RATIO else 'missed'}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/metrics-speed"))
    parser.add_argument("--repeats", type=int, default=60)
    arguments = parser.parse_args()
    use_threads(1)
    warnings.simplefilter("ignore")  # a deprecation inside MONAI, in every call
    rows = []
    for name, pair in pairs().items():
        repeats = max(arguments.repeats // (4 if name.startswith("speckled") else 1), 5)
        rows += [row(name, group, calls, repeats) for group, calls in groups(*pair).items()]
    table = pd.DataFrame(rows)
    notes = [
        verdict(table),
        "ms is the processor's time of one thread, median and interquartile range over repeats; on a free "
        "core it is the time that passes. Elapsed is what did pass: where it is larger, other programs held "
        "the core.",
        f"{SIZE} x {SIZE} pixels, phantoms. Overlap: confusion matrix, Dice, IoU, accuracy, precision, "
        "recall, specificity. Boundary: Hausdorff, its 95th percentile, average symmetric surface distance "
        "and surface Dice at two tolerances; MONAI needs five calls, ours share one search each way.",
        f"MONAI {version('monai')} gets tensors on the CPU. It has no Dice per lung.",
    ]
    print(write_study(arguments.out, "Time of the metrics of one image", table, notes))


if __name__ == "__main__":
    main()
