"""The trees alone, on rows that real predictions give them: LightGBM's own prediction and our engines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmarks.studies.ceilings import Ceilings
from benchmarks.studies.pixels.floor import floor_ms, tree_counts
from benchmarks.studies.pixels.models import OURS, Stored, pixel_rows, plain_model, recorded_rows, with_engine
from benchmarks.studies.turns import Measured, take_turns
from lungseg.data.sample import Sample
from lungseg.learning.trees.evaluator import Evaluator, evaluator
from lungseg.learning.trees.forest import Forest
from lungseg.learning.vgg19.features import PixelFeatures
from lungseg.system.errors import InputError
from lungseg.system.runtime import Runtime

FEW = 2  # images whose rows are timed: enough for a CPU, where LightGBM's own prediction takes its time
AIM_MILLIONS, TOLERANCE = 100, 1e-6
PLAIN = "trees x"  # in the name of the plain forest's rows
Pairs = list[tuple[Evaluator, Tensor]]


@dataclass(frozen=True)
class Work:
    """Forests, each with the rows float32 N x F that it evaluates, a column's values side by side."""

    name: str
    pairs: list[tuple[Forest, Tensor]]

    def on(self, device: torch.device, threads: int, engine: str) -> Pairs:
        """Made ready for an engine; LightGBM gets its rows one after the other, which suits it best.

        Raises InputError if the engine doesn't work there.
        """
        made = [evaluator(forest, device, threads, engine) for forest, _ in self.pairs]
        rows = [rows.T.to(device).T for _, rows in self.pairs]
        return list(zip(made, [r.contiguous() for r in rows] if engine == "lightgbm" else rows, strict=True))


def tree_rows(
    stored: Stored,
    runtimes: Sequence[Runtime],
    samples: Sequence[Sample],
    size: int,
    shape: Sequence[int],
    repeats: int,
    ceilings: dict[str, Ceilings],
) -> list[dict[str, Any]]:
    """Rows of the table `trees`.

    Args:
        runtimes: one a device; the last one computes the features.
        size: pixels a side of the images whose pixels the plain forest's rows are.
        shape: trees and leaves of the plain forest.
        ceilings: by device.
    """
    last, rows = runtimes[-1], []
    pictured = samples if last.device.type == "cuda" else samples[:FEW]  # a GPU has to be filled
    for work in (_of_stages(stored, last, samples), _plain(last, pictured, size, *shape)):
        rows += _time(work, runtimes, repeats, ceilings)
    return rows


def _of_stages(stored: Stored, runtime: Runtime, samples: Sequence[Sample]) -> Work:
    approach = with_engine(stored.load(runtime), "lightgbm")
    images = [sample.image() for sample in samples[:FEW]]
    found = [(trees.forest, rows) for trees, rows in recorded_rows(approach, images)]
    return Work(f"the model's {len(found)} stages, rows of {len(images)} images", found)


def _plain(runtime: Runtime, samples: Sequence[Sample], size: int, trees: int, leaves: int) -> Work:
    network = PixelFeatures("auto").to(runtime.device)
    forest = Forest.from_text(plain_model(samples, network, runtime, size, trees, leaves))
    rows = pixel_rows(samples, network, runtime, size)
    name = f"{trees} {PLAIN} {leaves} leaves, all pixels of {len(samples)} images, 64 features of relu1_2"
    return Work(name, [(forest, rows)])


def _time(
    work: Work, runtimes: Sequence[Runtime], repeats: int, ceilings: dict[str, Ceilings]
) -> list[dict[str, Any]]:
    """A row an engine; LightGBM's own prediction is the first, and on the CPU."""
    first = ("cpu", "lightgbm")
    contestants = {first: work.on(torch.device("cpu"), runtimes[0].threads, "lightgbm")}
    empty = []
    for runtime in runtimes:
        key = (runtime.device.type, OURS[runtime.device.type])
        try:
            contestants[key] = work.on(runtime.device, runtime.threads, key[1])
        except InputError as error:
            empty.append({"device": key[0], "engine": key[1], "why empty": str(error)})
    chains = {key: [("trees", partial(_evaluate, pairs))] for key, pairs in contestants.items()}
    measured = take_turns(chains, lambda _: None, repeats)
    found = []
    for key, one in measured.items():
        row = {"device": key[0], "engine": key[1], **_speed(work, one)}
        row["largest difference of raw scores"] = _apart(contestants[first], contestants[key])
        if key != first:
            counts = tree_counts([(forest, len(rows)) for forest, rows in work.pairs])
            floor = max(floor_ms(ceilings[key[0]], **counts).values())
            share = floor / 1e3 / one.percentiles()[1]
            row |= {**one.faster_than(measured[first]), "floor / measured": f"{share:.0%}"}
        found.append(row)
    return [{"trees of": work.name, **row} for row in found + empty]


def _speed(work: Work, measured: Measured) -> dict[str, Any]:
    rows = sum(len(rows) for _, rows in work.pairs)
    slow, median, fast = rows / measured.percentiles()[::-1] / 1e6
    return {
        "rows": rows,
        "nodes for a row": sum(len(forest.feature) * len(own) for forest, own in work.pairs) / rows,
        "million rows/s": median,
        "p10": slow,
        "p90": fast,
        "repeats": len(measured.seconds["whole"]),
    }


def _apart(one: Pairs, other: Pairs) -> float:
    """The largest difference of their raw scores, over all rows."""
    pairs = zip(_evaluate(one, None), _evaluate(other, None), strict=True)
    return max(float((first - second.cpu()).abs().max()) for first, second in pairs)


def _evaluate(pairs: Pairs, _: object) -> list[Tensor]:
    return [trees.raw(rows) for trees, rows in pairs]


def tree_verdicts(table: pd.DataFrame) -> list[str]:
    """Whether the engines are equal to LightGBM's own prediction, and the GPU's fast enough."""
    worst = table["largest difference of raw scores"].max()
    found = [
        f"Raw scores of all engines on all rows above lie within {worst:.2g} of LightGBM's own; "
        f"aim {TOLERANCE:g}: {'kept' if worst <= TOLERANCE else 'missed'}."
    ]
    gpu = table[(table["device"] == "cuda") & table["trees of"].str.contains(PLAIN, regex=False)]
    speed = gpu["million rows/s"].max()
    if not np.isnan(speed):
        kept = "kept" if speed >= AIM_MILLIONS else "missed"
        found.append(
            f"Aim: {AIM_MILLIONS} million rows/s of the plain forest on the GPU: {speed:.1f}, {kept}."
        )
    return found
