"""Training of LightGBM on codes: no float copy of the table, and a fitted model that reads feature values."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import lightgbm
import numpy as np
import torch

from lungseg.learning.trees.bins import MOST_BINS, Bins
from lungseg.system.errors import InputError, is_out_of_memory, summarise_error

ROWS_A_BATCH = 1 << 14  # rows that are float32 at a time
# One bin per code on every machine, whatever codes occur in its rows: no features are bundled, no bins merged
# or left out, and no value counts as missing.
BINNING_PARAMETERS = {
    "max_bin": MOST_BINS,
    "min_data_in_bin": 1,
    "feature_pre_filter": False,
    "enable_bundle": False,
    "is_enable_sparse": False,
    "use_missing": False,
    "boost_from_average": False,  # the starting value is given instead
    "verbosity": -1,
}
STEPS = 2.0**20  # gradients are multiples of 1 / STEPS
ON_CUDA = {"device_type": "cuda"}
# LightGBM on a GPU promises no repeatability, and has one way to walk through the table.
NOT_ON_CUDA = ("deterministic", "force_row_wise", "force_col_wise")
_PROBE_ROWS = 64
_PROBE = {
    **{"verbosity": -1, "num_threads": 1, "min_data_in_leaf": 2, "seed": 0},
    **{"bagging_fraction": 0.5, "bagging_freq": 1, "feature_fraction": 0.5},
}
_PROBING = threading.Lock()


@dataclass(frozen=True)
class CodedRows:
    """Training rows: tables of codes side by side, and a target per row.

    Raises ValueError for a table of another type or number of rows, or for truth values of another number.
    """

    tables: Sequence[np.ndarray]  # uint8 N x F each, with the same N; memory-mapped files are read in blocks
    targets: np.ndarray  # float32 N
    rows: np.ndarray | None = None  # those that are used, in this order: bool N or int n; all if None
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
        """Return the number of columns of all tables."""
        return sum(table.shape[1] for table in self.tables)

    def read_codes(self, start: int, end: int) -> np.ndarray:
        """Read the codes uint8 n x F of the used rows from `start` to `end`, exclusive."""
        chosen = slice(start, end) if self._places is None else self._places[start:end]
        codes = [table[chosen] for table in self.tables]
        return np.asarray(codes[0]) if len(codes) == 1 else np.concatenate(codes, axis=1)

    def read_targets(self) -> np.ndarray:
        """Return the targets float32 of the used rows, in their order."""
        return self.targets if self._places is None else self.targets[self._places]


class _RowSequence(lightgbm.Sequence):
    """Rows as LightGBM reads them: a batch at a time, as float32, since its interface takes no bytes."""

    batch_size = ROWS_A_BATCH

    def __init__(self, coded: CodedRows) -> None:
        self._coded = coded

    def __len__(self) -> int:
        return len(self._coded)

    def __getitem__(self, index: slice) -> np.ndarray:
        return self._coded.read_codes(index.start, index.stop).astype(np.float32)


def use_learner(parameters: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Return LightGBM's parameters for growing trees on a device, as far as the installed build can.

    On CUDA, trees of the same seed may differ in the last digits of their sums. Where the build has no CUDA
    learner (`why_not_on_cuda`), or the device is a CPU, the parameters are those that were given.
    """
    if device.type != "cuda" or why_not_on_cuda() is not None:
        return dict(parameters)
    return {key: value for key, value in parameters.items() if key not in NOT_ON_CUDA} | ON_CUDA


def describe_learner(device: torch.device) -> list[str]:
    """Say what grows LightGBM's trees for a run on a GPU: a sentence for the plan; none on a CPU."""
    if device.type != "cuda":
        return []
    try:
        problem = why_not_on_cuda()
    except RuntimeError:  # the fit asks again, and will say so if it is still full
        return ["the GPU's memory is full, so LightGBM couldn't be tried there"]
    if problem is None:
        return ["its trees grow on the GPU, so two fits of the same seed may differ slightly"]
    return [f"its trees grow on the CPU: LightGBM can't use the GPU ({problem.rstrip('.')})"]


def name_learner(device: torch.device) -> str:
    """Return what grows LightGBM's trees for a run on a device, "cpu" or "cuda"; their last digits differ.

    "unknown" if the device's memory is too full to find out.
    """
    if device.type != "cuda":
        return "cpu"
    try:
        return "cpu" if why_not_on_cuda() else "cuda"
    except RuntimeError:
        return "unknown"


def why_not_on_cuda() -> str | None:
    """Return why LightGBM can't grow trees on CUDA here, or None, by growing a small tree once, silently.

    It is grown as those of fits are, by `boost` with a bagging of rows and a choice of columns. PyPI's
    wheels have no CUDA learner. Raises RuntimeError if the device's memory is full.
    """
    with _PROBING:  # several fits may ask at once
        return _probe_cuda()


@cache
def _probe_cuda() -> str | None:
    noise = np.random.default_rng(0).random((_PROBE_ROWS, 2), np.float32)
    bins = Bins.from_sample(noise)
    rows = CodedRows([bins.encode(torch.from_numpy(noise)).numpy()], noise[:, 0].copy())
    try:
        with _without_messages():
            boost(rows, bins, {**ON_CUDA, **_PROBE}, 1)
    except lightgbm.basic.LightGBMError as error:
        told = RuntimeError(str(error))
        if is_out_of_memory(told):
            raise told from error
        return summarise_error(error)
    return None


