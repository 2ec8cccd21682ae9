"""Measures whether approaches agree with one another where they differ from the annotation.

`python -m benchmarks.studies.scoring.mask_agreement RESULTS`

Reads what a benchmark run stored: its maps of one fold and seed, and the annotated masks. Baselines are left
out unless they are named. Writes two tables, each in a folder of its own. `pairs` has the mean Dice of any
two approaches, and of each with the annotation. `worst` has the images on which all have the lowest Dice.
Where approaches that were built and trained in different ways agree, and the annotation differs from them,
more training is not likely to help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.studies.study import make_parser, write_study
from lungseg.report.contents import BASELINES
from lungseg.scoring.overlap import binarise, confusion, overlap
from lungseg.system.errors import InputError
from lungseg.system.files import read_json

ANNOTATION = "annotation"
KEYS = ["image_id", "source", "threshold"]


@dataclass(frozen=True)
class Stored:
    """The masks in a run's results.

    Attributes:
        results: the folder.
        trial: fold and seed as in the names of folders, such as "f0-s0".
        images: a row an image: `image_id` and `source`.
        thresholds: by approach.
    """

    results: Path
    trial: str
    images: pd.DataFrame
    thresholds: Mapping[str, float]

    def read_masks(self, image: str) -> dict[str, np.ndarray]:
        """Return masks, bool H x W, by approach, and the annotated one by `ANNOTATION`."""
        folder = self.results / "predictions"
        found = {ANNOTATION: _read(folder / "truth" / f"{image}.png") >= 0.5}
        for name, threshold in self.thresholds.items():
            found[name] = binarise(_read(folder / "maps" / name / self.trial / f"{image}.png"), threshold)
        return found


def _read(path: Path) -> np.ndarray:
    """Return an 8-bit picture as a map in [0, 1]."""
    try:
        with Image.open(path) as picture:
            return np.asarray(picture, np.float32) / 255
    except OSError as error:
        raise InputError(
            f"{path} can't be read: run the benchmark again, it stores what is missing"
        ) from error


def find_stored(results: Path, approaches: Sequence[str], fold: int, seed: int) -> Stored:
    """Find what a run stored of these approaches.

    Args:
        approaches: names; empty stands for all that have maps and aren't baselines.

    Raises:
        InputError: no results, an approach without maps or with other images, or fewer than two approaches.
    """
    if not (results / "scores.csv").is_file():
        raise InputError(f"{results} holds no scores.csv: name the results of a benchmark run that ended")
    scores = pd.read_csv(results / "scores.csv")
    scores = scores[(scores["fold"] == fold) & (scores["seed"] == seed)]
    trial, maps = f"f{fold}-s{seed}", results / "predictions" / "maps"
    available = [name for name in scores["approach"].unique() if (maps / name / trial).is_dir()]
    for name in approaches:
        if name not in available:
            raise InputError(
                f"{results} has no maps of {name!r} for fold {fold}, seed {seed}: "
                f"there are {', '.join(available) or 'none'}"
            )
    chosen = list(approaches) or [name for name in available if name not in _find_baselines(results)]
    if len(chosen) < 2:
        raise InputError(
            f"{results} has maps of {len(chosen)} of the approaches for fold {fold}, seed {seed} "
            f"({', '.join(chosen) or 'none'}): two at least are compared"
        )
    rows = {name: scores[scores["approach"] == name][KEYS] for name in chosen}
    for name, own in rows.items():
        if set(own["image_id"]) != set(rows[chosen[0]]["image_id"]):
            raise InputError(
                f"{name} was scored on other images than {chosen[0]}: compare those of one split"
            )
    thresholds = {name: float(own["threshold"].iloc[0]) for name, own in rows.items()}
    return Stored(results, trial, rows[chosen[0]][KEYS[:2]].reset_index(drop=True), thresholds)


def _find_baselines(results: Path) -> set[str]:
    """Return the names of the baselines: their agreement says nothing about the annotation."""
    entries = read_json(results / "run.json")["approaches"]
    return {entry["name"] for entry in entries if entry["use"] in BASELINES}


def compare_masks(run: Stored) -> pd.DataFrame:
    """Score every pair of masks of every image.

    Returns:
        A row an image and pair: `image_id`, `source`, `one`, `other`, `dice`, `precision`, `recall`. `one` is
        the annotation or the approach that is named first; precision and recall are those of `other`, as if
        `one` were the truth.
    """
    rows = []
    for _, image in run.images.iterrows():
        masks = run.read_masks(image["image_id"])
        for one, other in combinations(masks, 2):
            scores = overlap(**confusion(masks[other], masks[one]))
            kept = {name: scores[name] for name in ("dice", "precision", "recall")}
            rows.append({**image, "one": one, "other": other, **kept})
    return pd.DataFrame(rows)


def find_worst(found: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return the images with the lowest Dice with the annotation, as mean over approaches; worst first."""
    with_annotation = found["one"] == ANNOTATION
    groups = ["image_id", "source"]
    means = found[with_annotation].groupby(groups)[["dice", "precision", "recall"]].mean()
    among = found[~with_annotation].groupby(groups)["dice"].mean()
    table = means.assign(among=among).sort_values("dice").head(count).reset_index()
    return table.rename(
        columns={"image_id": "image", "dice": "Dice with the annotation", "among": "Dice among approaches"}
    )[["image", "source", "Dice with the annotation", "Dice among approaches", "precision", "recall"]]


