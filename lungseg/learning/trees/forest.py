"""A fitted LightGBM booster as plain arrays, read from and written as LightGBM's model text.

What is read is checked completely, because compiled code relies on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from lungseg.system.errors import InputError

_DAMAGED = "the LightGBM model text is damaged: run its benchmark again, which fits anew"
_CATEGORICAL, _MISSING = 1, 3 << 2  # bits of decision_type, see LightGBM's tree.h
ZERO = np.float32(1e-35)  # LightGBM treats values up to this distance from zero as zero


@dataclass(frozen=True)
class Forest:
    """The trees of a model as arrays over all nodes and over all leaves, tree after tree.

    Each tree is in preorder: a node's left child follows it, and leaves go from left to right. A tree of n
    nodes has n + 1 leaves, so tree t has nodes first[t]:first[t + 1] and leaves
    first[t] + t:first[t + 1] + t + 1. A row goes left where its value <= the threshold. As in LightGBM's
    prediction, a value within 1e-35 of 0 counts as 0, and so does NaN (if the training had none). A row's raw
    score is the sum of one leaf of each tree: the prediction of a regression; other objectives transform it.
    """

    columns: int  # of a row
    feature: np.ndarray  # int32, one per node: the column that it reads
    # float32, one per node: the largest <= LightGBM's float64, so that float32 rows take the same branch.
    threshold: np.ndarray
    left: np.ndarray  # int32, one per node: the child's index in these arrays, or ~k for leaf k of `leaves`
    right: np.ndarray
    first: np.ndarray  # int32, trees + 1: where each tree's nodes start
    leaves: np.ndarray  # float64, finite

    @classmethod
    def from_text(cls, text: str) -> Forest:
        """Read the text that `Booster.model_to_string` or `save_model` wrote.

        Raises:
            InputError: damaged text; several classes; averaged (random forest), categorical or linear trees;
                a model that was trained with missing values.
        """
        try:
            before, end, _ = text.partition("\nend of trees")
            head, *trees = before.split("\nTree=")
            header = _parse_lines(head)
            columns = int(header["max_feature_idx"]) + 1
            _refuse_model(header, "average_output" in head.splitlines())
            read = [_read_tree(_parse_lines(tree), columns) for tree in trees]
        except (KeyError, ValueError, IndexError, OverflowError):
            raise InputError(_DAMAGED) from None
        if not end or not read or not head.startswith("tree"):
            raise InputError(_DAMAGED)
        return _join_trees(read, columns)

    def to_text(self) -> str:
        """Write the forest as a regression in the text that `lightgbm.Booster(model_str=...)` reads."""
        names = " ".join(f"Column_{column}" for column in range(self.columns))
        ranges = " ".join(["[-inf:inf]"] * self.columns)
        head = "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\n"
        head += f"max_feature_idx={self.columns - 1}\nobjective=regression\n"
        head += f"feature_names={names}\nfeature_infos={ranges}\n\n"
        trees = [_write_tree(self, index, *slices) for index, slices in enumerate(self.trees())]
        return head + "\n".join(trees) + "\nend of trees\n"

    def list_columns_read(self) -> np.ndarray:
        """List the columns that any tree reads: int64, ascending."""
        return np.unique(self.feature).astype(np.int64)

    def trees(self) -> Iterator[tuple[slice, slice]]:
        """Yield the nodes and the leaves of each tree, as slices."""
        for tree, (start, stop) in enumerate(zip(self.first[:-1], self.first[1:], strict=True)):
            yield slice(int(start), int(stop)), slice(int(start) + tree, int(stop) + tree + 1)


@dataclass(frozen=True)
class _Tree:
    """One tree; children are indices within the tree: a node's, or ~k for its leaf k."""

    feature: list[int]
    threshold: np.ndarray
    left: list[int]
    right: list[int]
    leaves: list[float]


def round_down(thresholds: Iterable[float]) -> np.ndarray:
    """Round each float64 down to float32: for a float32 x, x <= t and x <= round_down(t) are the same."""
    exact = np.asarray(list(thresholds), np.float64)
    with np.errstate(over="ignore"):
        nearest = exact.astype(np.float32)
    return np.where(nearest > exact, np.nextafter(nearest, np.float32(-np.inf)), nearest)


def _parse_lines(text: str) -> dict[str, str]:
    """Return the values of lines `key=value` by key."""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def _refuse_model(header: dict[str, str], averaged: bool) -> None:
    if int(header.get("num_class", 1)) != 1 or int(header.get("num_tree_per_iteration", 1)) != 1:
        raise InputError("a LightGBM model of several classes can't be used here: fit a regression")
    if averaged:
        raise InputError("LightGBM's random forests can't be used here: fit with boosting gbdt")


