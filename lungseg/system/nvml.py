"""Read what NVIDIA's management library (NVML) knows of a GPU: clocks, power, memory and settings."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# Why a clock is lower than it could be, as NVML names the bits (nvmlClocksEventReason...).
REASONS = {
    "SwPowerCap": "power cap",
    "HwSlowdown": "hardware slowdown",
    "SwThermalSlowdown": "thermal slowdown",
    "HwThermalSlowdown": "hardware thermal slowdown",
    "HwPowerBrakeSlowdown": "power brake",
    "ApplicationsClocksSetting": "clock setting",
    "SyncBoost": "sync boost",
}


class NoNvmlError(Exception):
    """NVML can't be used for this GPU; the text says why."""


class Gpu:
    """One GPU in NVML.

    It is found by its UUID as torch gives it ("xxxxxxxx-xxxx-..."), because NVML's order of devices differs
    from torch's and ignores CUDA_VISIBLE_DEVICES. Raises NoNvmlError if nvidia-ml-py isn't installed or NVML
    doesn't know the GPU.
    """

    def __init__(self, uuid: str) -> None:
        try:
            import pynvml
        except ImportError:
            raise NoNvmlError("the package nvidia-ml-py is not installed") from None
        self.nvml = pynvml
        try:
            pynvml.nvmlInit()
            self.handle = self._board = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
            self._is_part = False
        except pynvml.NVMLError as error:
            self.handle = self._find_part(uuid, error)
            self._board, self._is_part = self._find_board(), True

    def _find_part(self, uuid: str, first: Exception) -> Any:
        """Return the handle of a part of a divided GPU, which torch knows by the part's own UUID."""
        try:
            return self.nvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}")
        except self.nvml.NVMLError:
            raise NoNvmlError(f"NVML: {first}") from None

    def _find_board(self) -> Any:
        """Return the handle of the whole GPU of a part: clocks, power and limits are known of it alone."""
        board = self._ask_system("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", self.handle)
        return self.handle if board is None else board

    def is_divided(self) -> bool:
        """Return whether the GPU is divided into several (MIG)."""
        if self._is_part:
            return True
        mode = self._ask("nvmlDeviceGetMigMode")
        return mode is not None and mode[0] == self.nvml.NVML_DEVICE_MIG_ENABLE

    def read_state(self) -> dict[str, Any]:
        """Read the present state; a value is None if the GPU doesn't tell it.

        Returns:
            "sm_clock_mhz", "power_w", "temperature_c", and "throttle": why the clock is low, a list of texts.
        """
        power = self._ask("nvmlDeviceGetPowerUsage")
        bits = self._ask("nvmlDeviceGetCurrentClocksEventReasons") or 0
        return {
            "sm_clock_mhz": self._ask("nvmlDeviceGetClockInfo", self.nvml.NVML_CLOCK_SM),
            "power_w": None if power is None else power / 1000,
            "temperature_c": self._ask("nvmlDeviceGetTemperature", self.nvml.NVML_TEMPERATURE_GPU),
            "throttle": [
                text
                for name, text in REASONS.items()
                if bits & getattr(self.nvml, f"nvmlClocksEventReason{name}")
            ],
        }

    def read_process_mib(self) -> float | None:
        """Read the MiB that this process holds on the GPU, its CUDA context included; None if unknown.

        In a container NVML may list processes by numbers that they don't have inside.
        """
        for process in self._ask_system("nvmlDeviceGetComputeRunningProcesses", self.handle) or ():
            if process.pid == os.getpid() and process.usedGpuMemory is not None:
                return process.usedGpuMemory / 2**20
        return None

    def describe(self) -> dict[str, Any]:
        """Describe what speed depends on; a value is None if the GPU doesn't tell it."""
        limit, ecc = self._ask("nvmlDeviceGetEnforcedPowerLimit"), self._ask("nvmlDeviceGetEccMode")
        return {
            "driver": self._ask_system("nvmlSystemGetDriverVersion"),
            "power_limit_w": None if limit is None else limit / 1000,
            "largest_sm_clock_mhz": self._ask("nvmlDeviceGetMaxClockInfo", self.nvml.NVML_CLOCK_SM),
            "largest_memory_clock_mhz": self._ask("nvmlDeviceGetMaxClockInfo", self.nvml.NVML_CLOCK_MEM),
            "set_sm_clock_mhz": self._ask("nvmlDeviceGetApplicationsClock", self.nvml.NVML_CLOCK_SM),
            "mig": self.is_divided(),
            "ecc": None if ecc is None else bool(ecc[0]),
        }

    def _ask(self, function: str, *arguments: Any) -> Any:
        return self._ask_system(function, self._board, *arguments)

    def _ask_system(self, function: str, *arguments: Any) -> Any:
        if not hasattr(self.nvml, function):  # another version of nvidia-ml-py
            return None
        try:
            return getattr(self.nvml, function)(*arguments)
        except self.nvml.NVMLError:  # an older driver or card can't say
            return None


def open_gpu(device: torch.device) -> Gpu:
    """Open torch's CUDA device in NVML. Raises NoNvmlError if that can't be done."""
    import torch  # not before: the report needn't wait for it

    return Gpu(str(torch.cuda.get_device_properties(device).uuid))


def describe_gpu() -> dict[str, Any] | None:
    """Describe the CUDA device that is in use, with driver, CUDA and cuDNN; None without one.

    Without NVML, its values are missing, and "nvml" says why.
    """
    import torch

    if not torch.cuda.is_available():
        return None
    found: dict[str, Any] = {
        "name": torch.cuda.get_device_name(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }
    try:
        return found | open_gpu(torch.device("cuda")).describe()
    except NoNvmlError as reason:
        return found | {"driver": read_driver(), "nvml": str(reason)}


def read_driver() -> str | None:
    """Read the version of the driver, which needs no GPU that NVML knows; None without NVML."""
    try:
        import pynvml

        pynvml.nvmlInit()
        return pynvml.nvmlSystemGetDriverVersion()
    except (ImportError, AttributeError):
        return None
    except pynvml.NVMLError:
        return None


def format_gpu(gpu: dict[str, Any]) -> str:
    """Format what `describe_gpu` knows beside the name: "driver 580.1, power limit 700 W, ecc on"."""
    told = {name: value for name, value in gpu.items() if name != "name" and value is not None}
    return ", ".join(_format_fact(*fact) for fact in told.items())


def _format_fact(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return f"{name} {'on' if value else 'off'}"
    for ending, unit in (("_w", "W"), ("_mhz", "MHz")):
        if name.endswith(ending):
            return f"{name.removesuffix(ending).replace('_', ' ')} {value:g} {unit}"
    return f"{name} {value}"
