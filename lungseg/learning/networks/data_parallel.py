"""Training of one network by several processes, with PyTorch's DistributedDataParallel."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lungseg.learning.networks.schedule import count_batches
from lungseg.learning.networks.settings import TrainingSettings
from lungseg.system import distributed
from lungseg.system.errors import InputError
from lungseg.system.runtime import Runtime

# torch 2.13 renamed this argument.
_KEYS = inspect.signature(DistributedDataParallel).parameters
_SEND_BUFFERS = "forward_sync_buffers" if "forward_sync_buffers" in _KEYS else "broadcast_buffers"


def share_norms(network: nn.Module, settings: TrainingSettings, runtime: Runtime) -> nn.Module:
    """Make batch norms use the whole batch of all processes, unless they are frozen.

    Raises InputError if norms would have to be shared on a CPU, which PyTorch can't do.
    """
    require_shareable_norms(settings, runtime)
    if distributed.world_size() == 1 or settings.freeze_norms:
        return network
    return nn.SyncBatchNorm.convert_sync_batchnorm(network)


def require_shareable_norms(settings: TrainingSettings, runtime: Runtime) -> None:
    """Raise InputError if several processes would have to share batch norms on a CPU."""
    if distributed.world_size() > 1 and not settings.freeze_norms and runtime.device.type != "cuda":
        raise InputError(
            "several processes can't share a batch norm on CPUs: set freeze_norms = true, or use one process"
        )


def share_gradients(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return what to call instead of the network, so that gradients are means over all processes.

    It is the network itself if there is one process only.
    """
    if distributed.world_size() == 1:
        return network
    # Buffers need no exchange: norms are shared or frozen, so they are equal in all processes.
    return DistributedDataParallel(network, **{_SEND_BUFFERS: False})


def delay_exchange(forward: Callable[[Tensor], Tensor]) -> AbstractContextManager[None]:
    """Return a context in which gradients are only summed up in this process.

    `forward` is what `share_gradients` returned. The first backward pass outside exchanges the sums.
    """
    return forward.no_sync() if isinstance(forward, DistributedDataParallel) else nullcontext()


def require_image_per_process(count: int, settings: TrainingSettings) -> None:
    """Raise InputError if an epoch of `count` images has a batch with fewer images than processes."""
    smallest = count // count_batches(count, settings.batch_size)
    if smallest < distributed.world_size():
        raise InputError(
            f"batch_size = {settings.batch_size} makes batches of {smallest} images, fewer than the "
            f"{distributed.world_size()} processes: raise it, or use fewer processes"
        )
