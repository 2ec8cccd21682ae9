"""One training of DeepLabV3+: what happens from the first step to the best weights.

All that is random in an epoch comes from (seed, epoch), so a run that is cut goes on from its last checkpoint
with the same bits as one that is not.
"""

from __future__ import annotations

import copy
import errno
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lungseg.approaches.approach import Runtime
from lungseg.approaches.augmentation import Augmentation
from lungseg.approaches.deeplabv3plus.network import DeepLabV3Plus, parameter_groups
from lungseg.approaches.deeplabv3plus.settings import DeepLabV3PlusSettings
from lungseg.errors import InputError
from lungseg.storage import unwritable


@dataclass(frozen=True)
class Images:
    """Images float32 N x 1 x s x s in [0, 1] and the share of lung in each pixel, of the same shape."""

    images: Tensor
    masks: Tensor


def segmentation_loss(logits: Tensor, masks: Tensor, kind: str) -> Tensor:
    """Cross-entropy of pixels, soft Dice loss of images (Milletari et al. 2016), or their sum; a scalar.

    Args:
        logits: N x 1 x H x W, any float dtype.
        masks: float32 N x 1 x H x W in [0, 1].
        kind: "cross-entropy", "dice" or "both".
    """
    logits = logits.float()
    loss = logits.new_zeros(())
    if kind != "dice":
        loss = loss + F.binary_cross_entropy_with_logits(logits, masks)
    if kind != "cross-entropy":
        probability = logits.sigmoid()
        both = (probability * masks).sum((1, 2, 3))
        sizes = probability.sum((1, 2, 3)) + masks.sum((1, 2, 3))
        # One pixel is added to both so that an image without lung has a loss, and a gradient, too.
        loss = loss + (1 - (2 * both + 1) / (sizes + 1)).mean()
    return loss


