"""Loading of batches while the device computes, and the time that it waited for them.

They come from the device's own memory if all images fit there, else from the host, read in the background.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lungseg.learning.networks.image_cache import Images
from lungseg.system import distributed

AHEAD = 2  # batches that are read in advance


@dataclass(frozen=True)
class Batch:
    """This process's share of a batch."""

    images: Tensor  # float32 n x 1 x s x s in [0, 1], on the device; so are the masks
    masks: Tensor
    names: list[str]  # ids of the images of the whole batch, over all processes
    first: int  # index of its first image in the whole batch
    whole: int  # images of the whole batch, over all processes


class Feed:
    """An iterator over batches that reads ahead in a thread of its own.

    Attributes:
        waited: seconds in which the next batch was wanted and not there yet.
    """

    def __init__(self, data: Images, order: list[Tensor], device: torch.device) -> None:
        """Prepare to read batches; `order` has the indices of each one's images, over all processes.

        Copies all images to the device if they fit there.
        """
        self._data, self._order, self._device = data, order, device
        start = time.perf_counter()
        if data.fits_on(device):
            data.keep_on(device)
        self.waited = time.perf_counter() - start

    def __iter__(self) -> Iterator[Batch]:
        return self._gather() if self._data.is_resident else self._read_ahead()

    def _gather(self) -> Iterator[Batch]:
        """Make batches of what the device holds; only the order of an epoch is copied to it."""
        parts = [distributed.shard(range(len(chosen))) for chosen in self._order]
        own = [chosen[part.start : part.stop] for chosen, part in zip(self._order, parts, strict=True)]
        places = self._pin(torch.cat([torch.empty(0, dtype=torch.int64), *own]))
        places = places.to(self._device, non_blocking=True).split([len(each) for each in own])
        for chosen, part, place in zip(self._order, parts, places, strict=True):
            yield Batch(*self._data.gather(place), self._name(chosen), part.start, len(chosen))

    def _read_ahead(self) -> Iterator[Batch]:
        with ThreadPoolExecutor(1) as reader:
            waiting: list[Future[Batch]] = []
            try:
                for number in range(len(self._order) + AHEAD):
                    if number < len(self._order):
                        waiting.append(reader.submit(self._read, self._order[number]))
                    if number >= AHEAD:
                        start = time.perf_counter()
                        batch = waiting.pop(0).result()
                        self.waited += time.perf_counter() - start
                        yield self._on_device(batch)
            finally:
                reader.shutdown(wait=False, cancel_futures=True)

    def _read(self, chosen: Tensor) -> Batch:
        indices = chosen.tolist()
        own = distributed.shard(range(len(indices)))
        images, masks = self._data.read_batch([indices[place] for place in own])
        return Batch(self._pin(images), self._pin(masks), self._name(chosen), own.start, len(indices))

    def _pin(self, tensor: Tensor) -> Tensor:
        # A copy from pinned memory is only queued: nothing waits for it.
        return tensor.pin_memory() if self._device.type == "cuda" else tensor

    def _name(self, chosen: Tensor) -> list[str]:
        return [self._data.names[index] for index in chosen.tolist()]

    def _on_device(self, batch: Batch) -> Batch:
        images = batch.images.to(self._device, non_blocking=True)
        return replace(batch, images=images, masks=batch.masks.to(self._device, non_blocking=True))
