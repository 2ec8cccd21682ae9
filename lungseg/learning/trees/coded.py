"""Forests as fast engines evaluate them: values are replaced by codes of 8 bits before trees are visited."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lungseg.learning.trees.forest import Forest

MOST_THRESHOLDS = 255  # of a coded column: its codes 0 to 255 fit in 8 bits


@dataclass(frozen=True)
class CodedForest:
    """The trees of a forest that have nodes, over coded columns.

    With a column's distinct thresholds sorted, t[0] < t[1] < ..., the code of a value x is the number of
    thresholds t[j] < x. So x <= t[j] exactly where the code <= j. A column with more than 255 thresholds is
    coded several times, with up to 255 of them each.

    Nodes are in preorder, and the state of a row is one number: the leftmost leaf below the node where the
    row is. It starts at leaf 0. Each node in turn moves the rows that are at it and go right to the leftmost
    leaf of its right child. After all nodes, the number is the row's leaf.
    """

    column: np.ndarray  # int32, one per coded column: the column of a row that it codes
    bounds: np.ndarray  # int32, coded columns + 1: column k has thresholds[bounds[k]:bounds[k + 1]]
    thresholds: np.ndarray  # float32, ascending in each coded column
    slot: np.ndarray  # int32, one per node: the coded column that it reads
    code: np.ndarray  # int32, one per node: j above
    here: np.ndarray  # int32, one per node: the leftmost leaf below it, counted within its tree
    right: np.ndarray  # int32, one per node: the leftmost leaf of its right child, counted likewise
    first: np.ndarray  # int32, trees + 1: where each tree's nodes start
    first_leaf: np.ndarray  # int32, one per tree: where its leaves start
    leaves: np.ndarray  # float64, values of all leaves
    constant: float  # sum of the trees that are a single leaf

    @property
    def most_leaves(self) -> int:
        """Return the number of leaves of the largest tree."""
        return int(np.diff(self.first).max(initial=0)) + 1


def encode_forest(forest: Forest) -> CodedForest:
    """Replace a forest's thresholds by codes."""
    count = len(forest.feature)
    coded, slot, code = [], np.zeros(count, np.int32), np.zeros(count, np.int32)
    for column in forest.list_columns_read():
        nodes = np.flatnonzero(forest.feature == column)
        distinct, place = np.unique(forest.threshold[nodes], return_inverse=True)
        slot[nodes] = len(coded) + place // MOST_THRESHOLDS
        code[nodes] = place % MOST_THRESHOLDS
        starts = range(0, len(distinct), MOST_THRESHOLDS)
        coded += [(column, distinct[start : start + MOST_THRESHOLDS]) for start in starts]
    here, right = _find_leftmost_leaves(forest)
    trees = [(nodes, leaves) for nodes, leaves in forest.trees() if nodes.start < nodes.stop]
    constants = [forest.leaves[leaves.start] for nodes, leaves in forest.trees() if nodes.start == nodes.stop]
    return CodedForest(
        np.array([column for column, _ in coded], np.int32),
        np.cumsum([0, *(len(values) for _, values in coded)]).astype(np.int32),
        np.concatenate([values for _, values in coded] or [np.zeros(0, np.float32)]).astype(np.float32),
        slot,
        code,
        here,
        right,
        np.array([0, *(nodes.stop for nodes, _ in trees)], np.int32),
        np.array([leaves.start for _, leaves in trees], np.int32),
        forest.leaves,
        float(np.sum(constants)),
    )


def _find_leftmost_leaves(forest: Forest) -> tuple[np.ndarray, np.ndarray]:
    """Find the leftmost leaf below each node and below its right child, counted within the tree."""
    leftmost, right = np.zeros_like(forest.left), np.zeros_like(forest.left)
    for nodes, leaves in forest.trees():
        for node in range(nodes.stop - 1, nodes.start - 1, -1):  # children have larger numbers
            left_child, right_child = int(forest.left[node]), int(forest.right[node])
            leftmost[node] = leftmost[left_child] if left_child >= 0 else ~left_child - leaves.start
            right[node] = leftmost[right_child] if right_child >= 0 else ~right_child - leaves.start
    return leftmost, right
