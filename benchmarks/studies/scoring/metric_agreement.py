"""Measures how far the metrics agree with MONAI's and with brute force.

`python -m benchmarks.studies.scoring.metric_agreement`

The masks are 1,000 random pairs, 1,000 pairs of lungs (phantoms and deformed copies), and named edge cases.
"""

import math
import warnings
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version

import numpy as np
import pandas as pd

from benchmarks.studies.scoring.pairs import Pair, draw_lung_pairs, draw_random_pairs, make_edge_cases
from benchmarks.studies.scoring.reference import (
    BOUNDARY,
    OVERLAP,
    compute_in_float32,
    score_by_brute_force,
    score_by_monai,
    score_contours_by_monai,
)
from benchmarks.studies.study import make_parser, write_study
from lungseg.data.datasets.phantom import render
from lungseg.scoring.distances import boundary_distances
from lungseg.scoring.metrics import score_mask
from lungseg.system.runtime import use_threads

SIZE = 128
PHANTOMS = 100
TOLERANCE = 1e-6  # values of empty masks that differ by less count as equal
FLOAT32 = "MONAI, ours in float32 too, relative"
CONTOURS = 5  # MONAI's contour-weighted surface Dice is computed for every fifth lung pair


@cache
def render_mask(number: int) -> np.ndarray:
    return render(0, number, SIZE)[1]


def make_pairs(count: int) -> Iterator[tuple[str, Pair]]:
    """Yield the pairs of masks, each with the name of its group."""
    rng = np.random.default_rng(0)
    yield from (("random", pair) for pair in draw_random_pairs(count, rng))
    yield from (("lungs", pair) for pair in draw_lung_pairs(count, rng, lambda n: render_mask(n % PHANTOMS)))
    yield from (("edge cases", pair) for pair in make_edge_cases().values())


def measure_differences(group: str, prediction: np.ndarray, truth: np.ndarray) -> Iterator[dict[str, object]]:
    """Yield, for each metric, how far ours is from the others; NaN where a tool gives no finite value."""
    ours, monai = score_mask(prediction, truth), score_by_monai(prediction, truth)
    both = prediction.any() and truth.any()
    brute = score_by_brute_force(prediction, truth) if both else {}
    rounded = compute_in_float32(*boundary_distances(prediction, truth)) if both else {}
    for metric in OVERLAP + BOUNDARY:
        yield {
            "pairs": group,
            "metric": metric,
            "brute force": abs(ours[metric] - brute.get(metric, math.nan)),
            "MONAI": abs(ours[metric] - monai[metric]) if math.isfinite(monai[metric]) else math.nan,
            FLOAT32: abs(rounded.get(metric, math.nan) - monai[metric]) / max(ours[metric], 1),
        }


def summarise(found: pd.DataFrame) -> pd.DataFrame:
    """Return the largest differences by group of pairs and metric."""
    grouped = found.groupby(["pairs", "metric"], sort=False)
    table = grouped[["brute force", "MONAI", FLOAT32]].max()
    table.insert(0, "n of brute force", grouped["brute force"].count())
    table.insert(1, "n of MONAI", grouped["MONAI"].count())
    return table.reset_index()


def compare_conventions(number: int, prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Return what other tools' conventions give on a pair, less what ours gives."""
    ours = score_mask(prediction, truth)
    one, other = boundary_distances(prediction, truth)
    contour = score_contours_by_monai(prediction, truth) if number % CONTOURS == 0 else {}
    return {
        "hd95": score_by_brute_force(prediction, truth)["hd95_pooled"] - ours["hd95"],
        "hd95 itself": ours["hd95"],
        "assd": (one.mean() + other.mean()) / 2 - ours["assd"],
        **{name: value - ours[name] for name, value in contour.items()},
    }


def write_convention_notes(found: pd.DataFrame) -> list[str]:
    def describe(name: str, unit: str) -> str:
        values = found[name].dropna()
        low, middle, high = values.min(), values.median(), values.max()
        return f"{low:+.4f} to {high:+.4f}{unit}, median {middle:+.4f} (n = {len(values)})"

    return [
        "HD95 pooled over both directions before the percentile, as medpy has it, differs on the lung pairs "
        f"by {describe('hd95', ' px')}; the median of HD95 is {found['hd95 itself'].median():.2f} px there.",
        "ASSD as the mean of the two directed means, as medpy has it, instead of over all distances pooled, "
        f"differs by {describe('assd', ' px')}.",
        "Surface Dice weighted by the length of a contour between the pixels, as surface-distance has it "
        "(here MONAI's use_subvoxels), instead of counted in boundary pixels, differs by "
        f"{describe('surface_dice_1', '')} at 1 % and {describe('surface_dice_2', '')} at 2 %.",
    ]


def write_empty_notes() -> list[str]:
    """List MONAI's values for empty masks, beside ours."""
    lines = []
    for name in ("prediction empty", "truth empty", "both empty"):
        ours, monai = score_mask(*make_edge_cases()[name]), score_by_monai(*make_edge_cases()[name])
        parts = [
            f"{metric} {monai[metric]:g} (ours {ours[metric]:.4g})"
            for metric in OVERLAP + BOUNDARY
            if not abs(monai[metric] - ours[metric]) <= TOLERANCE
        ]
        lines.append(f"MONAI, {name}: {', '.join(parts)}.")
    return [*lines, "Ours: a miss gets the worst value, so that leaving it out can't improve an average."]


def describe_differences(table: pd.DataFrame) -> str:
    """Say how large the largest differences are, and where they come from."""
    brute, overlap = table["brute force"].max(), table[table["metric"].isin(OVERLAP)]["MONAI"].max()
    monai, rounded = table["MONAI"].max(), table[FLOAT32].max()
    return (
        f"Largest difference from brute force {brute:.1e}; from MONAI {overlap:.1e} in overlap metrics and "
        f"{monai:.1e} in boundary metrics. MONAI computes distances, and the rank of a percentile, in "
        "float32, which is exact to 1e-7 of a value. With our distances rounded and ranked in float32 the "
        f"largest difference is {rounded:.1e} of the value, or of a pixel where the value is less than one."
    )


def main() -> None:
    parser = make_parser(__doc__, "results/metric-agreement")
    parser.add_argument("--count", type=int, default=1000, help="random pairs, and pairs of lungs")
    arguments = parser.parse_args()
    use_threads(1)
    warnings.simplefilter("ignore")  # MONAI's, of empty masks
    rows, other = [], []
    for number, (group, pair) in enumerate(make_pairs(arguments.count)):
        rows += measure_differences(group, *pair)
        if group == "lungs" and all(mask.any() for mask in pair):
            other.append(compare_conventions(number, *pair))
    table = summarise(pd.DataFrame(rows))
    notes = [
        describe_differences(table),
        "Largest absolute difference, distances in pixels. Left out: pairs for which a tool gives NaN or "
        "infinity, which are those with an empty mask and MONAI's ratios with an empty denominator.",
        f"Random pairs: 1 to 48 pixels a side, densities .002 to .95. Lung pairs: {SIZE} x {SIZE}, phantoms "
        "against smoothly deformed copies. Edge cases: " + ", ".join(make_edge_cases()) + ".",
        *write_convention_notes(pd.DataFrame(other)),
        *write_empty_notes(),
        f"MONAI {version('monai')}; its confusion matrix gets masks as numbers, since it is wrong with "
        "bool tensors. Brute force: scipy's binary_erosion and cdist.",
    ]
    print(write_study(arguments.out, "Agreement of the metrics with other implementations", table, notes))


if __name__ == "__main__":
    main()