def summarise_pairs(found: pd.DataFrame, worst: Sequence[str]) -> pd.DataFrame:
    """Return mean and median Dice of each pair of masks over all images, over the worst, and the rest."""
    bad = found["image_id"].isin(worst)
    rows = []
    for (one, other), own in found.groupby(["one", "other"], sort=False):
        dice = own["dice"]
        rows.append(
            {
                "one": one,
                "other": other,
                "Dice": dice.mean(),
                "median": dice.median(),
                "worst images": dice[bad].mean(),
                "all others": dice[~bad].mean(),
            }
        )
    return pd.DataFrame(rows)


def write_notes(run: Stored, found: pd.DataFrame, worst: pd.DataFrame) -> list[str]:
    closer = int((worst["Dice among approaches"] > worst["Dice with the annotation"]).sum())
    narrow = int((worst["precision"] > worst["recall"]).sum())
    every, with_annotation = found["dice"], found["one"] == ANNOTATION
    return [
        f"On {closer} of the {len(worst)} worst images the approaches are closer to one another than to the "
        f"annotation; on {narrow} of them they mark less than the annotation (precision above recall).",
        f"Over all {len(run.images)} images the mean Dice of the approaches with the annotation is "
        f"{every[with_annotation].mean():.4f}, among themselves {every[~with_annotation].mean():.4f}.",
        f"Approaches: {', '.join(run.thresholds)}; fold and seed {run.trial}. Worst: lowest Dice with the "
        "annotation, as mean over the approaches; precision and recall are means too. Maps are those that "
        "the run stored, with 8 bits, so a pixel exactly at the threshold may fall on the other side.",
        "Approaches that agree may share a fault. Agreement shows that the annotation differs from what the "
        "annotated training images teach, not who is right.",
    ]


def main(words: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__, "results/mask-agreement")
    parser.add_argument("results", type=Path, help="results of a benchmark run")
    parser.add_argument(
        "--approaches", nargs="+", default=[], help="names in its spec; default: all but the baselines"
    )
    parser.add_argument("--worst", type=int, default=20, help="images in the table `worst`")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(words)
    if arguments.worst < 1:
        parser.error("--worst is at least 1")
    try:
        run = find_stored(arguments.results, arguments.approaches, arguments.fold, arguments.seed)
        found = compare_masks(run)
        worst = find_worst(found, arguments.worst)
        notes = write_notes(run, found, worst)
        table = summarise_pairs(found, worst["image"].tolist())
        print(write_study(arguments.out / "pairs", "Agreement of masks, pair by pair", table, notes))
        print(write_study(arguments.out / "worst", "The images with the lowest Dice", worst, notes))
    except InputError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
