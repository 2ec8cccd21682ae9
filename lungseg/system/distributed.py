"""One benchmark in several processes, as `torchrun -m lungseg benchmark ...` starts them.

The first process does everything, and asks the others for help when it trains an approach that can use it.
Each then holds the whole network; a batch is cut into one part a process, and so are the validation images;
only the first one writes. Without torchrun there is one process, and nothing is sent.
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

# The others wait while the first scores, times and fits what needs no help; sums are a matter of moments.
LONG, SHORT = timedelta(days=7), timedelta(minutes=30)
HOST = torch.device("cpu")

_alone = False
_waiting: dist.ProcessGroup | None = None


def launched() -> bool:
    """Whether torchrun started this process with others."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def local_world_size() -> int:
    """Processes of the run that share this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if launched() else 1


@contextmanager
def joined(device: str | None = None) -> Iterator[None]:
    """Joins the processes that torchrun started; without torchrun, or with one process, nothing happens.

    Args:
        device: "cpu" leaves GPUs alone.

    Raises:
        InputError: there are fewer GPUs than processes on this machine.
    """
    global _waiting
    if not launched():
        yield
        return
    cuda = device != "cpu" and torch.cuda.is_available()
    if cuda:
        _take_a_gpu(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=SHORT)
    _waiting = dist.new_group(backend="gloo", timeout=LONG)
    # Not left where an error ends this process: others may be in the midst of a sum, and torchrun stops them.
    yield
    dist.barrier(_waiting)
    _waiting = None
    dist.destroy_process_group()


def _take_a_gpu(number: int) -> None:
    wanted, there = local_world_size(), torch.cuda.device_count()
    if wanted > there:
        raise InputError(
            f"{wanted} processes on a machine with {there} GPUs: "
            f"give torchrun --nproc-per-node {there} at most, or lungseg benchmark --device cpu"
        )
    torch.cuda.set_device(number)


@contextmanager
def alone() -> Iterator[None]:
    """Within it this process counts as the only one: for what it does while the others wait."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def world_size() -> int:
    """Processes of the run."""
    return dist.get_world_size() if _together() else 1


def rank() -> int:
    """This process' number, from 0."""
    return dist.get_rank() if _together() else 0


def is_main() -> bool:
    """Whether this process is the one that writes."""
    return rank() == 0


def shard(items: Any) -> Any:
    """This process' part of a sequence that can be sliced; the parts differ in length by one at most."""
    size, extra = divmod(len(items), world_size())
    start = rank() * size + min(rank(), extra)
    return items[start : start + size + (rank() < extra)]


def all_gather(own: list[Any]) -> list[Any]:
    """The lists of all processes one after another, on each of them: `shard` undone."""
    if not _together():
        return own
    parts: list[Any] = [None] * world_size()
    dist.all_gather_object(parts, own)
    return [item for part in parts for item in part]


def all_reduce(value: Tensor) -> Tensor:
    """The sum over all processes, in place."""
    if _together():
        dist.all_reduce(value)
    return value


def barrier() -> None:
    """Until each process is here, however long one of them takes."""
    if _together():
        dist.barrier(_waiting)


def broadcast(label: str | None) -> None:
    """The first process names the part that it begins to train; None: there is nothing left to do."""
    if _together():
        dist.broadcast_object_list([label], src=0, group=_waiting, device=HOST)


def follow() -> str | None:
    """Another process waits here for what `broadcast` says."""
    words: list[str | None] = [None]
    dist.broadcast_object_list(words, src=0, group=_waiting, device=HOST)
    return words[0]


def _together() -> bool:
    return not _alone and dist.is_available() and dist.is_initialized()
