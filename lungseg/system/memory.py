"""Peak memory of a computation."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import psutil
import torch


class PeakMemory:
    """Peak memory while the `with` block runs.

    On a CPU it is the resident set of the whole process; on CUDA, what torch's allocator gave out on the
    device. Linux keeps the peak itself and lets a process reset it (proc(5): clear_refs and VmHWM).
    Elsewhere the memory is sampled every 20 ms.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.mib = 0.0  # the peak in MiB, once the block has ended
        self._done = threading.Event()
        self._watcher: threading.Thread | None = None

    def __enter__(self) -> PeakMemory:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif not self._reset_kernel_peak():
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
            self.mib = max(self.mib, process.memory_info().rss / 2**20)
            if self._done.wait(0.02):
                return

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            self.mib = torch.cuda.max_memory_allocated(self.device) / 2**20
        elif self._watcher is not None:
            self._done.set()
            self._watcher.join()
        else:
            line = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
            self.mib = int(line[1]) / 1024
