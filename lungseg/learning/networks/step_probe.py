"""Trials of training steps on noise: how long they take, and the parts in which a batch fits into memory.

The gradients of the parts are summed up: see `Training.accumulation_steps`.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from lungseg.learning.networks.image_cache import RESIDENT_SHARE, Images
from lungseg.learning.networks.schedule import limit_parts
from lungseg.learning.networks.settings import TrainingSettings
from lungseg.learning.networks.training import Training
from lungseg.system import distributed
from lungseg.system.errors import is_out_of_memory
from lungseg.system.runtime import Runtime

FRAGMENTS = 1.15  # times what is allocated: memory that lies in pieces too small for anything
FEW, MORE = 2, 4  # images of the steps whose memory is measured
# What a training may keep on a GPU: training and validation images, both at two sizes, and the masks.
MOST_RESIDENT = 5
GIB = 2**30


@dataclass(frozen=True)
class StepMemory:
    """The memory of a training step on a batch, and the parts that the batch has to be split into.

    Attributes:
        images: of the whole batch, in this process.
        needed: bytes of a step on all of them at once; infinite if not even a few fit.
        free: bytes that a step may take.
        accumulation_steps: parts of the batch, each of which fits.
    """

    images: int
    needed: float
    free: float
    accumulation_steps: int

    def describe(self) -> str:
        """Say in one sentence why the batch is split, and what that changes."""
        most = math.ceil(self.images / self.accumulation_steps)
        needs = "more" if math.isinf(self.needed) else f"{self.needed / GIB:.1f} GiB"
        return (
            f"a training step on {self.images} images needs {needs}, and {self.free / GIB:.1f} GiB of the "
            f"GPU's memory can be had: gradients of {self.accumulation_steps} parts of a batch are added up, "
            f"and batch norms that are not frozen see {most} image{'s' if most > 1 else ''} at a time"
        )


class StepProbe:
    """Trials of steps of new networks, each by this process alone."""

    def __init__(
        self,
        build_network: Callable[[], nn.Module],
        group_parameters: Callable[[nn.Module], tuple[list[nn.Parameter], list[nn.Parameter]]],
        settings: TrainingSettings,
        runtime: Runtime,
    ) -> None:
        """Prepare trials; the arguments are those of `Training`."""
        self._build_network, self._group_parameters = build_network, group_parameters
        self._settings, self._runtime = settings, runtime

    def time_steps(self, sizes: Sequence[int], count: int) -> dict[int, float]:
        """Return the seconds of a step on `count` images by their size, each the mean of two steps.

        If the memory is full, without a word, of a step in parts: the training itself will warn.
        """
        with distributed.work_alone(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "the memory is full")
            training = self._make_training(count)
            return {size: self._time_step(training, size, count) for size in sizes}

    def _time_step(self, training: Training, size: int, count: int) -> float:
        data = _make_noise(count, size)
        _train(training, data, 1)  # to warm up
        start = time.perf_counter()
        _train(training, data, 2)
        return (time.perf_counter() - start) / 2

    def try_step(self, count: int) -> int:
        """Do a step on `count` images at the full size; return the parts that the batch was split into.

        Raises the error of torch or Python if the memory is full even for the smallest parts.
        """
        with distributed.work_alone():
            training = self._make_training(count)
            _train(training, _make_noise(count, self._settings.size), 1)
        return training.accumulation_steps

    def find_memory(self, count: int) -> StepMemory | None:
        """Measure steps on few images on a GPU, and choose the fewest parts in which `count` images fit.

        What other counts need follows from two measurements, since it is proportional to the images but for
        a constant. Parts are doubled, down to the smallest (`limit_parts`). None on a CPU.
        """
        device = self._runtime.device
        if device.type != "cuda":
            return None
        measured = {}
        for few in dict.fromkeys(min(count, each) for each in (FEW, MORE)):
            needed = self._measure_memory(few, device)
            if needed is None:
                break
            measured[few] = needed
        torch.cuda.empty_cache()
        free = (1 - MOST_RESIDENT * RESIDENT_SHARE) * _find_free_memory(device)
        parts = _choose_parts(measured, count, free, limit_parts(count, count, self._settings))
        return StepMemory(count, predict_memory(measured, count), free, parts)

    def _measure_memory(self, count: int, device: torch.device) -> int | None:
        """Measure the most bytes that are allocated in two steps; None if the memory is full."""
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        try:
            with distributed.work_alone():
                training = self._make_training(count, may_split=False)
                # From the second step on there are the optimiser's moments.
                _train(training, _make_noise(count, self._settings.size), 2)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None
        return torch.cuda.max_memory_allocated(device) - before

    def _make_training(self, count: int, may_split: bool = True) -> Training:
        network = self._build_network()
        return Training(network, self._group_parameters, self._settings, self._runtime, 0, count, may_split)


def _find_free_memory(device: torch.device) -> float:
    """Return the bytes that this process may still take, also if torch was told to take only a share."""
    free, total = torch.cuda.mem_get_info(device)
    if not torch.cuda.is_initialized():
        return free
    share = torch.cuda.get_per_process_memory_fraction(device)
    return min(free, share * total - torch.cuda.memory_reserved(device))


def _make_noise(count: int, size: int) -> Images:
    arrays = np.random.default_rng(0).integers(0, 65536, (count, 2, size, size), np.uint16)
    return Images([str(number) for number in range(count)], list(arrays))


def _train(training: Training, data: Images, steps: int) -> None:
    for _ in range(steps):  # epochs of one step
        training.run_epoch(data, lambda *_: None)


def predict_memory(measured: dict[int, int], count: int) -> float:
    """Predict the bytes of a step on `count` images from none, one or two measured counts.

    A count above the largest is infinite if fewer than two were measured, since the next one didn't fit.
    """
    if not measured:
        return math.inf if count > 1 else 0.0
    few, most = min(measured), max(measured)
    if len(measured) == 1:
        return FRAGMENTS * measured[few] if count <= few else math.inf
    slope = (measured[most] - measured[few]) / (most - few)
    return FRAGMENTS * (measured[few] + slope * (count - few))


def _choose_parts(measured: dict[int, int], count: int, free: float, most: int) -> int:
    parts = 1
    while parts < most and predict_memory(measured, math.ceil(count / parts)) > free:
        parts = min(2 * parts, most)
    return parts
