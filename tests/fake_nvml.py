"""A stand-in for pynvml with one GPU, so that what reads NVML is tested without one."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any


class NvmlError(Exception):
    """As pynvml.NVMLError."""


class NotSupportedError(NvmlError):
    """As pynvml.NVMLError_NotSupported."""


def make_nvml(known: dict[str, Any], uuid: str = "GPU-ours") -> SimpleNamespace:
    """Make what `lungseg.system.nvml` needs of pynvml.

    `known` has what a function returns by its name without "nvmlDevice", a list being what its calls return
    one after the other; all other functions are not supported.
    """

    def handle(asked: str) -> str:
        if asked != uuid:
            raise NvmlError("Not Found")
        return asked

    def make(name: str) -> Any:
        def call(*_: Any) -> Any:
            if name not in known or known[name] == []:
                raise NotSupportedError("Not Supported")
            return known[name].pop(0) if isinstance(known[name], list) else known[name]

        return call

    asked = (
        "GetDeviceHandleFromMigDeviceHandle",
        "GetMigMode",
        "GetTotalEnergyConsumption",
        "GetPowerUsage",
        "GetCurrentClocksEventReasons",
    )
    asked += ("GetClockInfo", "GetTemperature", "GetComputeRunningProcesses", "GetEnforcedPowerLimit")
    asked += ("GetEccMode", "GetMaxClockInfo", "GetApplicationsClock")
    reasons = ("ApplicationsClocksSetting", "SwPowerCap", "HwSlowdown", "SyncBoost", "SwThermalSlowdown")
    reasons += ("HwThermalSlowdown", "HwPowerBrakeSlowdown")
    return SimpleNamespace(
        NVMLError=NvmlError,
        NVML_DEVICE_MIG_ENABLE=1,
        NVML_CLOCK_SM=1,
        NVML_CLOCK_MEM=2,
        NVML_TEMPERATURE_GPU=0,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=handle,
        nvmlSystemGetDriverVersion=make("driver"),
        **{f"nvmlDevice{name}": make(name) for name in asked},
        **{f"nvmlClocksEventReason{name}": 2 << place for place, name in enumerate(reasons)},
    )


def own_process(mib: float | None) -> SimpleNamespace:
    """Make NVML's entry of this process, with its memory on the GPU."""
    return SimpleNamespace(pid=os.getpid(), usedGpuMemory=None if mib is None else int(mib * 2**20))
