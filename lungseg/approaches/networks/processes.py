"""One training on several processes, as torchrun starts them; without it there is one, and nothing is sent.

Every process holds the whole network. A batch is cut into one part a process, and so are the validation
images; only the first process writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from torch import Tensor

_alone = False


@contextmanager
def alone() -> Iterator[None]:
    """Within it this process counts as the only one: for what it does while the others wait."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def count() -> int:
    """Processes of the training."""
    return dist.get_world_size() if _together() else 1


def number() -> int:
    """This process' number, from 0."""
    return dist.get_rank() if _together() else 0


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return number() == 0


def own_part(items: Any) -> Any:
    """This process' part of a sequence that can be sliced; the parts differ in length by one at most."""
    size, extra = divmod(len(items), count())
    start = number() * size + min(number(), extra)
    return items[start : start + size + (number() < extra)]


def all_parts(own: list[Any]) -> list[Any]:
    """The lists of all processes one after another, on each of them: `own_part` undone."""
    if not _together():
        return own
    parts: list[Any] = [None] * count()
    dist.all_gather_object(parts, own)
    return [item for part in parts for item in part]


def add_up(value: Tensor) -> Tensor:
    """The sum over all processes, in place."""
    if _together():
        dist.all_reduce(value)
    return value


def wait_for_all() -> None:
    """Until each process is here."""
    if _together():
        dist.barrier()


def _together() -> bool:
    return not _alone and dist.is_available() and dist.is_initialized()
