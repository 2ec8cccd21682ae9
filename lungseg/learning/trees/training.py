"""LightGBM on codes: no float copy of the table, and a fitted model that reads feature values."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import lightgbm
import numpy as np

from lungseg.learning.trees.bins import MOST_BINS, Bins
from lungseg.system.errors import InputError

if TYPE_CHECKING:
    pass

ROWS_A_PUSH = 1 << 14  # rows that are float32 at a time
# A bin a code on every machine, whatever codes occur in its rows: nothing is bundled, merged, left out or
# taken for missing.
AS_CODED = {
    "max_bin": MOST_BINS,
    "min_data_in_bin": 1,
    "feature_pre_filter": False,
    "enable_bundle": False,
    "is_enable_sparse": False,
    "use_missing": False,
    "boost_from_average": False,  # what it starts from is given instead
    "verbosity": -1,
}
STEPS = 2.0**20  # a gradient is a whole number of steps


@dataclass(frozen=True)
class CodedRows:
    """Rows to learn from: tables of codes side by side, and a target a row.

    Attributes:
        tables: uint8 N x F each, with the same N; mapped files are read block by block.
        targets: float32 N.
        rows: which rows count, in this order: bool N or int n; all if None. Nothing is copied.

    Raises:
        ValueError: a table of another type or number of rows, or truth values of another number.
    """

    tables: Sequence[np.ndarray]
    targets: np.ndarray
    rows: np.ndarray | None = None
    _places: np.ndarray | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        for table in self.tables:
            if table.dtype != np.uint8 or table.ndim != 2 or len(table) != len(self.targets):
                raise ValueError(
                    f"a table is {table.dtype} {table.shape}, not uint8 with {len(self.targets)} rows"
                )
        if self.rows is not None:
            places = np.flatnonzero(self.rows) if self.rows.dtype == bool else self.rows
            if self.rows.dtype == bool and len(self.rows) != len(self.targets):
                raise ValueError(f"{len(self.rows)} truth values for {len(self.targets)} rows")
            object.__setattr__(self, "_places", places)

    def __len__(self) -> int:
        return len(self.targets) if self._places is None else len(self._places)

    @property
    def columns(self) -> int:
        return sum(table.shape[1] for table in self.tables)

    def codes(self, start: int, end: int) -> np.ndarray:
        """Codes uint8 n x F of the rows from `start` to `end`, exclusive."""
        chosen = slice(start, end) if self._places is None else self._places[start:end]
        parts = [table[chosen] for table in self.tables]
        return np.asarray(parts[0]) if len(parts) == 1 else np.concatenate(parts, axis=1)

    def chosen_targets(self) -> np.ndarray:
        """Targets float32 of the rows that count, in their order."""
        return self.targets if self._places is None else self.targets[self._places]


class _Pushed(lightgbm.Sequence):
    """What LightGBM asks for rows: a block at a time, as float32, since its interface takes no bytes."""

    batch_size = ROWS_A_PUSH

    def __init__(self, coded: CodedRows) -> None:
        self._coded = coded

    def __len__(self) -> int:
        return len(self._coded)

    def __getitem__(self, index: slice) -> np.ndarray:
        return self._coded.codes(index.start, index.stop).astype(np.float32)


def starting_value(total: float, count: int) -> float:
    """The mean that boosting starts from, in whole steps: so the order of a sum has no part in it."""
    return round(total / count * STEPS) / STEPS


def train_on_codes(
    train: CodedRows,
    bins: Bins,
    parameters: Mapping[str, Any],
    rounds: int,
    held: CodedRows | None = None,
    callbacks: Sequence[Callable] = (),
    feval: Callable | None = None,
    start: float | None = None,
) -> lightgbm.Booster:
    """Fits boosted trees to the squared error on codes.

    Gradients are rounded to 2^-20, which sums of up to 2^31 rows hold exactly. So a tree doesn't depend on
    the order of rows, on threads or on how many machines share the rows, not even where two features would
    split a leaf into the same halves and the last digit of a sum would choose between them.

    Args:
        train: at least one row, of targets in [-1, 1].
        bins: of the columns of `train`, in their order (`Bins.join` for several tables).
        parameters: LightGBM's; those of binning and the objective are set here.
        rounds: trees at most.
        held: rows to validate on; its metrics are named "validation", those on `train` "train". Without
            it and `feval` no metric is computed, which saves time.
        callbacks, feval: as of `lightgbm.train`.
        start: what boosting starts from, the mean of the targets if None.

    Returns:
        A booster that predicts from feature values (float32 N x F), with the trees' best number in
        `best_iteration` as LightGBM left it.

    Raises:
        InputError, ValueError: as `boost`.
    """
    booster, start = boost(train, bins, parameters, rounds, held, callbacks, feval, start)
    text = to_feature_values(booster.model_to_string(num_iteration=-1), bins, start)
    fitted = lightgbm.Booster(model_str=text)
    fitted.best_iteration = booster.best_iteration
    return fitted


def boost(
    train: CodedRows,
    bins: Bins,
    parameters: Mapping[str, Any],
    rounds: int,
    held: CodedRows | None = None,
    callbacks: Sequence[Callable] = (),
    feval: Callable | None = None,
    start: float | None = None,
) -> tuple[lightgbm.Booster, float]:
    """As `train_on_codes`, but returns the booster that reads codes and what it lacks: the starting value.

    Raises:
        InputError: every feature is constant.
        ValueError: the tables have other columns than the bins.
    """
    if train.columns != len(bins) or (held is not None and held.columns != len(bins)):
        raise ValueError(f"tables of {train.columns} columns, but {len(bins)} features are binned")
    if not any(map(len, bins.edges)):
        raise InputError("no feature varies from pixel to pixel: look for empty images or damaged weights")
    parameters = {**parameters, **AS_CODED}
    if start is None:
        start = starting_value(float(train.chosen_targets().sum(dtype=np.float64)), len(train))
    rows = dataset(train, _every_code(bins, parameters), parameters, start)
    sets, names = ([rows], ["train"]) if held is not None or feval else ([], [])
    if held is not None:
        sets, names = [*sets, dataset(held, rows, parameters, start)], [*names, "validation"]
    booster = lightgbm.train(
        {**parameters, "objective": _squared_error, "metric": "l2"},
        rows,
        num_boost_round=rounds,
        valid_sets=sets,
        valid_names=names,
        feval=feval,
        callbacks=list(callbacks),
    )
    return booster, start


def dataset(
    coded: CodedRows, reference: lightgbm.Dataset, parameters: Mapping[str, Any], start: float
) -> lightgbm.Dataset:
    """LightGBM's own form of the rows, a byte a value, binned as `reference` is; made when first used."""
    return lightgbm.Dataset(
        _Pushed(coded),
        coded.chosen_targets(),
        reference=reference,
        init_score=np.full(len(coded), start),
        params=dict(parameters),
    )


