"""One training of a network: what happens from the first step to the last.

All that is random comes from (seed, epoch, step), so a run that is cut goes on from its last checkpoint, in
the midst of an epoch too, with the same bits as one that is not.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lungseg.approaches.approach import Runtime
from lungseg.approaches.augmentation import Augmentation
from lungseg.approaches.networks import processes
from lungseg.approaches.networks.checkpoints import load_state, save_state
from lungseg.approaches.networks.distributed import shared
from lungseg.approaches.networks.feed import Batch, Feed
from lungseg.approaches.networks.images import Images
from lungseg.approaches.networks.losses import segmentation_loss
from lungseg.approaches.networks.schedule import batch_count, batches, learning_rate_factor, number_of
from lungseg.approaches.networks.settings import TrainingSettings
from lungseg.errors import InputError

SECONDS_BETWEEN_CHECKPOINTS = 60.0
CHANCE = 1  # keeps the numbers of steps apart from those of epochs


class WeightAverage:
    """Exponential running mean of a network's weights; batch norm's own statistics are copied.

    The decay rises with the steps, min(decay, (1 + step) / (10 + step)), as TensorFlow's average has it, so
    that a short training isn't held back by its first weights.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).eval()
        self.steps = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        mine, theirs = list(self.network.parameters()), list(network.parameters())
        torch._foreach_lerp_(mine, theirs, 1 - decay)
        for kept, new in zip(self.network.buffers(), network.buffers(), strict=True):
            kept.copy_(new)


