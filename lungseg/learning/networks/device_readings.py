"""What the host reads of a device while that trains, without keeping it waiting."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

SECONDS_BETWEEN = 0.25  # NVML's own samples are a sixth of a second to one second long


class LateValues:
    """A small tensor that is copied to the host as soon as the device has computed it."""

    def __init__(self, values: Tensor) -> None:
        """Queue the copy of values, float32 of any shape, on any device."""
        self._copied: torch.cuda.Event | None = None
        self._values = values
        if values.device.type == "cuda":
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()

    def read(self) -> list[float]:
        """Return the values; wait for the device if it hasn't come that far."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._values.tolist()


@dataclass
class BusyShare:
    """The share of time in which a GPU computed, as its driver counts it (NVML), sampled during a training.

    Times of single steps wouldn't show it: between two short kernels a GPU waits for the host, too.
    """

    device: torch.device
    _samples: list[float] = field(default_factory=list)
    _next: float = 0.0
    _unknown: bool = False

    def start(self) -> None:
        """Begin a part of the training, such as an epoch; what the device did before isn't sampled."""
        self._next = time.perf_counter() + SECONDS_BETWEEN

    def sample(self) -> None:
        """Take a sample if one is due."""
        if self.device.type != "cuda" or self._unknown or time.perf_counter() < self._next:
            return
        try:
            self._samples.append(torch.cuda.utilization(self.device) / 100)
        except Exception:  # pynvml isn't installed, or NVML refuses by an error of its own
            self._unknown = True
        self.start()

    @property
    def mean(self) -> float | None:
        """Return the mean share; None on a CPU, without NVML, or if the training was too short."""
        return sum(self._samples) / len(self._samples) if self._samples else None
