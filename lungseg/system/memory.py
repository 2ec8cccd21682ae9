"""Peak memory of a computation."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import psutil
import torch

from lungseg.system.nvml import NoNvmlError, open_gpu


class PeakMemory:
    """Peak memory while the `with` block runs.

    Linux keeps the peak of the resident set itself and lets a process reset it (proc(5): clear_refs and
    VmHWM). Elsewhere the memory is sampled every 20 ms.

    Attributes, in MiB, once the block has ended:
        mib: on a CPU `host_mib`; on CUDA, what torch's allocator gave out on the device.
        host_mib: the resident set of the whole process.
        reserved_mib: on CUDA, what torch's allocator held on the device; else None.
        process_mib: on CUDA, what the process holds at the end of the block as NVML counts it, with its CUDA
            context and the memory of libraries; None if NVML doesn't tell.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.mib = self.host_mib = 0.0
        self.reserved_mib: float | None = None
        self.process_mib: float | None = None
        self._done = threading.Event()
        self._watcher: threading.Thread | None = None

    def __enter__(self) -> PeakMemory:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        if not self._reset_kernel_peak():
            self._watcher = threading.Thread(target=self._watch, daemon=True)
            self._watcher.start()
        return self

    @staticmethod
    def _reset_kernel_peak() -> bool:
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            return False
        return True

    def _watch(self) -> None:
        process = psutil.Process()
        while True:
            self.host_mib = max(self.host_mib, process.memory_info().rss / 2**20)
            if self._done.wait(0.02):
                return

    def __exit__(self, *_: object) -> None:
        if self._watcher is not None:
            self._done.set()
            self._watcher.join()
        else:
            line = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
            self.host_mib = int(line[1]) / 1024
        self.mib = self.host_mib
        if self.device.type == "cuda":
            self.mib = torch.cuda.max_memory_allocated(self.device) / 2**20
            self.reserved_mib = torch.cuda.max_memory_reserved(self.device) / 2**20
            self.process_mib = self._read_process_mib()

    def _read_process_mib(self) -> float | None:
        try:
            return open_gpu(self.device).read_process_mib()
        except NoNvmlError:
            return None

    def list_cells(self) -> dict[str, float | None]:
        """List the columns of timings.csv and training.csv."""
        return {
            "peak_memory_mib": self.mib,
            "reserved_memory_mib": self.reserved_mib,
            "process_memory_mib": self.process_mib,
            "host_memory_mib": self.host_mib,
        }
