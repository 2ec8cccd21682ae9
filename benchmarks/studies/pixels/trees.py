"""Times the trees alone, on rows of real predictions: LightGBM's own prediction and our engines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from benchmarks.studies.ceilings import Ceilings
from benchmarks.studies.pixels.floor import compute_floor_ms, count_tree_work
from benchmarks.studies.pixels.models import (
    OURS,
    Stored,
    compute_pixel_rows,
    fit_plain_model,
    record_rows,
    use_engine,
)
from benchmarks.studies.turns import Measured, take_turns
from lungseg.data.sample import Sample
from lungseg.learning.trees.evaluator import Evaluator, make_evaluator
from lungseg.learning.trees.forest import Forest
from lungseg.learning.vgg19.features import PixelFeatures
from lungseg.system.errors import InputError
from lungseg.system.runtime import Runtime

FEW = 2  # images whose rows are timed on a CPU, where LightGBM's own prediction is slow
Pairs = list[tuple[Evaluator, Tensor]]


@dataclass(frozen=True)
class Work:
    """Forests, each with the rows float32 N x F that it evaluates, a column's values side by side."""

    name: str
    pairs: list[tuple[Forest, Tensor]]

    def prepare(self, device: torch.device, threads: int, engine: str) -> Pairs:
        """Return an engine's evaluators with their rows; LightGBM gets rows one after the other, its best.

        Raises:
            InputError: the engine doesn't work on the device.
        """
        made = [make_evaluator(forest, device, threads, engine) for forest, _ in self.pairs]
        rows = [rows.T.to(device).T for _, rows in self.pairs]
        return list(zip(made, [r.contiguous() for r in rows] if engine == "lightgbm" else rows, strict=True))


def measure_trees(
    stored: Stored,
    runtimes: Sequence[Runtime],
    samples: Sequence[Sample],
    size: int,
    shape: Sequence[int],
    repeats: int,
    ceilings: dict[str, Ceilings],
    lightgbm: bool,
) -> list[dict[str, Any]]:
    """Return rows of the table `trees`.

    Args:
        runtimes: one a device; the last one computes the features.
        size: pixels a side of the images whose pixels the plain forest's rows are.
        shape: trees and leaves of the plain forest.
        ceilings: by device.
        lightgbm: whether LightGBM's own prediction is timed too.
    """
    last, rows = runtimes[-1], []
    pictured = samples if last.device.type == "cuda" else samples[:FEW]  # a GPU has to be filled
    for work in (_record_stages(stored, last, samples), _fit_plain(last, pictured, size, *shape)):
        rows += _time_engines(work, runtimes, repeats, ceilings, lightgbm)
    return rows


def _record_stages(stored: Stored, runtime: Runtime, samples: Sequence[Sample]) -> Work:
    approach = use_engine(stored.load(runtime), "lightgbm")
    images = [sample.image() for sample in samples[:FEW]]
    found = [(trees.forest, rows) for trees, rows in record_rows(approach, images)]
    return Work(f"the model's {len(found)} stages, rows of {len(images)} images", found)


def _fit_plain(runtime: Runtime, samples: Sequence[Sample], size: int, trees: int, leaves: int) -> Work:
    network = PixelFeatures("auto").to(runtime.device)
    forest = Forest.from_text(fit_plain_model(samples, network, runtime, size, trees, leaves))
    rows = compute_pixel_rows(samples, network, runtime, size)
    images = f"all pixels of {len(samples)} images, 64 features of relu1_2"
    return Work(f"{trees} trees x {leaves} leaves, {images}", [(forest, rows)])


def _time_engines(
    work: Work, runtimes: Sequence[Runtime], repeats: int, ceilings: dict[str, Ceilings], lightgbm: bool
) -> list[dict[str, Any]]:
    """Return a row an engine; LightGBM's own prediction, if it is timed, is the first, and on the CPU."""
    first = ("cpu", "lightgbm")
    engines, empty = {}, []
    if lightgbm:
        engines[first] = work.prepare(torch.device("cpu"), runtimes[0].threads, "lightgbm")
    for runtime in runtimes:
        key = (runtime.device.type, OURS[runtime.device.type])
        try:
            engines[key] = work.prepare(runtime.device, runtime.threads, key[1])
        except InputError as error:
            empty.append({"device": key[0], "engine": key[1], "why empty": str(error)})
    chains = {key: [("trees", partial(_evaluate, pairs))] for key, pairs in engines.items()}
    measured = take_turns(chains, lambda _: None, repeats)
    found = []
    for key, one in measured.items():
        row = {"device": key[0], "engine": key[1], **_summarise(work, one)}
        if lightgbm:
            row["largest difference of raw scores"] = _compare(engines[first], engines[key])
        if key != first:
            counts = count_tree_work([(forest, len(rows)) for forest, rows in work.pairs])
            floor = max(compute_floor_ms(ceilings[key[0]], **counts).values())
            share = floor / 1e3 / one.percentiles()[1]
            row |= one.compare_with(measured[first]) if lightgbm else {}
            row["floor / measured"] = f"{share:.0%}"
        found.append(row)
    return [{"trees of": work.name, **row} for row in found + empty]


def _summarise(work: Work, measured: Measured) -> dict[str, Any]:
    rows = sum(len(rows) for _, rows in work.pairs)
    nodes = sum(len(forest.feature) * len(own) for forest, own in work.pairs) / rows
    return {"rows": rows, "nodes for a row": nodes, **measured.row_speed(rows)}


def _compare(one: Pairs, other: Pairs) -> float:
    """Return the largest difference of their raw scores, over all rows."""
    pairs = zip(_evaluate(one, None), _evaluate(other, None), strict=True)
    return max(float((first - second.cpu()).abs().max()) for first, second in pairs)


def _evaluate(pairs: Pairs, _: object) -> list[Tensor]:
    return [trees.predict_raw(rows) for trees, rows in pairs]


def describe_differences(table: pd.DataFrame) -> str:
    """Say how far the engines are from LightGBM's own prediction."""
    if "largest difference of raw scores" not in table:
        return "LightGBM's own prediction was left out, so raw scores are not compared with it."
    worst = table["largest difference of raw scores"].max()
    return f"Raw scores of all engines on all rows above lie within {worst:.2g} of LightGBM's own."
