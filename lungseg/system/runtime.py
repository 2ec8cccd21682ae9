"""How to compute, as opposed to what: device, precision, layout, threads."""

from __future__ import annotations

from dataclasses import dataclass

import threadpoolctl
import torch


@dataclass(frozen=True)
class Runtime:
    """How to compute, as opposed to what: it may change the speed, and the result only within rounding.

    Attributes:
        device: where tensors live.
        precision: "float32" or "bfloat16" (autocast).
        channels_last: memory layout NHWC for convolutions.
        compiled: use torch.compile for inference.
        threads: CPU threads.
    """

    device: torch.device
    precision: str = "float32"
    channels_last: bool = False
    compiled: bool = False
    threads: int = 1

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def autocast(self) -> torch.autocast:
        """bfloat16 autocast if the precision asks for it, else a context that changes nothing."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16")


def use_threads(threads: int) -> None:
    """Fixes the threads of torch, BLAS and OpenMP; rounding, and so the result, depends on their number."""
    torch.set_num_threads(threads)
    threadpoolctl.threadpool_limits(threads)


def be_deterministic() -> None:
    """Asks torch for algorithms that repeat their bits; where CUDA has none it warns and goes on."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    # It would also fill each new tensor, a noticeable part of a training step on a CPU; nothing here reads
    # what it hasn't written.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = False
