"""How to compute (device, precision, memory layout, threads), as opposed to what to compute."""

from __future__ import annotations

import os
import random
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import threadpoolctl
import torch

from lungseg.system.interrupts import read_handlers


@dataclass(frozen=True)
class Runtime:
    """How to compute. It may change the speed, and results only within rounding."""

    device: torch.device  # where tensors live
    precision: str = "float32"  # or "bfloat16" (autocast)
    channels_last: bool = False  # memory layout NHWC for convolutions
    compiled: bool = False  # use torch.compile for inference
    threads: int = 1  # of the CPU
    tuned: bool = True  # fold batch norms and replay CUDA graphs for inference
    deterministic: bool = True  # time with torch's deterministic algorithms, as fits and scores are made

    @property
    def dtype(self) -> torch.dtype:
        """Return the torch dtype of `precision`."""
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32

    @property
    def memory_format(self) -> torch.memory_format:
        """Return the torch memory format of the layout."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def autocast(self) -> torch.autocast:
        """Return a context of bfloat16 autocast, or one that changes nothing if the precision is float32."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16")


def use_threads(threads: int) -> None:
    """Set the threads of torch, BLAS and OpenMP. Rounding, and so the result, depends on their number."""
    torch.set_num_threads(threads)
    threadpoolctl.threadpool_limits(threads)


def _read_older_precision() -> str | None:
    """The precision by torch's older interface; None for a mixture of both, which it refuses to read."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


@contextmanager
def keep_float32_precision() -> Iterator[None]:
    """Put back how float32 is multiplied (IEEE, TF32, bfloat16) after a `with` block.

    Torch's `fp32_precision` is read, because its older `allow_tf32` can't be read once the newer one is set.
    """
    # The outermost first: those that were never set themselves follow it, and have to go on doing so.
    places = (
        torch.backends,
        *(
            operation
            for backend in (torch.backends.cuda, torch.backends.cudnn, torch.backends.mkldnn)
            for name in ("matmul", "conv", "rnn")
            if hasattr(operation := getattr(backend, name, None), "fp32_precision")
        ),
    )
    before, older = [place.fp32_precision for place in places], _read_older_precision()
    try:
        yield
    finally:
        if _read_older_precision() != older:
            torch.set_float32_matmul_precision(older or "highest")
        for place, precision in zip(places, before, strict=True):
            if place.fp32_precision != precision:
                place.fp32_precision = precision


def be_deterministic() -> None:
    """Make torch use deterministic algorithms; where CUDA has none it warns and goes on."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling each new tensor would take a noticeable part of a training step on a CPU, and nothing here
    # reads memory that it hasn't written.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = False


def _find_working_folder() -> str | None:
    """The working directory; None if somebody has removed it."""
    try:
        return os.getcwd()
    except OSError:
        return None


@contextmanager
def keep_process_state(threads: int) -> Iterator[None]:
    """Give a `with` block the same process state whatever ran before, and put the former state back.

    That is: deterministic algorithms, `threads` threads, gradients on, float32 as torch's default, fixed
    seeds of Python, numpy and torch; and the working directory, the environment's variables, the folders of
    modules, what signals do and the filters of warnings as they were.
    """
    before = torch.get_default_dtype(), torch.is_grad_enabled()
    environment, places, handlers = dict(os.environ), list(sys.path), read_handlers()
    folder = _find_working_folder()
    use_threads(threads)
    be_deterministic()
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)
    torch.set_grad_enabled(True)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - plug-ins may draw from it
    torch.manual_seed(0)
    try:
        with np.errstate(), warnings.catch_warnings(), keep_float32_precision():
            yield
    finally:
        dtype, grad = before
        if folder is not None:
            os.chdir(folder)
        torch.set_default_dtype(dtype)
        torch.set_default_device(None)
        torch.set_grad_enabled(grad)
        os.environ.clear()
        os.environ.update(environment)
        sys.path[:] = places
        for number, handler in handlers.items():
            signal.signal(number, handler)
        use_threads(threads)
        be_deterministic()
