"""A fitted LightGBM booster as plain arrays, for float32 rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

ZERO = np.float32(1e-35)  # LightGBM takes a value for zero that isn't farther from it than this


@dataclass(frozen=True)
class Forest:
    """Trees one after another, each in preorder: a node's left child follows it, leaves go left to right.

    A tree of n nodes has n + 1 leaves, so tree t has nodes first[t]:first[t + 1] and leaves
    first[t] + t:first[t + 1] + t + 1. A row goes left where its value <= the threshold. As in
    LightGBM's prediction, a value within 1e-35 of 0 counts as 0, and so does NaN (if none was trained on).

    Attributes:
        columns: columns of a row.
        feature: int32, a node; the column that it reads.
        threshold: float32, a node; the largest float32 <= LightGBM's float64, so that every float32 row takes
            the same branch.
        left, right: int32, a node; the child's index in these arrays, or ~k for leaf k of `leaves`.
        first: int32, trees + 1; where each tree's nodes start.
        leaves: float64, finite; a row's raw score is the sum of one leaf of each tree. That is the prediction
            of a regression; other objectives transform it.
    """

    columns: int
    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    first: np.ndarray
    leaves: np.ndarray

    @classmethod
    def from_text(cls, text: str) -> Forest:
        """Reads what `Booster.model_to_string` or `save_model` wrote.

        Raises:
            InputError: damaged text; several classes; averaged (random forest), categorical or linear trees;
                a model that was trained with missing values.
        """
        from lungseg.approaches.vgg19_pixels.forest_text import read_forest

        return read_forest(text)

    def to_text(self) -> str:
        """LightGBM's text of this forest as a regression, which `lightgbm.Booster(model_str=...)` reads."""
        from lungseg.approaches.vgg19_pixels.forest_text import write_forest

        return write_forest(self)

    def features_read(self) -> np.ndarray:
        """The columns that any tree reads, int64, ascending."""
        return np.unique(self.feature).astype(np.int64)

    def trees(self) -> Iterator[tuple[slice, slice]]:
        """The nodes and the leaves of each tree."""
        for tree, (start, stop) in enumerate(zip(self.first[:-1], self.first[1:], strict=True)):
            yield slice(int(start), int(stop)), slice(int(start) + tree, int(stop) + tree + 1)