class Training:
    """The state of a training, a step at a time.

    Attributes:
        network: what is trained.
        average: the running mean of its weights.
        epoch: epochs that are done, validation included.
        step: steps of the present epoch that are done.
        history: a row for each epoch that is done.
        waited: seconds that the device waited for batches, over all sittings.
    """

    def __init__(
        self,
        network: nn.Module,
        groups: Callable[[nn.Module], tuple[list[nn.Parameter], list[nn.Parameter]]],
        settings: TrainingSettings,
        runtime: Runtime,
        seed: int,
        count: int,
    ) -> None:
        """`groups`: a network's pretrained and its new parameters; `count`: training images, at least 2.

        Raises InputError if there are fewer.
        """
        if count < 2:
            raise InputError(f"training a network needs two images at least, the split has {count}")
        self.settings, self.runtime, self.seed = settings, runtime, seed
        layout = torch.channels_last if runtime.channels_last else torch.contiguous_format
        self.network = network.to(runtime.device, memory_format=layout)
        self.average = WeightAverage(self.network, settings.ema_decay)
        self.augmentation = Augmentation(settings.augmentation) if settings.augment else None
        self.optimiser = self._optimiser(*groups(self.network))
        self.top_rates = [group["lr"] for group in self.optimiser.param_groups]
        self.steps = batch_count(count, settings.batch_size)  # of an epoch
        self.epoch, self.step = 0, 0
        self.history: list[dict[str, Any]] = []
        self.waited = 0.0
        self.seconds_before = 0.0
        self._losses: list[float] = []
        self._accuracies: list[float] = []
        self._start = time.perf_counter()
        self._forward = shared(self.network)

    @property
    def seconds(self) -> float:
        """Spent so far, over all sittings."""
        return self.seconds_before + time.perf_counter() - self._start

    def _optimiser(self, backbone: list[nn.Parameter], head: list[nn.Parameter]) -> torch.optim.Optimizer:
        s = self.settings
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

    def run_epoch(
        self,
        data: Images,
        progress: Callable[[int, int, float], None],
        checkpoint: Path | None = None,
    ) -> tuple[float, float]:
        """Trains what is left of the epoch; `progress(step, steps of the epoch, loss)`.

        Args:
            checkpoint: where the state is stored now and then, for a run that is cut.

        Returns:
            mean loss and pixel accuracy over the epoch's batches, as trained on (augmented).

        Raises:
            InputError: the loss is not a finite number, or the device's memory is full.
        """
        self._train_mode()
        order = batches(len(data), self.settings.batch_size, self.seed, self.epoch)
        feed = Feed(data, order[self.step :], self.runtime.device)
        stored = time.perf_counter()
        for batch in feed:
            loss, accuracy = self._checked_step(batch, checkpoint)
            self._losses.append(loss)
            self._accuracies.append(accuracy)
            self.step += 1
            progress(self.step, len(order), loss)
            if checkpoint is not None and time.perf_counter() - stored > SECONDS_BETWEEN_CHECKPOINTS:
                self.save(checkpoint)
                stored = time.perf_counter()
        self.waited += feed.waited
        found = float(np.mean(self._losses)), float(np.mean(self._accuracies))
        self.epoch, self.step = self.epoch + 1, 0
        self._losses, self._accuracies = [], []
        return found

    def _train_mode(self) -> None:
        self.network.train()
        if self.settings.freeze_norms:
            for module in self.network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def _checked_step(self, batch: Batch, checkpoint: Path | None) -> tuple[float, float]:
        try:
            loss, accuracy = self._step(batch)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            raise InputError(
                f"the device's memory is full: lower batch_size = {self.settings.batch_size} "
                f"or size = {self.settings.size}"
            ) from error
        if not math.isfinite(loss):
            raise InputError(self._not_finite(loss, batch, checkpoint))
        return loss, accuracy

    def _not_finite(self, loss: float, batch: Batch, checkpoint: Path | None) -> str:
        kept = ""
        if checkpoint is not None and checkpoint.exists():
            kept = f"; the last good state is in {checkpoint}, and the same command goes on from it"
        return (
            f"the loss is {loss} at step {self.step + 1} of epoch {self.epoch + 1} "
            f"(images {', '.join(batch.names)}){kept}: look at these images, "
            f"lower learning_rate = {self.settings.learning_rate}, or set runtime.precision=float32"
        )

    def _step(self, batch: Batch) -> tuple[float, float]:
        """One step of the optimiser; the whole batch's mean loss and pixel accuracy."""
        s = self.settings
        factor = learning_rate_factor(self.epoch * self.steps + self.step, self.steps * s.epochs, s)
        for group, rate in zip(self.optimiser.param_groups, self.top_rates, strict=True):
            group["lr"] = rate * factor
        number = number_of(self.seed, CHANCE, self.epoch, self.step)
        torch.manual_seed(number)  # of dropout
        images, masks = self._augmented(batch, torch.Generator().manual_seed(number))
        layout = torch.channels_last if self.runtime.channels_last else torch.contiguous_format
        with self.runtime.autocast():
            logits = self._forward(images.contiguous(memory_format=layout))
        # A part's mean weighs as many images as it has: gradients are averaged over processes.
        share = len(images) / batch.whole
        loss = segmentation_loss(logits, masks, s)
        self.optimiser.zero_grad(set_to_none=True)
        (loss * share * processes.count()).backward()
        right = ((logits.detach() >= 0) == (masks >= 0.5)).float().mean()
        whole = processes.add_up(torch.stack([loss.detach(), right]) * share)
        found = whole.tolist()
        if math.isfinite(found[0]):  # else the weights stay what they were
            self.optimiser.step()
            self.average.update(self.network)
        return found[0], found[1]

    def _augmented(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        if self.augmentation is None:
            return batch.images, batch.masks
        # Drawn for the whole batch, so that it doesn't matter how many processes share it.
        changes = self.augmentation.draw(batch.whole, generator)
        own = changes[batch.first : batch.first + len(batch.images)]
        return self.augmentation.apply(batch.images, batch.masks, own)

    def save(self, path: Path) -> None:
        """Writes everything that the next step depends on, whole or not at all; the first process alone."""
        if not processes.is_first():
            return
        state = {
            "epoch": self.epoch,
            "step": self.step,
            "losses": self._losses,
            "accuracies": self._accuracies,
            "network": self.network.state_dict(),
            "average": self.average.network.state_dict(),
            "average_steps": self.average.steps,
            "optimiser": self.optimiser.state_dict(),
            "history": self.history,
            "seconds": self.seconds,
            "waited": self.waited,
        }
        save_state(state, path)

    def resume(self, path: Path) -> bool:
        """Goes on from `path`; False if it isn't there or can't be read: then the training starts over."""
        state = load_state(path, self.runtime.device)
        if state is None:
            return False
        self.network.load_state_dict(state["network"])
        self.average.network.load_state_dict(state["average"])
        self.average.steps = state["average_steps"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.epoch, self.step, self.history = state["epoch"], state["step"], state["history"]
        self._losses, self._accuracies = state["losses"], state["accuracies"]
        self.seconds_before, self.waited = state["seconds"], state["waited"]
        return True


def _is_out_of_memory(error: Exception) -> bool:
    # On a CPU it is a plain RuntimeError of torch's allocator.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
