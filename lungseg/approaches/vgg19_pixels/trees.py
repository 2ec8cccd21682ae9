"""Raw scores of a LightGBM booster, faster than its own prediction and equal to it.

Engines: "triton" on CUDA; "llvm" on the CPU, which needs llvmlite; "lightgbm", LightGBM's own prediction,
which always works. All sum the leaves in float64 in the trees' order.
"""

from __future__ import annotations

import os
from typing import Protocol

import lightgbm
import torch
from torch import Tensor

from lungseg.approaches.vgg19_pixels.forest import Forest
from lungseg.errors import InputError

ENGINES = ("triton", "llvm", "lightgbm")
_CPU = torch.device("cpu")


class _Engine(Protocol):
    def raw(self, rows: Tensor) -> Tensor: ...


class Evaluator:
    """A forest made ready by one engine.

    Attributes:
        forest: what is evaluated.
        engine: one of ENGINES.
    """

    def __init__(self, forest: Forest, engine: str, kernel: _Engine, device: torch.device) -> None:
        self.forest = forest
        self.engine = engine
        self._kernel = kernel
        self._device = device

    def raw(self, rows: Tensor) -> Tensor:
        """Raw scores float64 N, on the rows' device, of rows float32 N x F, F the forest's columns.

        The rows may have any strides; NaN counts as 0 (see `Forest`). On the CPU it is fastest where a
        column's values are neighbours, as in `maps.view(F, N).T`. An engine of another device gets a copy.

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
        return self._kernel.raw(rows.detach().to(self._device)).to(rows.device)

    def predict(self, rows: Tensor) -> Tensor:
        """What `Booster.predict` returns: `raw` through the objective's transformation; else as `raw`."""
        return self.forest.output(self.raw(rows))


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
    for name in ENGINES if device.type == "cuda" else ENGINES[1:-1]:
        try:
            return _made(forest, device, threads, name)
        except InputError:
            continue
    return _made(forest, device, threads, "lightgbm")


def _made(forest: Forest, device: torch.device, threads: int, engine: str) -> Evaluator:
    if engine not in ENGINES:
        raise InputError(f"there is no engine {engine!r} for trees: choose one of {', '.join(ENGINES)}")
    try:
        if engine == "triton":
            return Evaluator(forest, engine, _triton(forest, device), device)
        return Evaluator(forest, engine, _on_cpu(forest, threads, engine), _CPU)
    except (ImportError, ValueError) as error:
        raise InputError(
            f"the engine {engine!r} can't evaluate these trees here ({error}): choose another"
        ) from error


def _triton(forest: Forest, device: torch.device) -> _Engine:
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise ValueError("it needs a CUDA device")
    from lungseg.approaches.vgg19_pixels.trees_triton import TritonForest

    return TritonForest(forest, device)


def _on_cpu(forest: Forest, threads: int, engine: str) -> _Engine:
    if engine == "lightgbm":
        return _OwnPrediction(forest, threads)
    from lungseg.approaches.vgg19_pixels.trees_llvm import LlvmForest

    return LlvmForest(forest, threads)
