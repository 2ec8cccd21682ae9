"""Estimates with how many training images one approach overtakes another.

`python -m benchmarks.studies.scoring.overtaking RESULTS`

Reads scores.csv and run.json of a benchmark whose rows differ in `train_images`, such as
data-efficiency.toml, or of a published copy of it. For each pair of approaches: the number of training images
from which on the second one has the higher mean Dice, on straight lines over the logarithm of the number, and
its 95 % interval. The bootstrap draws patients and draws of training images anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.studies.study import make_parser, write_study
from lungseg.report.contents import Contents, read_contents
from lungseg.report.numbers.trainings import collect_learning
from lungseg.system.errors import InputError

SAMPLES = 2000
SEED = 0


def find_overtaking(sizes: Sequence[float], differences: np.ndarray) -> float:
    """Return the number of images from which on a difference is above 0.

    Args:
        sizes: numbers of images, ascending.
        differences: of mean Dice at each, second minus first approach.

    Returns:
        Where the last line from a difference of at most 0 to one above it meets 0; 0 if all are above it,
        and infinity if the last isn't.
    """
    if differences[-1] <= 0:
        return np.inf
    below = np.flatnonzero(differences <= 0)
    if not len(below):
        return 0.0
    start = below[-1]
    low, high = np.log2(sizes[start]), np.log2(sizes[start + 1])
    share = differences[start] / (differences[start] - differences[start + 1])
    return float(2 ** (low + share * (high - low)))


def collect_dice(contents: Contents, family: pd.DataFrame) -> np.ndarray:
    """Return Dice by number of images, draw and patient, float64; a fit without chance has equal draws.

    Args:
        contents: of the results.
        family: rows of `collect_learning` of one approach.
    """
    seeds = list(contents.run["seeds"])
    found = []
    for name in family["approach"]:
        own = contents.scores[contents.scores["approach"] == name]
        table = own.pivot_table(index="seed", columns=["source", "patient"], values="dice")
        found.append(table.reindex(seeds, method="ffill").to_numpy())
    return np.stack(found)


def bootstrap_overtaking(sizes: Sequence[float], first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return SAMPLES values of `find_overtaking`; arrays are sizes x draws x patients."""
    rng = np.random.default_rng(SEED)
    _, draws, patients = first.shape
    differences = second - first
    found = np.empty(SAMPLES)
    for number in range(SAMPLES):
        chosen = differences[:, rng.integers(0, draws, draws)][:, :, rng.integers(0, patients, patients)]
        found[number] = find_overtaking(sizes, chosen.mean(axis=(1, 2)))
    return found


def compare(contents: Contents) -> pd.DataFrame:
    """Return a row per pair of approaches of which the second ends above the first.

    Raises:
        InputError: fewer than two approaches have the same numbers of training images, at least three.
    """
    frame = collect_learning(contents)
    families = {name: part for name, part in frame.groupby("family", sort=False)}
    if len(families) < 2:
        raise InputError(
            f"{contents.directory} has no two approaches with three numbers of training images: run "
            "benchmarks/data-efficiency.toml"
        )
    rows = []
    for first, second in permutations(families, 2):
        sizes = families[first]["n_train"].tolist()
        if sizes != families[second]["n_train"].tolist():
            continue
        one, other = (collect_dice(contents, families[name]) for name in (first, second))
        differences = (other - one).mean(axis=(1, 2))
        if differences[-1] > 0:
            low, high = np.percentile(bootstrap_overtaking(sizes, one, other), (2.5, 97.5), method="nearest")
            where = (find_overtaking(sizes, differences), low, high)
            rows.append([first, second, *(_format(value, sizes) for value in where), differences[-1]])
    columns = ["approach", "is overtaken by", "from", "lowest", "highest", "difference with all images"]
    return pd.DataFrame(rows, columns=columns)


def _format(value: float, sizes: Sequence[int]) -> str:
    if value == 0:
        return f"below {sizes[0]}"
    return f"above {sizes[-1]}" if np.isinf(value) else f"{value:.0f}"


def main(words: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__, "results/overtaking")
    parser.add_argument("results", type=Path, help="folder of a benchmark's results, or a published one")
    arguments = parser.parse_args(words)
    try:
        contents = read_contents(arguments.results)
        table = compare(contents)
    except InputError as error:
        parser.error(str(error))
    notes = [
        "from: the number of training images from which on the second approach has the higher mean Dice, on "
        "straight lines over the logarithm of the number. lowest and highest: its 95 % interval from "
        f"{SAMPLES:,} bootstrap samples of patients and of draws of training images.",
        "difference with all images: of mean Dice, second minus first approach.",
        "A second training with the same images can differ by chance; draws hold that too.",
    ]
    print(write_study(arguments.out, "With how many images is an approach overtaken?", table, notes))


if __name__ == "__main__":
    main()
