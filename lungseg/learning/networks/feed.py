"""Loading of batches in the background while the device computes, and the time that it waited for them."""

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
    names: list[str]  # ids of the images
    first: int  # index of its first image in the whole batch
    whole: int  # images of the whole batch, over all processes


class Feed:
    """An iterator over batches that reads ahead in a thread of its own.

    Attributes:
        waited: seconds in which the next batch was wanted and not there yet.
    """

    def __init__(self, data: Images, order: list[Tensor], device: torch.device) -> None:
        """Prepare to read batches; `order` has the indices of each one's images, over all processes."""
        self.waited = 0.0
        self._data, self._order, self._device = data, order, device

    def __iter__(self) -> Iterator[Batch]:
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
        if self._device.type == "cuda":  # a copy from pinned memory is only queued: nothing waits for it
            images, masks = images.pin_memory(), masks.pin_memory()
        names = [self._data.names[indices[place]] for place in own]
        return Batch(images, masks, names, own.start, len(indices))

    def _on_device(self, batch: Batch) -> Batch:
        images = batch.images.to(self._device, non_blocking=True)
        return replace(batch, images=images, masks=batch.masks.to(self._device, non_blocking=True))
