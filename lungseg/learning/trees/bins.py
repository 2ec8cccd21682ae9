"""Quantile bins: a feature value becomes a code of one byte. Bins are found once, from a sample of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from lungseg.learning.trees.forest import ZERO
from lungseg.system.errors import InputError
from lungseg.system.files import write_arrays

MOST_BINS = 255  # what LightGBM keeps in a byte without a bin for missing values
BELOW_ZERO = np.nextafter(-ZERO, np.float32(-1))
CELLS = 1 << 14  # of the grid in which edges are looked up
BLOCK = 1 << 15  # values at a time, so that intermediate results stay in the processor's cache
MOST_COMPARISONS = 8  # a binary search among 254 edges needs 8


@dataclass(frozen=True)
class Bins:
    """The edges between the bins of each feature. A value's code is the number of edges below it.

    So `value <= edges[c]` if and only if `code <= c`, exactly, for every float32 value. A tree's threshold on
    codes is therefore a threshold on values.
    """

    edges: tuple[np.ndarray, ...]  # of each of F features: at most 254 float32, ascending; none if constant
    lowest: np.ndarray  # float32 F, of the sample; other values may lie outside of `lowest` to `highest`
    highest: np.ndarray

    @classmethod
    def from_sample(cls, rows: np.ndarray, count: int = MOST_BINS) -> Bins:
        """Find at most `count` bins (2 to 255) that hold about equally many of the rows float32 S x F, S > 0.

        A value that alone fills a bin (such as the zeros after a ReLU) gets only that one, and the other bins
        share the rest, as in LightGBM's own binning. An edge lies half-way between two values that occur, so
        that the last digit of a feature decides nothing. No edge is within 1e-35 of zero.

        Raises:
            InputError: a value is NaN or infinite.
            ValueError: another `count`, shape or type.
        """
        if not 2 <= count <= MOST_BINS:
            raise ValueError(f"{count} bins: between 2 and {MOST_BINS} fit")
        if rows.dtype != np.float32 or rows.ndim != 2 or not len(rows):
            raise ValueError(f"rows are {rows.dtype} {rows.shape}, not float32 S x F with S > 0")
        require_finite(torch.from_numpy(rows))
        edges = tuple(_find_quantile_edges(rows[:, feature], count) for feature in range(rows.shape[1]))
        return cls(edges, rows.min(axis=0), rows.max(axis=0))

    @classmethod
    def join(cls, several: Sequence[Bins]) -> Bins:
        """Join the bins of tables that stand side by side, in their order."""
        return cls(
            tuple(edges for bins in several for edges in bins.edges),
            np.concatenate([bins.lowest for bins in several]),
            np.concatenate([bins.highest for bins in several]),
        )

    def __len__(self) -> int:
        """Return the number of features."""
        return len(self.edges)

    @cached_property
    def _padded(self) -> Tensor:
        """Return the edges F x E, padded with infinity, which no value exceeds."""
        padded = torch.full((len(self), max(map(len, self.edges), default=0)), torch.inf)
        for row, edges in zip(padded, self.edges, strict=True):
            row[: len(edges)] = torch.from_numpy(edges)
        return padded

    @cached_property
    def _on_devices(self) -> dict[torch.device, Tensor]:
        return {}

    def _put_edges(self, device: torch.device) -> Tensor:
        """Return the padded edges on a device, where they stay."""
        if device not in self._on_devices:
            self._on_devices[device] = self._padded.to(device)
        return self._on_devices[device]

    @cached_property
    def _grids(self) -> list[_Grid]:
        return [_Grid(torch.from_numpy(edges)) for edges in self.edges]

    def encode(self, rows: Tensor | np.ndarray) -> Tensor | np.ndarray:
        """Compute codes uint8 N x F of values float32 N x F, as an array or as a tensor on the same device.

        It is fastest if the values of a feature are neighbours in memory, as in `maps.flatten(1).T` of maps
        F x H x W. Raises InputError if a value is NaN or infinite, ValueError for another shape or type.
        """
        if isinstance(rows, np.ndarray):
            return self.encode(torch.from_numpy(rows)).numpy()
        if rows.dtype != torch.float32 or rows.ndim != 2 or rows.shape[1] != len(self):
            raise ValueError(f"rows are {rows.dtype} {tuple(rows.shape)}, not float32 N x {len(self)}")
        require_finite(rows)
        columns = rows.T.contiguous()
        if rows.device.type == "cpu":
            codes = torch.empty(columns.shape, dtype=torch.uint8)
            for grid, values, out in zip(self._grids, columns, codes, strict=True):
                for start in range(0, len(values), BLOCK):
                    out[start : start + BLOCK] = grid.encode(values[start : start + BLOCK])
        else:
            codes = torch.searchsorted(self._put_edges(rows.device), columns, out_int32=True).to(torch.uint8)
        return codes.T.contiguous()

    def save(self, path: Path) -> None:
        """Write an .npz file. Raises InputError if the disk is full or the place can't be written."""
        flat = np.concatenate([np.zeros(0, np.float32), *self.edges])
        counts = np.array([len(edges) for edges in self.edges], np.int64)
        write_arrays(path, edges=flat, counts=counts, lowest=self.lowest, highest=self.highest)

    @classmethod
    def load(cls, path: Path) -> Bins:
        """Read what `save` wrote. Raises InputError if it is missing or damaged."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                flat, counts = stored["edges"], stored["counts"]
                lowest, highest = stored["lowest"], stored["highest"]
            edges = tuple(np.split(flat, np.cumsum(counts)[:-1])) if len(counts) else ()
            sound = (
                {array.dtype for array in (flat, lowest, highest)} == {np.dtype(np.float32)}
                and counts.sum() == len(flat)
                and len(counts) == len(lowest) == len(highest)
                and np.isfinite(flat).all()
                and all(len(each) < MOST_BINS and (np.diff(each) > 0).all() for each in edges)
            )
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise InputError(f"{path} is missing or damaged: bin the features again") from error
        if not sound:
            raise InputError(f"{path} holds no bins of features: bin the features again")
        return cls(edges, lowest, highest)


class _Grid:
    """Fast look-up of one feature's edges on the CPU: an even grid of cells narrows the search.

    A value's cell never decreases as the value grows, whatever the rounding. So edges in lower cells are
    below the value and edges in higher cells are not; only edges in its own cell are compared with it. Unlike
    a binary search, this needs no branches.
    """

    def __init__(self, edges: Tensor) -> None:
        self._edges = torch.cat([edges, torch.tensor([torch.inf])])
        self._lowest = self._edges[0] if len(edges) else torch.tensor(0.0)
        span = edges[-1] - edges[0] if len(edges) > 1 else torch.tensor(1.0)
        self._scale = (CELLS - 1) / span
        self._comparisons = MOST_COMPARISONS + 1
        if 0 < self._scale < torch.inf:
            cells = self._find_cells(edges)
            self._below = torch.searchsorted(cells, torch.arange(CELLS, dtype=torch.int32), out_int32=True)
            self._comparisons = int(torch.bincount(cells).max()) if len(edges) else 0

    def _find_cells(self, values: Tensor) -> Tensor:
        return (values - self._lowest).mul_(self._scale).clamp_(0, CELLS - 1).to(torch.int32)

    def encode(self, values: Tensor) -> Tensor:
        """Compute codes int32 n of values float32 n on the CPU."""
        if self._comparisons > MOST_COMPARISONS:
            return torch.bucketize(values, self._edges, out_int32=True)
        codes = self._below.index_select(0, self._find_cells(values))
        for _ in range(self._comparisons):
            codes += values > self._edges.index_select(0, codes)
        return codes


def require_finite(rows: Tensor) -> None:
    """Raise InputError if any value of the features float32 N x F is NaN or infinite."""
    # The extremes are NaN if any value is. This takes one pass, and no array of truth values.
    if rows.numel() and not torch.stack(torch.aminmax(rows)).isfinite().all():
        raise InputError(
            "the features hold NaN or infinite values: look for damaged weights or images, "
            "or compute in float32"
        )


def _find_quantile_edges(values: np.ndarray, count: int) -> np.ndarray:
    """Find ascending edges float32 of at most `count` bins of values float32 S."""
    distinct, counts = np.unique(np.where(abs(values) <= ZERO, np.float32(0), values), return_counts=True)
    if len(distinct) <= count:
        cuts = np.arange(len(distinct) - 1)
    else:
        weights = _cap_counts(counts.astype(np.float64), count)
        middles = np.cumsum(weights) - weights / 2
        # The relative margin keeps a rounding error from making one bin too many.
        places = np.floor(middles / weights.sum() * count * (1 - 1e-12))
        cuts = np.flatnonzero(np.diff(places))
    lower, upper = distinct[cuts], distinct[cuts + 1]
    middle = (lower.astype(np.float64) + upper) / 2
    edges = middle.astype(np.float32)
    edges = np.where(edges < upper, edges, lower)  # between neighbouring floats, rounding may give the upper
    # No edge lies among the values that LightGBM takes for zero.
    return np.where(abs(edges) > ZERO, edges, np.where(upper > ZERO, ZERO, BELOW_ZERO))


def _cap_counts(counts: np.ndarray, bins: int) -> np.ndarray:
    """Cap the counts of frequent values at a bin's share, so that the others share the remaining bins."""
    heavy = np.zeros(len(counts), bool)
    while True:
        share = counts[~heavy].sum() / (bins - heavy.sum())
        more = ~heavy & (counts > share)
        if not more.any():
            return np.where(heavy, share, counts)
        heavy |= more
