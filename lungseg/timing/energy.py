"""Measure joules per image by the device's own counter: NVML on an NVIDIA GPU, RAPL on an x86 processor."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from lungseg.system.nvml import Gpu, NoNvmlError

RAPL = Path("/sys/class/powercap")


class NoEnergyCounterError(Exception):
    """The device has no readable energy counter; the text says why."""


class EnergyCounter(ABC):
    """An energy counter, which only grows or wraps around."""

    @abstractmethod
    def read(self) -> tuple[int, ...]:
        """Return the counter's present state, an argument of `joules`."""

    @abstractmethod
    def joules(self, before: tuple[int, ...], after: tuple[int, ...]) -> float:
        """Return the joules between two states."""


class RaplCounter(EnergyCounter):
    """Intel's Running Average Power Limit counters as Linux shows them, on AMD too (powercap, energy_uj).

    They count the energy of all processor packages: with idle cores, caches and whatever else runs there, but
    without memory and power supply. Raises NoEnergyCounterError if there is none, or only root may read it.
    """

    def __init__(self, folder: Path) -> None:
        # intel-rapl:0 is a package or the whole platform; intel-rapl:0:1, a part of it, would count twice.
        zones = [zone for zone in sorted(folder.glob("intel-rapl:*")) if zone.name.count(":") == 1]
        try:
            self._zones = [zone for zone in zones if _text(zone / "name").startswith("package")]
            self._ranges = [int(_text(zone / "max_energy_range_uj")) for zone in self._zones]
            self.read()
        except PermissionError:
            reason = "only root may read this machine's energy counter (RAPL, energy_uj)"
            raise NoEnergyCounterError(reason) from None
        except (OSError, ValueError) as error:
            reason = f"this processor's energy counter (RAPL) can't be read: {error}"
            raise NoEnergyCounterError(reason) from None
        if not self._zones:
            raise NoEnergyCounterError("this machine's processor shows no energy counter (RAPL)")

    def read(self) -> tuple[int, ...]:
        """Return the microjoules of each package."""
        return tuple(int(_text(zone / "energy_uj")) for zone in self._zones)

    def joules(self, before: tuple[int, ...], after: tuple[int, ...]) -> float:
        """Return the joules of all packages; each counter may have wrapped around once."""
        states = zip(before, after, self._ranges, strict=True)
        return sum(end - start + (limit if end < start else 0) for start, end, limit in states) / 1e6


def _text(file: Path) -> str:
    return file.read_text().strip()


class NvmlCounter(EnergyCounter):
    """NVML's total energy of one GPU (nvmlDeviceGetTotalEnergyConsumption, Volta and newer).

    It counts the whole board with its memory, whoever uses it, and what it takes at rest. Raises
    NoEnergyCounterError if nvidia-ml-py isn't installed, or if the GPU has no such counter or is divided by
    MIG.
    """

    def __init__(self, uuid: str) -> None:
        try:
            self._gpu = Gpu(uuid)
        except NoNvmlError as error:
            raise NoEnergyCounterError(f"this GPU shows no energy counter ({error})") from None
        if self._gpu.is_divided():  # first: a part has no counter to read
            raise NoEnergyCounterError("this GPU is divided (MIG), and its energy counter is of all parts")
        try:
            self.read()
        except self._gpu.nvml.NVMLError as error:
            raise NoEnergyCounterError(f"this GPU shows no energy counter (NVML: {error})") from None

    def read(self) -> tuple[int, ...]:
        """Return the millijoules since the driver was loaded."""
        return (self._gpu.nvml.nvmlDeviceGetTotalEnergyConsumption(self._gpu.handle),)

    def joules(self, before: tuple[int, ...], after: tuple[int, ...]) -> float:
        """Return the joules between two states."""
        return (after[0] - before[0]) / 1e3


def open_counter(device: torch.device) -> EnergyCounter:
    """Open the energy counter of torch's device. Raises NoEnergyCounterError if it has none."""
    if device.type == "cuda":
        return NvmlCounter(str(torch.cuda.get_device_properties(device).uuid))
    return RaplCounter(RAPL)


def measure_joules_per_image(
    counters: Sequence[EnergyCounter], call: Callable[[], object], images: int, seconds: float
) -> list[float]:
    """Measure the joules that an image takes, by each counter.

    `call` predicts `images` images and returns when the device has finished. It is repeated for `seconds`,
    which must be long compared with the steps in which the counter moves.
    """
    calls, start, before = 0, time.perf_counter(), [counter.read() for counter in counters]
    while calls == 0 or time.perf_counter() - start < seconds:
        call()
        calls += 1
    states = zip(counters, before, strict=True)
    return [counter.joules(state, counter.read()) / (calls * images) for counter, state in states]
