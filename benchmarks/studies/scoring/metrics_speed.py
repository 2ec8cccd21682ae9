"""Measures how long the metrics of one image take, ours and MONAI's.

`python -m benchmarks.studies.scoring.metrics_speed`

Uses one thread. Ours and MONAI's take turns within each repeat, so that a drift of the machine affects both.
"""

import time
import warnings
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import pandas as pd

from benchmarks.studies.scoring.pairs import Pair, deform
from benchmarks.studies.scoring.reference import make_monai_groups
from benchmarks.studies.study import make_parser, write_study
from lungseg.data.datasets.phantom import render
from lungseg.scoring.calibration import reliability_bins
from lungseg.scoring.distances import boundary_metrics
from lungseg.scoring.lungs import lung_dice
from lungseg.scoring.metrics import score_map, score_mask
from lungseg.scoring.overlap import confusion, overlap
from lungseg.system.runtime import use_threads
from lungseg.timing.statistics import summarise_seconds

SIZE = 512
SHARED = "overlap + boundary"
WHOLE = "all that a run computes: score_map, calibration bins"


def make_pairs() -> dict[str, Pair]:
    """Return predictions from good to bad, with their truth, by name."""
    rng = np.random.default_rng(0)
    truth, other = render(0, 1, SIZE)[1], render(0, 3, SIZE)[1]
    return {
        "deformed lungs": (deform(truth, rng, 0.01), truth),
        "another patient's lungs": (other, truth),
        "speckled (50 % noise)": (rng.random(truth.shape) < 0.5, truth),
    }


def make_groups(prediction: np.ndarray, truth: np.ndarray) -> dict[str, tuple[Callable, Callable | None]]:
    """Return, by the group's name, how we compute its metrics, and how MONAI does if it can."""
    monai = make_monai_groups(prediction, truth)
    probability = np.where(prediction, np.float32(0.9), np.float32(0.1))

    def compute_shared() -> None:
        overlap(**confusion(prediction, truth))
        boundary_metrics(prediction, truth)

    return {
        "overlap": (lambda: overlap(**confusion(prediction, truth)), monai["overlap"]),
        "boundary": (
            lambda: boundary_metrics(prediction, truth),
            lambda: (monai["distances"](), monai["surface Dice"]()),
        ),
        SHARED: (compute_shared, lambda: [compute() for compute in monai.values()]),
        "per lung": (lambda: lung_dice(prediction, truth), None),
        "score_mask": (lambda: score_mask(prediction, truth), None),
        WHOLE: (lambda: (score_map(probability, truth, 0.5), reliability_bins(probability, truth)), None),
    }


def measure(calls: tuple[Callable, Callable | None], repeats: int) -> np.ndarray:
    """Time ours and MONAI's in turn.

    Returns:
        Seconds, repeats x (ours, MONAI) x (processor, elapsed); NaN where MONAI has no such metrics.
    """
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


def make_row(
    pair: str, group: str, calls: tuple[Callable, Callable | None], repeats: int
) -> dict[str, object]:
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


def describe_lungs(table: pd.DataFrame) -> str:
    """Say how long the metrics of the lung-like pair take."""
    lungs = table[table["pair"] == "deformed lungs"].set_index("metrics")
    whole, ratio = lungs["ours ms"][WHOLE], lungs["MONAI / ours"][SHARED]
    return (
        f"All metrics of a lung-like {SIZE} x {SIZE} pair take {whole:.2f} ms of one core. The metrics that "
        f"MONAI also has are {ratio:.1f} times as fast as MONAI's."
    )


def main() -> None:
    parser = make_parser(__doc__, "results/metrics-speed")
    parser.add_argument("--repeats", type=int, default=60)
    arguments = parser.parse_args()
    use_threads(1)
    warnings.simplefilter("ignore")  # a deprecation inside MONAI, in every call
    rows = []
    for name, pair in make_pairs().items():
        repeats = max(arguments.repeats // (4 if name.startswith("speckled") else 1), 5)
        rows += [make_row(name, group, calls, repeats) for group, calls in make_groups(*pair).items()]
    table = pd.DataFrame(rows)
    notes = [
        describe_lungs(table),
        "ms is the processor's time of one thread, median and interquartile range over repeats. On a free "
        "core it equals the elapsed time; where that is larger, other programs used the core.",
        f"{SIZE} x {SIZE} pixels, phantoms. Overlap: confusion matrix, Dice, IoU, accuracy, precision, "
        "recall, specificity. Boundary: Hausdorff, its 95th percentile, average symmetric surface distance "
        "and surface Dice at two tolerances. MONAI needs five calls for these; ours share one search in "
        "each direction.",
        f"MONAI {version('monai')} gets tensors on the CPU. It has no Dice per lung.",
    ]
    print(write_study(arguments.out, "Time of the metrics of one image", table, notes))


if __name__ == "__main__":
    main()
