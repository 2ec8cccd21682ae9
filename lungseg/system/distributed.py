"""One benchmark run by several processes, started as `torchrun -m lungseg benchmark ...`.

The process of rank 0 does everything. It asks the others for help when it trains an approach that supports
several processes. Each process then holds the whole network. Batches and validation images are divided among
the processes, and only rank 0 writes files. Without torchrun there is one process and no communication.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lungseg.system.errors import InputError

# The others wait long while rank 0 scores, times and fits alone; a sum takes moments.
LONG_TIMEOUT, SHORT_TIMEOUT = timedelta(days=7), timedelta(minutes=30)

_alone = False
_long_group: dist.ProcessGroup | None = None


def is_launched() -> bool:
    """Return whether torchrun started this process together with others."""
    return "TORCHELASTIC_RUN_ID" in os.environ and _read_number("WORLD_SIZE", "1") > 1


def _read_number(name: str, default: str | None = None) -> int:
    text = os.environ.get(name, default)
    if text is None or not text.isdecimal():
        raise InputError(f"{name}={text} is no number: start the processes with torchrun, or unset it")
    return int(text)


def local_world_size() -> int:
    """Return how many processes of the run share this machine."""
    return _read_number("LOCAL_WORLD_SIZE") if is_launched() else 1


@contextmanager
def join_processes(device: str | None = None) -> Iterator[None]:
    """Join the process group of torchrun for the `with` block; do nothing if there is only one process.

    With the device "cpu" the GPUs stay unused. Else each process takes a GPU of its own, if there are any;
    raises InputError if there are fewer than processes.
    """
    global _long_group
    if not is_launched():
        yield
        return
    cuda = device != "cpu" and torch.cuda.is_available()
    if cuda:
        _take_a_gpu(_read_number("LOCAL_RANK"))
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=SHORT_TIMEOUT)
    _long_group = dist.new_group(backend="gloo", timeout=LONG_TIMEOUT)
    # After an error the group is not left: others may be in the middle of a sum, and torchrun stops them.
    yield
    dist.barrier(_long_group)
    _long_group = None
    dist.destroy_process_group()


def _take_a_gpu(number: int) -> None:
    processes, gpus = local_world_size(), torch.cuda.device_count()
    if processes > gpus:
        raise InputError(
            f"{processes} processes on a machine with {gpus} GPUs: "
            f"give torchrun --nproc-per-node {gpus} at most, or lungseg benchmark --device cpu"
        )
    torch.cuda.set_device(number)


@contextmanager
def work_alone() -> Iterator[None]:
    """Treat this process as the only one within the `with` block, while the others wait."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def world_size() -> int:
    """Return how many processes the run has."""
    return dist.get_world_size() if _is_joined() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if _is_joined() else 0


def is_main() -> bool:
    """Return whether this is the process that writes files."""
    return rank() == 0


def shard(items: Any) -> Any:
    """Return this process's part of a sequence; parts are consecutive and differ in length by one at most."""
    size, extra = divmod(len(items), world_size())
    start = rank() * size + min(rank(), extra)
    return items[start : start + size + (rank() < extra)]


def all_gather(own: list[Any]) -> list[Any]:
    """Return the lists of all processes, joined in the order of ranks: the inverse of `shard`."""
    if not _is_joined():
        return own
    parts: list[Any] = [None] * world_size()
    dist.all_gather_object(parts, own)
    return [item for part in parts for item in part]


def all_reduce(value: Tensor) -> Tensor:
    """Sum a tensor over all processes, in place, and return it."""
    if _is_joined():
        dist.all_reduce(value)
    return value


def barrier() -> None:
    """Wait until every process has called this, for up to seven days."""
    if _is_joined():
        dist.barrier(_long_group)


def broadcast(label: str | None) -> None:
    """Tell the other processes the trial that rank 0 trains next; None if nothing is left to do."""
    if _is_joined():
        dist.broadcast_object_list([label], src=0, group=_long_group, device=torch.device("cpu"))


def follow() -> str | None:
    """Wait for a call of `broadcast` in rank 0, and return its label."""
    labels: list[str | None] = [None]
    dist.broadcast_object_list(labels, src=0, group=_long_group, device=torch.device("cpu"))
    return labels[0]


def _is_joined() -> bool:
    return not _alone and dist.is_available() and dist.is_initialized()
