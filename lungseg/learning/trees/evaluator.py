"""Raw scores of a LightGBM booster, equal to its own prediction.

Engines: "triton" on CUDA, which needs triton and a C compiler; "llvm" on the CPU, which needs llvmlite;
"lightgbm", LightGBM's own prediction, the slowest, which always works. All sum the leaves in float64 and in
the trees' order, but that "triton" and "llvm" add trees of a single leaf last.
"""

from __future__ import annotations

import os
from typing import Protocol

import lightgbm
import numpy as np
import torch
from torch import Tensor

from lungseg.learning.trees.forest import Forest
from lungseg.system.errors import InputError

ENGINES = ("triton", "llvm", "lightgbm")  # the fastest first
NEEDED = {"triton": "triton, a C compiler and Python's headers", "llvm": "llvmlite"}
_CPU = torch.device("cpu")


class _Engine(Protocol):
    def raw(self, rows: Tensor) -> Tensor: ...


class Evaluator:
    """A forest made ready by one engine.

    Attributes:
        forest: what is evaluated.
        engine: one of ENGINES.
        device: where the engine works; rows of another device are copied there and their scores back.
        passed_over: why each faster engine was not taken, a sentence each.
    """

    def __init__(
        self,
        forest: Forest,
        engine: str,
        kernel: _Engine,
        device: torch.device,
        passed_over: tuple[str, ...] = (),
    ) -> None:
        self.forest = forest
        self.engine = engine
        self.device = device
        self.passed_over = passed_over
        self._kernel = kernel

    def raw(self, rows: Tensor) -> Tensor:
        """Raw scores float64 N, on the rows' device, of rows float32 N x F, F the forest's columns.

        The rows may have any strides; NaN counts as 0 (see `Forest`). On the CPU it is fastest where a
        column's values are neighbours, as in `maps.view(F, N).T`.

        Raises:
            ValueError: another shape or type.
        """
        if rows.dtype != torch.float32 or rows.ndim != 2 or rows.shape[1] != self.forest.columns:
            raise ValueError(
                f"the trees need rows float32 N x {self.forest.columns}, "
                f"not {str(rows.dtype).removeprefix('torch.')} {' x '.join(map(str, rows.shape))}"
            )
        if len(rows) == 0:
            return torch.zeros(0, dtype=torch.float64, device=rows.device)
        return self._kernel.raw(rows.detach().to(self.device)).to(rows.device)


class _OwnPrediction:
    """LightGBM's own prediction."""

    def __init__(self, forest: Forest, threads: int) -> None:
        self._booster = lightgbm.Booster(model_str=forest.to_text())
        self._threads = threads

    def raw(self, rows: Tensor) -> Tensor:
        values = rows.contiguous().numpy()
        return torch.from_numpy(self._booster.predict(values, raw_score=True, num_threads=self._threads))


def evaluator(
    model: Forest | str, device: torch.device | str = "cpu", threads: int = 1, engine: str | None = None
) -> Evaluator:
    """The forest, or LightGBM's model text, made ready for rows on a device.

    Without `engine` the fastest one that works there is taken.

    Args:
        threads: CPU threads, at least 1.

    Raises:
        InputError: the text can't be used (see `Forest.from_text`), or the named engine doesn't work here.
    """
    forest = Forest.from_text(model) if isinstance(model, str) else model
    device = torch.device(device)
    if engine is not None:
        return _made(forest, device, threads, engine)
    passed_over: tuple[str, ...] = ()
    for name in ENGINES[:-1] if device.type == "cuda" else ENGINES[1:-1]:
        try:
            return _made(forest, device, threads, name, passed_over)
        except InputError as error:
            passed_over += (str(error),)
    return _made(forest, device, threads, ENGINES[-1], passed_over)


def engine_here(device: torch.device | str) -> tuple[str, tuple[str, ...]]:
    """The engine that evaluates trees on a device, and why each faster one doesn't, a sentence each."""
    left, right = np.int32([~0]), np.int32([~1])
    one_split = Forest(1, np.int32([0]), np.float32([0.5]), left, right, np.int32([0, 1]), np.zeros(2))
    found = evaluator(one_split, device)
    return found.engine, found.passed_over


def _made(
    forest: Forest, device: torch.device, threads: int, engine: str, passed_over: tuple[str, ...] = ()
) -> Evaluator:
    if engine not in ENGINES:
        raise InputError(f"there is no engine {engine!r} for trees: choose one of {', '.join(ENGINES)}")
    try:
        if engine == "triton":
            return Evaluator(forest, engine, _triton(forest, device), device, passed_over)
        return Evaluator(forest, engine, _on_cpu(forest, threads, engine), _CPU, passed_over)
    except ImportError as error:
        raise InputError(
            f"the engine {engine!r} doesn't work here ({error}): install {NEEDED[engine]}"
        ) from error
    except ValueError as error:
        raise InputError(
            f"the engine {engine!r} can't evaluate these trees here ({error}): choose another"
        ) from error


def _triton(forest: Forest, device: torch.device) -> _Engine:
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise ValueError("it needs a CUDA device")
    from lungseg.learning.trees.triton import TritonForest

    return TritonForest(forest, device)


def _on_cpu(forest: Forest, threads: int, engine: str) -> _Engine:
    if engine == "lightgbm":
        return _OwnPrediction(forest, threads)
    from lungseg.learning.trees.llvm import LlvmForest

    return LlvmForest(forest, threads)
