"""The GPU engine "triton": one kernel from float32 rows to codes, and one from codes to raw scores.

Every row visits every node of a tree, instead of following its own path. If each lane followed its own path,
the lanes of a warp would read nodes and values from up to 32 addresses at each of up to 20 levels, and each
level would wait for the one before. Here all lanes of a warp work on the same node:

- A node is one 8-byte load at one address, and its column's codes are one coalesced load.
- Loads of the next nodes don't wait for this one.
- A tree of 63 leaves takes 62 short steps without divergence. A row's state is one integer (`CodedForest`).

Codes have 8 bits, so the 300 values of a row take 300 bytes. The rows in work on a multiprocessor then stay
in its first-level cache, and the model (150 KiB for 300 trees) stays there and in the second-level cache.

A map of 64 x 64 pixels has too few rows for a whole GPU. Its trees are therefore split into groups, which
are evaluated at once, and a third kernel adds up the groups' scores, in float64 and in their order.

Importing this module needs triton. With TRITON_INTERPRET=1 it works on CPU tensors, slowly.
"""

from __future__ import annotations

from subprocess import SubprocessError
from typing import NamedTuple

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.errors import TritonError

from lungseg.learning.trees.coded import encode_forest
from lungseg.learning.trees.forest import ZERO, Forest
from lungseg.system.errors import is_out_of_memory

ROWS_A_WARP = 128  # so each lane has 4 neighbouring rows, whose codes are one load
WARPS = {"few": 1, "many": 4}  # of a program, for few rows and for many
BUSY_WARPS = 16  # a multiprocessor with so many has always one that needn't wait for memory
LEAST_TREES = 4  # of a group, so that adding up the groups stays a small part of the work
UNROLL = 4  # nodes that are loaded at once
ROWS_A_PASS = 1 << 20  # limits the memory for codes: 300 MiB for 300 columns
MOST_LEAVES = 1 << 15  # of a tree: limited by the bits of a packed node
MOST_COLUMNS = 1 << 23  # coded columns: limited by the bits of a packed node
WARM_UP_ROWS = 16  # Triton compiles separate code for strides that are multiples of 16, as most are


class Launch(NamedTuple):
    """How the work is cut into programs: each has a block of rows and a group of trees."""

    warps: int  # of a program
    groups: int  # of trees

    @property
    def block(self) -> int:
        """Return the rows of a program."""
        return self.warps * ROWS_A_WARP


