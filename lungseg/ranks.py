"""Several processes of one benchmark, as `torchrun -m lungseg benchmark ...` starts them.

The first does everything, and asks the others for help when it trains an approach that can use it. They wait
meanwhile, and write nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

PATIENCE = timedelta(days=7)  # the others wait while the first scores, times and fits what needs no help
HOST = torch.device("cpu")


def local_count() -> int:
    """Processes that share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@contextmanager
def joined() -> Iterator[None]:
    """Joins the processes that torchrun started; without torchrun, or with one process, nothing happens."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
    # Not left where an error ends this process: others may be in the midst of a sum, and torchrun stops them.
    yield
    dist.barrier()
    dist.destroy_process_group()


def ask_for_help(label: str | None) -> None:
    """The first process names the part that it begins to train; None: there is nothing left to do."""
    if dist.is_available() and dist.is_initialized():
        dist.broadcast_object_list([label], src=0, device=HOST)


def asked_for() -> str | None:
    """Another process waits here for what `ask_for_help` says."""
    words: list[str | None] = [None]
    dist.broadcast_object_list(words, src=0, device=HOST)
    return words[0]
