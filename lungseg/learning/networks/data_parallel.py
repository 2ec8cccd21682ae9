"""A network whose gradients are shared by all processes of a training (PyTorch's DistributedDataParallel)."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lungseg.learning.networks.schedule import batch_count
from lungseg.learning.networks.settings import TrainingSettings
from lungseg.system import distributed
from lungseg.system.errors import InputError
from lungseg.system.runtime import Runtime

# The key that torch 2.13 renamed.
_KEYS = inspect.signature(DistributedDataParallel).parameters
_SEND_BUFFERS = "forward_sync_buffers" if "forward_sync_buffers" in _KEYS else "broadcast_buffers"


def with_shared_norms(network: nn.Module, settings: TrainingSettings, runtime: Runtime) -> nn.Module:
    """The network with batch norms over the whole batch; as it is if they are frozen or the process is alone.

    Raises:
        InputError: they would have to be shared on a CPU, where PyTorch can't.
    """
    require_shareable_norms(settings, runtime)
    if distributed.world_size() == 1 or settings.freeze_norms:
        return network
    return nn.SyncBatchNorm.convert_sync_batchnorm(network)


def require_shareable_norms(settings: TrainingSettings, runtime: Runtime) -> None:
    """Raises InputError if several processes would have to share batch norms on a CPU."""
    if distributed.world_size() > 1 and not settings.freeze_norms and runtime.device.type != "cuda":
        raise InputError(
            "several processes can't share a batch norm on CPUs: set freeze_norms = true, or use one process"
        )


def shared(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """What is called so that the gradients become means over all processes; the network itself if alone."""
    if distributed.world_size() == 1:
        return network
    # Buffers are the same everywhere by themselves: norms are shared or frozen.
    return DistributedDataParallel(network, **{_SEND_BUFFERS: False})


def require_an_image_each(count: int, settings: TrainingSettings) -> None:
    """Raises InputError if the smallest batch of `count` images has fewer than there are processes."""
    smallest = count // batch_count(count, settings.batch_size)
    if smallest < distributed.world_size():
        raise InputError(
            f"batch_size = {settings.batch_size} makes batches of {smallest} images, fewer than the "
            f"{distributed.world_size()} processes: raise it, or use fewer processes"
        )