@contextmanager
def _without_messages() -> Iterator[None]:
    """Hide what LightGBM's library writes to stderr itself, whatever its verbosity."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def compute_starting_value(total: float, count: int) -> float:
    """Compute the mean of targets, which boosting starts from.

    It is rounded to 2^-20, so that the order of a sum doesn't matter.
    """
    return round(total / count * STEPS) / STEPS


def train_on_codes(
    train: CodedRows,
    bins: Bins,
    parameters: Mapping[str, Any],
    rounds: int,
    callbacks: Sequence[Callable] = (),
) -> lightgbm.Booster:
    """Fit boosted trees to the squared error on codes.

    Gradients are rounded to 2^-20, which sums of up to 2^31 rows hold exactly. So a tree doesn't depend on
    the order of rows, on threads or on how many machines share the rows. That holds even where two features
    split a leaf into the same halves, and the last digit of a sum would choose between them.

    Args:
        train: at least one row, of targets in [-1, 1].
        bins: of the columns of `train`, in their order (`Bins.join` for several tables).
        parameters: LightGBM's; those of binning and the objective are set here.
        rounds, callbacks: as of `lightgbm.train`.

    Returns:
        A booster that predicts from feature values float32 N x F.

    Raises:
        InputError: every feature is constant.
        ValueError: the tables have other columns than the bins.
    """
    booster, start = boost(train, bins, parameters, rounds, callbacks)
    text = to_feature_values(booster.model_to_string(num_iteration=-1), bins, start)
    return lightgbm.Booster(model_str=text)


def boost(
    train: CodedRows,
    bins: Bins,
    parameters: Mapping[str, Any],
    rounds: int,
    callbacks: Sequence[Callable] = (),
    start: float | None = None,
) -> tuple[lightgbm.Booster, float]:
    """Fit boosted trees as `train_on_codes` does, but return the booster that reads codes, and `start`.

    `start` is the value that boosting starts from (None: the mean of the targets). It has to be added to the
    booster's predictions.
    """
    if train.columns != len(bins):
        raise ValueError(f"tables of {train.columns} columns, but {len(bins)} features are binned")
    if not any(map(len, bins.edges)):
        raise InputError("no feature varies from pixel to pixel: look for empty images or damaged weights")
    parameters = {**parameters, **BINNING_PARAMETERS}
    targets = train.read_targets()
    if start is None:
        start = compute_starting_value(float(targets.sum(dtype=np.float64)), len(train))
    rows = lightgbm.Dataset(
        _RowSequence(train),
        targets,
        reference=_make_reference(bins, parameters),
        init_score=np.full(len(train), start),
        params=parameters,
    )
    own = {**parameters, "objective": _squared_error, "metric": "l2"}
    return lightgbm.train(own, rows, num_boost_round=rounds, callbacks=list(callbacks)), start


def _make_reference(bins: Bins, parameters: Mapping[str, Any]) -> lightgbm.Dataset:
    """Make a table in which each feature has every code, so that LightGBM gives each code its own bin."""
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
    """Turn LightGBM's text of a model that reads codes of `bins` into one that reads feature values.

    A threshold between the codes c and c + 1 becomes the edge c. The starting value is added to the first
    tree, as LightGBM does with its own.
    """
    head, *blocks = re.split(r"^(?=Tree=)", text, flags=re.MULTILINE)
    *trees, last = blocks
    last, ending = re.split(r"^(?=end of trees)", last, maxsplit=1, flags=re.MULTILINE)
    trees = [_convert_thresholds(tree, bins) for tree in (*trees, last)]
    trees[0] = _shift_leaves(trees[0], start)
    ranges = " ".join(
        f"[{float(low)!r}:{float(high)!r}]" if len(edges) else "none"
        for edges, low, high in zip(bins.edges, bins.lowest, bins.highest, strict=True)
    )
    sizes = " ".join(str(len(tree.encode())) for tree in trees)  # LightGBM finds the trees by their sizes
    head = _set_value(_set_value(head, "feature_infos", ranges), "tree_sizes", sizes)
    return head + "".join(trees) + ending


def _convert_thresholds(tree: str, bins: Bins) -> str:
    if _get_value(tree, "num_cat") != "0":
        raise ValueError("a tree on codes has a categorical split")
    features = [int(word) for word in _get_value(tree, "split_feature").split()]
    codes = [int(float(word)) for word in _get_value(tree, "threshold").split()]
    edges = [float(bins.edges[feature][code]) for feature, code in zip(features, codes, strict=True)]
    return _set_value(tree, "threshold", " ".join(map(repr, edges)))


def _shift_leaves(tree: str, by: float) -> str:
    for key in ("leaf_value", "internal_value"):
        values = [float(word) + by for word in _get_value(tree, key).split()]
        tree = _set_value(tree, key, " ".join(map(repr, values)))
    return tree


def _get_value(text: str, key: str) -> str:
    """Return the value of a line `key=value`; empty if there is none."""
    found = re.search(rf"^{key}=(.*)$", text, flags=re.MULTILINE)
    return found[1] if found else ""


def _set_value(text: str, key: str, value: str) -> str:
    return re.sub(rf"^{key}=.*$", lambda _: f"{key}={value}", text, count=1, flags=re.MULTILINE)