def _read_tree(keys: dict[str, str], columns: int) -> _Tree:
    nodes = int(keys["num_leaves"]) - 1
    decision_types = [int(word) for word in keys.get("decision_type", "").split()]
    _refuse_tree(keys, decision_types)
    leaves = [float(word) for word in keys["leaf_value"].split()]
    if len(leaves) != nodes + 1 or not np.isfinite(leaves).all():
        raise ValueError("leaves")
    if nodes == 0:
        return _Tree([], np.zeros(0, np.float32), [], [], leaves)
    feature, left, right = (
        [int(word) for word in keys[name].split()] for name in ("split_feature", "left_child", "right_child")
    )
    threshold = round_down(float(word) for word in keys["threshold"].split())
    if {len(decision_types), len(feature), len(left), len(right), len(threshold)} != {nodes}:
        raise ValueError("nodes")
    if min(feature) < 0 or max(feature) >= columns or np.isnan(threshold).any():
        raise ValueError("splits")
    return _renumber_in_preorder(_Tree(feature, threshold, left, right, leaves))


def _refuse_tree(keys: dict[str, str], decision_types: list[int]) -> None:
    if int(keys.get("is_linear", 0)):
        raise InputError("a LightGBM model of linear trees can't be used here: fit without linear_tree")
    if int(keys.get("num_cat", 0)) or any(each & _CATEGORICAL for each in decision_types):
        raise InputError("a LightGBM model with categorical splits can't be used here: fit without them")
    if any(each & _MISSING for each in decision_types):
        raise InputError(
            "the LightGBM model was trained with missing values (NaN, or zero_as_missing): "
            "fit it on rows that have none"
        )


def _renumber_in_preorder(tree: _Tree) -> _Tree:
    """Renumber a tree in preorder. Raises ValueError if its children are no tree of all nodes and leaves."""
    nodes = len(tree.feature)
    order: list[int] = []
    leaf_order: list[int] = []
    left, right = [0] * nodes, [0] * nodes
    waiting = [(0, left, 0)]  # the child's old number, and the list and index for its new one
    while waiting:
        child, numbers, place = waiting.pop()
        if child < 0:
            numbers[place] = ~len(leaf_order)
            leaf_order.append(~child)
            continue
        new = len(order)
        if new == nodes or child >= nodes:
            raise ValueError("children")
        order.append(child)
        if new:
            numbers[place] = new
        waiting += [(tree.right[child], right, new), (tree.left[child], left, new)]
    if len(set(order)) != nodes or sorted(leaf_order) != list(range(nodes + 1)):
        raise ValueError("children")
    return _Tree(
        [tree.feature[node] for node in order],
        tree.threshold[order],
        left,
        right,
        [tree.leaves[leaf] for leaf in leaf_order],
    )


def _join_trees(trees: list[_Tree], columns: int) -> Forest:
    sizes = [len(tree.feature) for tree in trees]
    first = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)

    def join_children(side: str) -> np.ndarray:
        children = [
            node + start if node >= 0 else node - start - index
            for index, (tree, start) in enumerate(zip(trees, first[:-1].tolist(), strict=True))
            for node in getattr(tree, side)
        ]
        return np.array(children, np.int32)

    return Forest(
        columns,
        np.array([node for tree in trees for node in tree.feature], np.int32),
        np.concatenate([tree.threshold for tree in trees]),
        join_children("left"),
        join_children("right"),
        first,
        np.array([value for tree in trees for value in tree.leaves], np.float64),
    )


def _write_tree(forest: Forest, index: int, nodes: slice, leaves: slice) -> str:
    def line(name: str, values: Iterable[object]) -> str:
        return f"{name}={' '.join(map(str, values))}"

    def children(child: np.ndarray) -> list[int]:
        return np.where(child >= 0, child - nodes.start, child + leaves.start).tolist()

    count = nodes.stop - nodes.start
    lines = [
        f"Tree={index}\nnum_leaves={count + 1}\nnum_cat=0",
        line("split_feature", forest.feature[nodes].tolist()),
        line("threshold", forest.threshold[nodes].astype(np.float64).tolist()),
        line("decision_type", [2] * count),
        line("left_child", children(forest.left[nodes])),
        line("right_child", children(forest.right[nodes])),
        line("leaf_value", forest.leaves[leaves].tolist()),
        "is_linear=0\nshrinkage=1\n",
    ]
    return "\n".join(lines)
