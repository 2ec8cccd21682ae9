"""Fast prediction of a LightGBM booster's raw scores, by the fastest engine that works on a device.

- "triton": on CUDA; needs triton and a C compiler.
- "llvm": on the CPU; needs llvmlite.
- "lightgbm": LightGBM's own prediction, the slowest, which always works.

All sum the leaves in float64 and in the order of the trees, except that "triton" and "llvm" add trees of a
single leaf last, and that "triton" first sums each of several groups of trees if there are few rows.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from typing import Protocol

import lightgbm
import numpy as np
import torch
from torch import Tensor

from lungseg.learning.trees.forest import Forest
from lungseg.system.errors import InputError

ENGINES = ("triton", "llvm", "lightgbm")  # the fastest first
NEEDED = {"triton": "triton, a C compiler and Python's headers", "llvm": "llvmlite"}


class _Engine(Protocol):
    def predict_raw(self, rows: Tensor) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Evaluator:
    """A forest, ready to predict with one engine."""

    forest: Forest
    engine: str  # one of ENGINES
    _kernel: _Engine = field(repr=False)
    device: torch.device  # where the engine computes; rows elsewhere are copied there, and their scores back
    passed_over: tuple[str, ...] = ()  # why each faster engine is not used, a sentence each

    def predict_raw(self, rows: Tensor) -> Tensor:
        """Predict raw scores float64 N of rows float32 N x F of any strides, on the rows' device.

        F are the forest's columns; NaN counts as 0 (see `Forest`). On the CPU it is fastest if the values of
        a column are neighbours, as in `maps.view(F, N).T`. Raises ValueError for another shape or type.
        """
        if rows.dtype != torch.float32 or rows.ndim != 2 or rows.shape[1] != self.forest.columns:
            raise ValueError(
                f"the trees need rows float32 N x {self.forest.columns}, "
                f"not {str(rows.dtype).removeprefix('torch.')} {' x '.join(map(str, rows.shape))}"
            )
        if len(rows) == 0:
            return torch.zeros(0, dtype=torch.float64, device=rows.device)
        return self._kernel.predict_raw(rows.detach().to(self.device)).to(rows.device)


def limit_threads(threads: int) -> int:
    """Return how many threads LightGBM may use: on macOS one, else all.

    Its OpenMP and torch's are two libraries there, and their threads together crash the process (pytorch
    issue 191933, autogluon issue 5793).
    """
    return 1 if sys.platform == "darwin" else threads


class _LightGBMPrediction:
    """The engine "lightgbm"."""

    def __init__(self, forest: Forest, threads: int) -> None:
        self._booster = lightgbm.Booster(model_str=forest.to_text())
        self._threads = threads

    def predict_raw(self, rows: Tensor) -> Tensor:
        values = rows.contiguous().numpy()
        return torch.from_numpy(
            self._booster.predict(values, raw_score=True, num_threads=limit_threads(self._threads))
        )


def make_evaluator(
    model: Forest | str, device: torch.device | str = "cpu", threads: int = 1, engine: str | None = None
) -> Evaluator:
    """Make a forest, or LightGBM's model text, ready to predict rows on a device.

    `engine` is one of ENGINES, or None for the fastest that works there. Raises InputError if the text can't
    be used (see `Forest.from_text`), or the named engine doesn't work here.
    """
    forest = Forest.from_text(model) if isinstance(model, str) else model
    device = torch.device(device)
    if engine is not None:
        return _make(forest, device, threads, engine)
    passed_over: tuple[str, ...] = ()
    for name in ENGINES[:-1] if device.type == "cuda" else ENGINES[1:-1]:
        try:
            return _make(forest, device, threads, name, passed_over)
        except InputError as error:
            passed_over += (str(error),)
    return _make(forest, device, threads, ENGINES[-1], passed_over)


def find_engine(device: torch.device | str) -> tuple[str, tuple[str, ...]]:
    """Return the engine that evaluates trees on a device, and why each faster one doesn't work there."""
    left, right = np.int32([~0]), np.int32([~1])
    one_split = Forest(1, np.int32([0]), np.float32([0.5]), left, right, np.int32([0, 1]), np.zeros(2))
    found = make_evaluator(one_split, device)
    return found.engine, found.passed_over


def _make(
    forest: Forest, device: torch.device, threads: int, engine: str, passed_over: tuple[str, ...] = ()
) -> Evaluator:
    if engine not in ENGINES:
        raise InputError(f"there is no engine {engine!r} for trees: choose one of {', '.join(ENGINES)}")
    try:
        if engine == "triton":
            return Evaluator(forest, engine, _make_triton(forest, device), device, passed_over)
        kernel = (_LightGBMPrediction if engine == "lightgbm" else _make_llvm)(forest, threads)
        return Evaluator(forest, engine, kernel, torch.device("cpu"), passed_over)
    except ImportError as error:
        raise InputError(
            f"the engine {engine!r} doesn't work here ({error}): install {NEEDED[engine]}"
        ) from error
    except ValueError as error:
        raise InputError(
            f"the engine {engine!r} can't evaluate these trees here ({error}): choose another"
        ) from error


def _make_triton(forest: Forest, device: torch.device) -> _Engine:
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise ValueError("it needs a CUDA device")
    from lungseg.learning.trees.triton import TritonForest

    return TritonForest(forest, device)


def _make_llvm(forest: Forest, threads: int) -> _Engine:
    from lungseg.learning.trees.llvm import LlvmForest

    return LlvmForest(forest, threads)