def learning_rate_factor(step: int, steps: int, settings: DeepLabV3PlusSettings) -> float:
    """Share of the top rate at `step` (from 0): linear warm-up, then half a cosine (Loshchilov 2017)."""
    if settings.schedule == "constant":
        return 1.0
    warmup = max(1, round(settings.warmup_share * steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def batches(count: int, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    """A random order of `count` images in `batch_count` batches, whose sizes differ by one at most."""
    order = torch.randperm(count, generator=generator)
    return list(torch.tensor_split(order, batch_count(count, batch_size)))


def batch_count(count: int, batch_size: int) -> int:
    """Batches of an epoch: as few as hold all images, but none with a single one.

    Only an odd count in batches of two can't be both, and then one batch has three.
    """
    return max(1, min(math.ceil(count / batch_size), count // 2))


class WeightAverage:
    """Exponential running mean of a network's weights; batch norm's own statistics are copied.

    The decay rises with the steps, min(decay, (1 + step) / (10 + step)), as TensorFlow's average has it, so
    that a short training isn't held back by its first weights.
    """

    def __init__(self, network: DeepLabV3Plus, decay: float) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).eval()
        self.steps = 0

    @torch.no_grad()
    def update(self, network: DeepLabV3Plus) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        mine, theirs = list(self.network.parameters()), list(network.parameters())
        torch._foreach_lerp_(mine, theirs, 1 - decay)
        for kept, new in zip(self.network.buffers(), network.buffers(), strict=True):
            kept.copy_(new)


class Training:
    """The state of a training, an epoch at a time."""

    def __init__(
        self, network: DeepLabV3Plus, settings: DeepLabV3PlusSettings, runtime: Runtime, seed: int, count: int
    ) -> None:
        """`count`: training images, at least 2. Raises InputError if there are fewer."""
        if count < 2:
            raise InputError(f"training a DeepLabV3+ needs two images at least, the split has {count}")
        self.settings, self.runtime, self.seed = settings, runtime, seed
        layout = torch.channels_last if runtime.channels_last else torch.contiguous_format
        self.network = network.to(runtime.device, memory_format=layout)
        self.average = WeightAverage(self.network, settings.ema_decay)
        self.augmentation = Augmentation(settings.augmentation) if settings.augment else None
        self.optimiser = self._optimiser()
        self.top_rates = [group["lr"] for group in self.optimiser.param_groups]
        self.steps = batch_count(count, settings.batch_size) * settings.epochs
        self.epoch = 0
        self.history: list[dict[str, Any]] = []
        self.seconds_before = 0.0
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Spent so far, over all sittings."""
        return self.seconds_before + time.perf_counter() - self._start

    def _optimiser(self) -> torch.optim.Optimizer:
        s = self.settings
        backbone, head = parameter_groups(self.network)
        groups = []
        for parameters, rate in ((backbone, s.learning_rate * s.backbone_factor), (head, s.learning_rate)):
            # Decay pulls on directions; a batch norm's scale or a bias has none.
            matrices = [p for p in parameters if p.ndim > 1]
            vectors = [p for p in parameters if p.ndim <= 1]
            groups += [
                {"params": matrices, "lr": rate, "weight_decay": s.weight_decay},
                {"params": vectors, "lr": rate, "weight_decay": 0.0},
            ]
        if s.optimiser == "adam":
            return torch.optim.Adam([{**g, "weight_decay": 0.0} for g in groups], fused=True)
        return torch.optim.AdamW(groups, fused=True)

    def run_epoch(self, data: Images, progress: Callable[[int, int, float], None]) -> tuple[float, float]:
        """Trains one epoch; `progress(step, steps of the epoch, loss)`.

        Returns:
            mean loss and pixel accuracy over the epoch's batches, as trained on (augmented).

        Raises:
            InputError: the loss is not a finite number, or the device's memory is full.
        """
        torch.manual_seed(self.seed * 1_000_003 + self.epoch)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        self.network.train()
        order = batches(len(data.images), self.settings.batch_size, generator)
        losses, shares = [], []
        for number, chosen in enumerate(order):
            images = data.images[chosen].to(self.runtime.device)
            masks = data.masks[chosen].to(self.runtime.device)
            if self.augmentation is not None:
                images, masks = self.augmentation(images, masks, generator)
            try:
                loss, share = self._step(images, masks, self.epoch * len(order) + number)
            except torch.OutOfMemoryError as error:
                raise InputError(
                    f"the device's memory is full: lower batch_size = {self.settings.batch_size} "
                    f"or size = {self.settings.size}"
                ) from error
            if not math.isfinite(loss):
                raise InputError(
                    f"the loss is {loss} at step {number + 1} of epoch {self.epoch + 1}: "
                    f"lower learning_rate = {self.settings.learning_rate}, or set runtime.precision=float32"
                )
            losses.append(loss)
            shares.append(share)
            progress(number + 1, len(order), loss)
        self.epoch += 1
        return float(np.mean(losses)), float(np.mean(shares))

    def _step(self, images: Tensor, masks: Tensor, step: int) -> tuple[float, float]:
        factor = learning_rate_factor(step, self.steps, self.settings)
        for group, rate in zip(self.optimiser.param_groups, self.top_rates, strict=True):
            group["lr"] = rate * factor
        layout = torch.channels_last if self.runtime.channels_last else torch.contiguous_format
        with self.runtime.autocast():
            logits = self.network(images.contiguous(memory_format=layout))
        loss = segmentation_loss(logits, masks, self.settings.loss)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self.average.update(self.network)
        right = (logits.detach() >= 0) == (masks >= 0.5)
        return loss.item(), right.float().mean().item()

    def save(self, path: Path) -> None:
        """Writes everything that the next epoch depends on, whole or not at all."""
        state = {
            "epoch": self.epoch,
            "network": self.network.state_dict(),
            "average": self.average.network.state_dict(),
            "average_steps": self.average.steps,
            "optimiser": self.optimiser.state_dict(),
            "history": self.history,
            "seconds": self.seconds,
        }
        save_state(state, path)

    def resume(self, path: Path) -> bool:
        """Goes on from `path`; False if it isn't there or can't be read: then the training starts over."""
        try:
            state = torch.load(path, map_location=self.runtime.device, weights_only=True)
        except (
            Exception
        ):  # not there, cut short or of another version: whatever it is, it can't be gone on from
            return False
        self.network.load_state_dict(state["network"])
        self.average.network.load_state_dict(state["average"])
        self.average.steps = state["average_steps"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.epoch, self.history = state["epoch"], state["history"]
        self.seconds_before = state["seconds"]
        return True


def save_state(state: dict[str, Any], path: Path) -> None:
    """torch.save, whole or not at all. Raises InputError if the disk is full or shut."""
    temporary = path.with_suffix(".part")
    try:
        with open(temporary, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, RuntimeError) and "write" not in str(error).lower():
            raise
        # torch reports a write that failed as a RuntimeError of its zip writer, without the reason.
        full = error if isinstance(error, OSError) else OSError(errno.ENOSPC, str(error))
        raise unwritable(path, full) from error