def choose_launch(rows: int, trees: int, multiprocessors: int) -> Launch:
    """Choose small blocks and several groups of trees where the rows alone would leave the GPU idle."""
    wanted = BUSY_WARPS * multiprocessors
    warps = triton.cdiv(rows, ROWS_A_WARP)
    if warps >= wanted:
        return Launch(WARPS["many"], 1)
    return Launch(WARPS["few"], max(1, min(triton.cdiv(wanted, warps), trees // LEAST_TREES)))


@triton.jit(do_not_specialize=["rows"])
def _code(
    x,
    row_stride,
    column_stride,
    rows,
    columns,
    bounds,
    thresholds,
    codes,
    codes_stride,
    ZERO: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Set codes[k, r] to the count of column k's thresholds below x[r, columns[k]], by binary search."""
    # Programs of one row block follow each other, so row-major rows are read from memory once.
    k = tl.program_id(0)
    r = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    column = tl.load(columns + k).to(tl.int64)
    value = tl.load(x + column * column_stride + r * row_stride, mask=r < rows, other=0.0)
    value = tl.where(tl.abs(value) > ZERO, value, 0.0)
    start = tl.load(bounds + k)
    count = tl.load(bounds + k + 1) - start
    below = tl.zeros([BLOCK], tl.int32)
    for step in tl.static_range(8):  # at most 255 thresholds
        reach = below + (128 >> step)
        last = tl.load(thresholds + start + reach - 1, mask=reach <= count, other=float("inf"))
        below = tl.where(value > last, reach, below)
    tl.store(codes + k.to(tl.int64) * codes_stride + r, below.to(tl.uint8))


@triton.jit(do_not_specialize=["trees", "share"])
def _descend(
    codes,
    codes_stride,
    nodes,
    first,
    first_leaf,
    leaves,
    trees,
    share,
    partial,
    BLOCK: tl.constexpr,
    UNROLL: tl.constexpr,
):
    """Set partial[g, r] to the sum of r's leaves in group g of `share` trees, in float64, in their order."""
    r = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    group = tl.program_id(1)
    score = tl.zeros([BLOCK], tl.float64)
    for tree in range(group * share, tl.minimum(group * share + share, trees)):
        leaf = tl.zeros([BLOCK], tl.int32)
        start = tl.load(first + tree)
        stop = tl.load(first + tree + 1)
        for index in tl.range(start, stop, loop_unroll_factor=UNROLL):
            node = tl.load(nodes + index)
            split = node.to(tl.int32)
            place = (node >> 32).to(tl.int32)
            code = tl.load(codes + (split >> 8).to(tl.int64) * codes_stride + r).to(tl.int32)
            moves = (leaf == (place >> 16)) & (code > (split & 255))
            leaf = tl.where(moves, place & 0xFFFF, leaf)
        score += tl.load(leaves + tl.load(first_leaf + tree) + leaf)
    tl.store(partial + group.to(tl.int64) * codes_stride + r, score)


@triton.jit(do_not_specialize=["groups", "rows"])
def _add(partial, partial_stride, groups, constant, scores, rows, BLOCK: tl.constexpr):
    """Set scores[r] to the sum of partial[:, r], in the groups' order, and the constant last."""
    r = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    place = partial + r
    score = tl.load(place)
    for _ in range(1, groups):
        place += partial_stride
        score += tl.load(place)
    tl.store(scores + r, score + tl.load(constant), mask=r < rows)


class TritonForest:
    """A forest that predicts on a CUDA device; rows and raw scores stay there.

    Raises:
        ValueError: a tree has more than 32768 leaves, or there are more than 8 million coded columns.
        ImportError: the kernels can't be compiled or run here.
        RuntimeError: the device's memory is full.
    """

    def __init__(self, forest: Forest, device: torch.device) -> None:
        coded = encode_forest(forest)
        if coded.most_leaves > MOST_LEAVES or len(coded.column) > MOST_COLUMNS:
            raise ValueError(f"a tree has more than {MOST_LEAVES} leaves, or there are too many thresholds")

        def put(values: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(values)).to(device)

        node = (coded.slot.astype(np.int64) << 8) | coded.code
        node |= (coded.here.astype(np.int64) << 48) | (coded.right.astype(np.int64) << 32)
        self._nodes = put(node)
        self._columns, self._bounds = put(coded.column), put(coded.bounds)
        self._thresholds = put(coded.thresholds)
        self._first, self._first_leaf = put(coded.first), put(coded.first_leaf)
        self._leaves, self._constant = put(coded.leaves), put(np.array([coded.constant]))
        self._multiprocessors = _count_multiprocessors(device)
        self._compile(forest.columns, device)

    def _compile(self, columns: int, device: torch.device) -> None:
        """Call what predictions need, so that Triton compiles now, while another engine can be chosen.

        Each size of a program is compiled for both layouts: a column's values side by side, and a row's, as
        in maps with channels last.
        """
        by_column = torch.zeros(columns, WARM_UP_ROWS, device=device).T
        try:
            for rows in (by_column, by_column.contiguous()):
                for warps in WARPS.values():
                    scores = torch.empty(len(rows), dtype=torch.float64, device=device)
                    self._run_pass(rows, scores, Launch(warps, 1))
            if device.type == "cuda":
                torch.cuda.synchronize(device)  # what fails on the device is told only now
        except (RuntimeError, OSError, SubprocessError, TritonError) as error:
            if is_out_of_memory(error):
                raise
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ImportError(f"Triton can't compile or run its kernels: {reason}") from error

    def predict_raw(self, rows: Tensor) -> Tensor:
        """Predict raw scores float64 N of rows float32 N x F of any strides, on the forest's device."""
        scores = torch.empty(len(rows), dtype=torch.float64, device=rows.device)
        for start in range(0, len(rows), ROWS_A_PASS):
            some = rows[start : start + ROWS_A_PASS]
            launch = choose_launch(len(some), len(self._first_leaf), self._multiprocessors)
            self._run_pass(some, scores[start : start + ROWS_A_PASS], launch)
        return scores

    def _run_pass(self, rows: Tensor, scores: Tensor, launch: Launch) -> None:
        trees, columns, count = len(self._first_leaf), len(self._columns), len(rows)
        if trees == 0:
            scores.copy_(self._constant.expand(count))
            return
        block, blocks = launch.block, triton.cdiv(count, launch.block)
        codes = torch.empty(columns, blocks * block, dtype=torch.uint8, device=rows.device)
        partial = torch.empty(launch.groups, blocks * block, dtype=torch.float64, device=rows.device)
        values = rows, *rows.stride(), count, self._columns, self._bounds, self._thresholds
        coded = codes, codes.stride(0)
        forest = self._nodes, self._first, self._first_leaf, self._leaves
        groups = trees, triton.cdiv(trees, launch.groups), partial
        sums = partial, partial.stride(0), launch.groups, self._constant, scores, count
        how = {"BLOCK": block, "num_warps": launch.warps}
        _code[(columns, blocks)](*values, *coded, ZERO=float(ZERO), **how)
        _descend[(blocks, launch.groups)](*coded, *forest, *groups, UNROLL=UNROLL, **how)
        _add[(blocks,)](*sums, **how)


def _count_multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
