"""Computes how fast `vgg19-context` can be at most: its operations and bytes at the measured ceilings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.studies.ceilings import Ceilings
from lungseg.approaches.vgg19_context.approach import Vgg19Context
from lungseg.approaches.vgg19_context.shape_prior import MASK_SIDE, SIDE
from lungseg.learning.trees.forest import Forest
from lungseg.learning.vgg19.pyramid import CHANNELS, STRIDES
from lungseg.system.runtime import Runtime

FLOAT, SCORE = 4, 8  # bytes of a column's value and of a raw score


@dataclass(frozen=True)
class Convolution:
    """A layer at a level of the pyramid: maps of side x side pixels, `inputs` channels to `outputs`."""

    level: int
    layer: str
    side: int
    inputs: int
    outputs: int
    kernel: int

    @property
    def operations(self) -> int:
        """The operations of one image: 2 a multiply-add."""
        return 2 * self.side**2 * self.inputs * self.outputs * self.kernel**2

    @property
    def values(self) -> int:
        """The values of one image that are read and written if each map goes through memory once."""
        return self.side**2 * (self.inputs + self.outputs)


def list_convolutions(approach: Vgg19Context) -> list[Convolution]:
    """Return every convolution of the features stage: the pyramid's levels, and the projections (1 x 1)."""
    blocks = approach.settings.blocks
    found = []
    order = list(CHANNELS)
    for level in dict.fromkeys(block.scale for block in blocks):
        depth = max(order.index(block.layer) for block in blocks if block.scale == level)
        found.append(Convolution(level, "relu1_1", level, 2, 64, 3))
        inputs = 64
        for layer in order[: depth + 1]:
            found.append(Convolution(level, layer, level // STRIDES[layer], inputs, CHANNELS[layer], 3))
            inputs = CHANNELS[layer]
    kept = approach.settings.components
    for block in blocks if kept else ():
        outputs = min(kept, block.channels)
        side = min(block.side, approach.settings.grid)  # larger maps are averaged first
        found.append(Convolution(block.scale, "projection", side, block.channels, outputs, 1))
    return found


def make_floor_rows(
    approach: Vgg19Context, batch: int, ceilings: Ceilings, measured: dict[str, float]
) -> list[dict[str, Any]]:
    """Return rows of the floor's table for a batch on the approach's device.

    Args:
        approach: as `use_engine` returns it.
        measured: milliseconds of the stages "features" and "trees".
    """
    layers = list_convolutions(approach)
    rows = []
    for level in dict.fromkeys(layer.level for layer in layers):
        own = [layer for layer in layers if layer.level == level]
        rows.append(
            _make_row(f"features: level {level}", ceilings, **_count_layers(own, batch, approach.runtime))
        )
    prior = _count_prior(approach, batch)
    if prior:
        rows.append(_make_row("features: shape prior", ceilings, operations=prior))
    whole = _count_layers(layers, batch, approach.runtime)
    operations = whole.pop("operations", 0) + prior
    features = {"operations": operations, "moved": _count_feature_bytes(approach, batch), **whole}
    rows.append(_make_row("features", ceilings, measured=measured["features"], **features))
    rows.append(_make_row("trees", ceilings, measured=measured["trees"], **_count_trees(approach, batch)))
    key = {"device": approach.runtime.device.type, "batch": batch}
    return [{**key, **row} for row in rows]


def _count_layers(layers: list[Convolution], batch: int, runtime: Runtime) -> dict[str, float]:
    width = runtime.dtype.itemsize
    return {
        "operations": batch * sum(layer.operations for layer in layers),
        "layer_bytes": batch * width * sum(layer.values for layer in layers),
    }


def _count_prior(approach: Vgg19Context, batch: int) -> int:
    """Count operations of the kernel regression: distances to the pictures, and the coefficients' product."""
    if not approach.settings.shape_prior:
        return 0
    return 2 * batch * len(approach.image_planes.shape.pictures) * (SIDE**2 + MASK_SIDE**2)


def _count_feature_bytes(approach: Vgg19Context, batch: int) -> int:
    """Count the bytes that any program has to move: weights and fitted values once, images in, planes out."""
    s = approach.settings
    fixed = sum(value.nbytes for value in approach.image_planes.state_dict().values())
    out = len(approach.image_planes.names) * s.grid**2 + s.shape_prior * MASK_SIDE**2
    return fixed + batch * FLOAT * (s.size**2 + out)


def _count_trees(approach: Vgg19Context, batch: int) -> dict[str, float]:
    return count_tree_work(
        [(stage.model.evaluator.forest, batch * stage.grid**2) for stage in approach.cascade]
    )


def count_tree_work(work: Sequence[tuple[Forest, int]]) -> dict[str, float]:
    """Count visits of nodes, and bytes moved: the columns that are read and the scores.

    Args:
        work: forests, each with its number of rows.
    """
    return {
        "visits": sum(rows * len(forest.feature) for forest, rows in work),
        "moved": sum(rows * (FLOAT * len(forest.list_columns_read()) + SCORE) for forest, rows in work),
    }


def compute_floor_ms(
    ceilings: Ceilings, operations: float = 0, moved: float = 0, visits: float = 0
) -> dict[str, float]:
    """Return the milliseconds that each kind of work takes at its ceiling; 0 where there is no ceiling.

    Args:
        operations: floating-point operations.
        moved: bytes.
        visits: of nodes of trees.
    """
    return {
        "operations ms": operations / ceilings.gflops / 1e6,
        "bytes ms": moved / ceilings.gbytes / 1e6,
        "visits ms": visits / ceilings.visits / 1e6 if ceilings.visits else 0.0,
    }


def _make_row(
    work: str,
    ceilings: Ceilings,
    operations: float = 0,
    moved: float = 0,
    layer_bytes: float = 0,
    visits: float = 0,
    measured: float | None = None,
) -> dict[str, Any]:
    """Return a row of counts and times; the floor is the longest of the times."""
    times = compute_floor_ms(ceilings, operations, moved, visits)
    floor = max(times.values())
    counts = {
        "GFLOP": operations / 1e9,
        "MB": moved / 1e6,
        "MB layer by layer": layer_bytes / 1e6,
        "million node visits": visits / 1e6,
    }
    found = {name: value or np.nan for name, value in (counts | times).items()}
    share = f"{floor / measured:.0%}" if measured else None
    return {
        "work": work,
        **found,
        "floor ms": floor,
        "measured ms": measured or np.nan,
        "floor / measured": share,
    }
