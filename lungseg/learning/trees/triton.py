"""The GPU engine "triton": one kernel from float32 rows to codes, and one from codes to raw scores.

Every row visits every node of a tree, instead of following its own path. If each lane followed its own path,
the lanes of a warp would read nodes and values from up to 32 addresses at each of up to 20 levels, and each
level would wait for the one before. Here all lanes of a warp work on the same node:

- A node is one 8-byte load at one address, and its column's codes are one coalesced load.
- Loads of the next nodes don't wait for this one.
- A tree of 63 leaves takes 62 short steps without divergence. A row's state is one integer (`CodedForest`).

Codes have 8 bits, so the 300 values of a row take 300 bytes. The rows in work on a multiprocessor then stay
in its first-level cache, and the model (150 KiB for 300 trees) stays there and in the second-level cache.

Importing this module needs triton. With TRITON_INTERPRET=1 it works on CPU tensors, slowly.
"""

from __future__ import annotations

from subprocess import SubprocessError

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.errors import TritonError

from lungseg.learning.trees.coded import encode_forest
from lungseg.learning.trees.forest import ZERO, Forest

BLOCK = 512  # rows per program: with 4 warps each lane has 4 neighbouring rows, whose codes are one load
WARPS = 4
UNROLL = 4  # nodes that are loaded at once
ROWS_A_PASS = 1 << 20  # limits the memory for codes: 300 MiB for 300 columns
MOST_LEAVES = 1 << 15  # of a tree: limited by the bits of a packed node
MOST_COLUMNS = 1 << 23  # coded columns: limited by the bits of a packed node
WARM_UP_ROWS = 16  # Triton compiles separate code for multiples of 16, the usual counts and strides


@triton.jit
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


@triton.jit
def _descend(
    codes,
    codes_stride,
    nodes,
    first,
    first_leaf,
    leaves,
    trees,
    constant,
    scores,
    rows,
    BLOCK: tl.constexpr,
    UNROLL: tl.constexpr,
):
    """Set scores[r] to the sum of r's leaves, in float64 and in the trees' order, and the constant last."""
    r = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    score = tl.zeros([BLOCK], tl.float64)
    for tree in range(trees):
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
    tl.store(scores + r, score + tl.load(constant), mask=r < rows)


class TritonForest:
    """A forest that predicts on a CUDA device; rows and raw scores stay there.

    Raises:
        ValueError: a tree has more than 32768 leaves, or there are more than 8 million coded columns.
        ImportError: the kernels can't be compiled or run here.
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
        self._compile(forest.columns, device)

    def _compile(self, columns: int, device: torch.device) -> None:
        """Call the kernels once, so that Triton compiles now, while another engine can still be chosen."""
        rows = torch.zeros(columns, WARM_UP_ROWS, device=device).T
        try:
            self.predict_raw(rows)
        except (RuntimeError, OSError, SubprocessError, TritonError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ImportError(f"Triton can't compile or run its kernels: {reason}") from error

    def predict_raw(self, rows: Tensor) -> Tensor:
        """Predict raw scores float64 N of rows float32 N x F of any strides, on the forest's device."""
        scores = torch.full((len(rows),), 0.0, dtype=torch.float64, device=rows.device)
        for start in range(0, len(rows), ROWS_A_PASS):
            self._run_pass(rows[start : start + ROWS_A_PASS], scores[start : start + ROWS_A_PASS])
        return scores

    def _run_pass(self, rows: Tensor, scores: Tensor) -> None:
        trees, columns, count = len(self._first_leaf), len(self._columns), len(rows)
        if trees == 0:
            scores += self._constant
            return
        blocks = triton.cdiv(count, BLOCK)
        codes = torch.empty(columns, blocks * BLOCK, dtype=torch.uint8, device=rows.device)
        values = rows, *rows.stride(), count, self._columns, self._bounds, self._thresholds
        coded = codes, codes.stride(0)
        forest = self._nodes, self._first, self._first_leaf, self._leaves, trees, self._constant
        _code[(columns, blocks)](*values, *coded, ZERO=float(ZERO), BLOCK=BLOCK, num_warps=WARPS)
        _descend[(blocks,)](*coded, *forest, scores, count, BLOCK=BLOCK, UNROLL=UNROLL, num_warps=WARPS)
