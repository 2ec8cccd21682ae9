"""Forests for engines that compare small codes: a row's value becomes the count of thresholds below it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lungseg.learning.trees.forest import Forest

MOST_THRESHOLDS = 255  # of a coded column, so that a code, 0 to 255, fits in 8 bits


@dataclass(frozen=True)
class CodedForest:
    """The trees that have nodes, over coded columns.

    With a column's distinct thresholds sorted, t[0] < t[1] < ..., the code of x is the count of t[j] < x, and
    x <= t[j] exactly where the code <= j. A column with more than 255 thresholds is coded several times, by
    255 of them each. Nodes are in preorder, so a row needs no node index while it descends: the leftmost leaf
    below its node says where it is. It starts as leaf 0, and each node in turn moves the rows that
    are there and go right to the leftmost leaf of its right child; what remains is the row's leaf.

    Attributes:
        column: int32, a coded column; which column of a row it codes.
        bounds: int32, coded columns + 1; its thresholds are thresholds[bounds[k]:bounds[k + 1]].
        thresholds: float32, ascending in each coded column.
        slot: int32, a node; the coded column that it reads.
        code: int32, a node; j above.
        here: int32, a node; the leftmost leaf below it, counted in its tree.
        right: int32, a node; the leftmost leaf of its right child.
        first: int32, trees + 1; where each tree's nodes start.
        first_leaf: int32, trees; where its leaves start.
        leaves: float64.
        constant: sum of the trees that are a single leaf.
    """

    column: np.ndarray
    bounds: np.ndarray
    thresholds: np.ndarray
    slot: np.ndarray
    code: np.ndarray
    here: np.ndarray
    right: np.ndarray
    first: np.ndarray
    first_leaf: np.ndarray
    leaves: np.ndarray
    constant: float

    @property
    def most_leaves(self) -> int:
        """Of any one tree."""
        return int(np.diff(self.first).max(initial=0)) + 1


def code_forest(forest: Forest) -> CodedForest:
    parts, slot, code = [], np.zeros(len(forest.feature), np.int32), np.zeros(len(forest.feature), np.int32)
    for column in forest.features_read():
        nodes = np.flatnonzero(forest.feature == column)
        distinct, place = np.unique(forest.threshold[nodes], return_inverse=True)
        slot[nodes] = len(parts) + place // MOST_THRESHOLDS
        code[nodes] = place % MOST_THRESHOLDS
        starts = range(0, len(distinct), MOST_THRESHOLDS)
        parts += [(column, distinct[start : start + MOST_THRESHOLDS]) for start in starts]
    here, right = _leftmost_leaves(forest)
    trees = [(nodes, leaves) for nodes, leaves in forest.trees() if nodes.start < nodes.stop]
    constants = [forest.leaves[leaves.start] for nodes, leaves in forest.trees() if nodes.start == nodes.stop]
    return CodedForest(
        np.array([column for column, _ in parts], np.int32),
        np.cumsum([0, *(len(values) for _, values in parts)]).astype(np.int32),
        np.concatenate([values for _, values in parts] or [np.zeros(0, np.float32)]).astype(np.float32),
        slot,
        code,
        here,
        right,
        np.array([0, *(nodes.stop for nodes, _ in trees)], np.int32),
        np.array([leaves.start for _, leaves in trees], np.int32),
        forest.leaves,
        float(np.sum(constants)),
    )


def _leftmost_leaves(forest: Forest) -> tuple[np.ndarray, np.ndarray]:
    """Of each node and of its right child, counted in its tree."""
    leftmost, right = np.zeros_like(forest.left), np.zeros_like(forest.left)
    for nodes, leaves in forest.trees():
        for node in range(nodes.stop - 1, nodes.start - 1, -1):  # children have larger numbers
            left_child, right_child = int(forest.left[node]), int(forest.right[node])
            leftmost[node] = leftmost[left_child] if left_child >= 0 else ~left_child - leaves.start
            right[node] = leftmost[right_child] if right_child >= 0 else ~right_child - leaves.start
    return leftmost, right
