"""Resolve what "auto" means on this machine: the device, precision, layout and threads to compute with."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Protocol

import torch

from lungseg.system.distributed import local_world_size
from lungseg.system.errors import InputError, is_out_of_memory, shorten_paths, summarise_error
from lungseg.system.machine import count_usable_cores, read_cpu_flags
from lungseg.system.runtime import Runtime


class RuntimeChoice(Protocol):
    """What a user chose, such as the table `[runtime]` of a spec."""

    device: str
    precision: str
    threads: int
    compiled: bool


def resolve_runtime(spec: RuntimeChoice, device: str | None = None) -> Runtime:
    """Resolve what "auto" means here.

    Args:
        spec: what is chosen, such as the table `[runtime]`.
        device: --device, which wins over the table.

    Raises:
        InputError: CUDA is asked for and there is none.
    """
    wanted = device or spec.device
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "device cuda is asked for, but torch finds no CUDA device here: use --device cpu or auto"
        )
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    precision = spec.precision
    if precision == "auto":
        precision = "bfloat16" if _multiplies_bfloat16(wanted) else "float32"
    threads = spec.threads or max(1, count_usable_cores() // local_world_size())
    # oneDNN takes maps as they lie if channels are last; else it reorders them for each convolution.
    channels_last = wanted == "cpu" or precision == "bfloat16"
    return Runtime(torch.device(wanted), precision, channels_last, spec.compiled, threads)


def usable_runtime(spec: RuntimeChoice, device: str | None = None) -> tuple[Runtime, str | None]:
    """Resolve a runtime without torch.compile where that can't be used, and say why it can't (else None)."""
    runtime = resolve_runtime(spec, device)
    problem = why_not_compiled(runtime.device.type) if runtime.compiled else None
    return (runtime, None) if problem is None else (replace(runtime, compiled=False), problem)


@functools.cache
def why_not_compiled(device: str) -> str | None:
    """Return why torch.compile can't be used here, or None, by compiling a tiny network once (seconds).

    Raises RuntimeError or MemoryError if a memory is full, which says nothing of the compiler.
    """
    try:
        torch.compile(torch.nn.Softplus())(torch.zeros(8, device=device))
    except Exception as error:  # its back end raises errors of many kinds
        if is_out_of_memory(error):
            raise
        return shorten_paths(summarise_error(error))
    return None


def _multiplies_bfloat16(device: str) -> bool:
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return "amx_bf16" in read_cpu_flags()