def _every_code(bins: Bins, parameters: Mapping[str, Any]) -> lightgbm.Dataset:
    """A table in which every code of every feature occurs: LightGBM then gives each a bin of its own."""
    counts = np.array([len(edges) + 1 for edges in bins.edges])
    codes = (np.arange(MOST_BINS)[:, None] % counts).astype(np.float32)
    return lightgbm.Dataset(codes, np.zeros(MOST_BINS), params=dict(parameters))


def _squared_error(predicted: np.ndarray, data: lightgbm.Dataset) -> tuple[np.ndarray, np.ndarray]:
    gradient = predicted - data.get_label()
    gradient *= STEPS
    np.rint(gradient, out=gradient)
    gradient /= STEPS
    return gradient.astype(np.float32), np.ones(len(gradient), np.float32)


def to_feature_values(text: str, bins: Bins, start: float) -> str:
    """A model on codes as the same model on feature values.

    Args:
        text: LightGBM's text of a model, trained on codes of `bins`.
        bins: whose edges replace thresholds. A threshold between the codes c and c + 1 is the edge c.
        start: added to the first tree, as LightGBM does with a starting value of its own.
    """
    head, *blocks = re.split(r"^(?=Tree=)", text, flags=re.MULTILINE)
    *trees, last = blocks
    last, ending = re.split(r"^(?=end of trees)", last, maxsplit=1, flags=re.MULTILINE)
    trees = [_tree_on_values(tree, bins) for tree in (*trees, last)]
    trees[0] = _shifted(trees[0], start)
    ranges = " ".join(
        f"[{float(low)!r}:{float(high)!r}]" if len(edges) else "none"
        for edges, low, high in zip(bins.edges, bins.lowest, bins.highest, strict=True)
    )
    sizes = " ".join(str(len(tree.encode())) for tree in trees)  # the reader finds a tree by them
    head = _with_line(_with_line(head, "feature_infos", ranges), "tree_sizes", sizes)
    return head + "".join(trees) + ending


def _tree_on_values(tree: str, bins: Bins) -> str:
    if _line(tree, "num_cat") != "0":
        raise ValueError("a tree on codes has a categorical split")
    features = [int(word) for word in _line(tree, "split_feature").split()]
    codes = [int(float(word)) for word in _line(tree, "threshold").split()]
    edges = [float(bins.edges[feature][code]) for feature, code in zip(features, codes, strict=True)]
    return _with_line(tree, "threshold", " ".join(map(repr, edges)))


def _shifted(tree: str, by: float) -> str:
    for key in ("leaf_value", "internal_value"):
        values = [float(word) + by for word in _line(tree, key).split()]
        tree = _with_line(tree, key, " ".join(map(repr, values)))
    return tree


def _line(text: str, key: str) -> str:
    found = re.search(rf"^{key}=(.*)$", text, flags=re.MULTILINE)
    return found[1] if found else ""


def _with_line(text: str, key: str, value: str) -> str:
    return re.sub(rf"^{key}=.*$", lambda _: f"{key}={value}", text, count=1, flags=re.MULTILINE)
