"""One training of a network: what happens from the first step to the last.

All that is random comes from (seed, epoch, step), so a run that is cut goes on from its last checkpoint, in
the midst of an epoch too, with the same bits as one that is not.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lungseg.learning.images.augmentation import Augmentation
from lungseg.learning.networks.checkpoints import load_state, save_state
from lungseg.learning.networks.data_parallel import shared
from lungseg.learning.networks.feed import Batch, Feed
from lungseg.learning.networks.images import Images
from lungseg.learning.networks.losses import segmentation_loss
from lungseg.learning.networks.schedule import (
    batch_count,
    batches,
    cost,
    learning_rate_factor,
    number_of,
    small_epochs,
)
from lungseg.learning.networks.settings import TrainingSettings
from lungseg.system import distributed
from lungseg.system.errors import InputError
from lungseg.system.runtime import Runtime

CHANCE, DROPOUT = 1, 2  # keep the numbers of a step apart from each other
LONGEST_SAVING_SHARE = 0.05  # of the time; a large state on a slow disk is stored more rarely for it


def seconds_between_checkpoints() -> float:
    """LUNGSEG_CHECKPOINT_SECONDS, or a minute. Raises InputError if it isn't a number of at least 0."""
    text = os.environ.get("LUNGSEG_CHECKPOINT_SECONDS", "60")
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise InputError(f"LUNGSEG_CHECKPOINT_SECONDS={text} is not a number of at least 0: mend or unset it")
    return seconds


def require_two_images(count: int) -> None:
    """Raises InputError if there are fewer training images: the smallest batch that a batch norm takes."""
    if count < 2:
        raise InputError(f"training a network needs two images at least, the split has {count}")


def order_in_memory(weight: Tensor) -> tuple[int, ...]:
    """Dimensions of a weight from the outermost to the innermost: a convolution's may be channels last."""
    if weight.ndim == 4 and not weight.is_contiguous():
        return 0, 2, 3, 1
    return tuple(range(weight.ndim))


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
    def restart(self, network: nn.Module) -> None:
        """Forgets all weights but the network's present ones."""
        self.steps = 0
        for mine, theirs in zip(self.network.parameters(), network.parameters(), strict=True):
            mine.copy_(theirs)

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
        best: the running mean's state as it was after the best epoch so far; None before the first.
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
        require_two_images(count)
        self.settings, self.runtime, self.seed = settings, runtime, seed
        self.network = network.to(runtime.device, memory_format=runtime.memory_format)
        self.average = WeightAverage(self.network, settings.ema_decay)
        self.augmentation = Augmentation(settings.augmentation) if settings.augment else None
        self._parameters = list(self.network.parameters())
        self._orders = [order_in_memory(parameter) for parameter in self._parameters]
        # The same memory as contiguous tensors: of any other a CPU's fused optimiser copies the gradient.
        self._stored = [
            p.detach().permute(order) for p, order in zip(self._parameters, self._orders, strict=True)
        ]
        self.optimiser = self._optimiser(*groups(self.network))
        self.top_rates = [group["lr"] for group in self.optimiser.param_groups]
        self.steps = batch_count(count, settings.batch_size)  # of an epoch
        self.epoch, self.step = 0, 0
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Tensor] | None = None
        self.seconds_before = 0.0
        self._waited_before = 0.0
        self._feed: Feed | None = None
        self._losses: list[float] = []
        self._accuracies: list[float] = []
        self._start = self._saved = time.perf_counter()
        self._savings: list[float] = []  # seconds of each stored state
        self._between_checkpoints = seconds_between_checkpoints()
        self._forward = shared(self.network)

    @property
    def seconds(self) -> float:
        """Spent so far, over all sittings."""
        return self.seconds_before + time.perf_counter() - self._start

    @property
    def waited(self) -> float:
        """Seconds in which the device had no batch yet or a state was stored, over all sittings."""
        return self._waited_before + sum(self._savings) + (self._feed.waited if self._feed else 0.0)

    def _optimiser(self, backbone: list[nn.Parameter], head: list[nn.Parameter]) -> torch.optim.Optimizer:
        s = self.settings
        stored = dict(zip(self._parameters, self._stored, strict=True))
        groups = []
        for parameters, rate in ((backbone, s.learning_rate * s.backbone_factor), (head, s.learning_rate)):
            # Decay pulls on directions; a batch norm's scale or a bias has none.
            matrices = [stored[p] for p in parameters if p.ndim > 1]
            vectors = [stored[p] for p in parameters if p.ndim <= 1]
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
            checkpoint: where the state is stored when it is due, for a run that is cut.

        Returns:
            mean loss and pixel accuracy over the epoch's batches, as trained on (augmented).

        Raises:
            InputError: the loss or a gradient is not a finite number.
        """
        self._train_mode()
        if self.settings.ema_restart and (self.epoch, self.step) == (small_epochs(self.settings), 0):
            self.average.restart(self.network)
        order = batches(len(data), self.settings.batch_size, self.seed, self.epoch)
        self._waited_before = self.waited - sum(self._savings)
        self._feed = Feed(data, order[self.step :], self.runtime.device)
        for batch in self._feed:
            loss, accuracy = self.take_step(batch, checkpoint)
            self._losses.append(loss)
            self._accuracies.append(accuracy)
            self.step += 1
            progress(self.step, len(order), loss)
            if checkpoint is not None:
                self.save_if_due(checkpoint)
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

    def take_step(self, batch: Batch, checkpoint: Path | None = None) -> tuple[float, float]:
        """One step of the optimiser; the whole batch's mean loss and pixel accuracy.

        Raises InputError if the loss or a gradient is not a finite number; the weights then stay as they are.
        """
        loss, accuracy, gradient = self._step(batch)
        if not math.isfinite(loss):
            raise InputError(self._not_finite(f"the loss is {loss}", batch, checkpoint))
        if not math.isfinite(gradient):
            raise InputError(self._not_finite(f"the gradient's norm is {gradient}", batch, checkpoint))
        return loss, accuracy

    def _not_finite(self, what: str, batch: Batch, checkpoint: Path | None) -> str:
        kept = ""
        if checkpoint is not None and checkpoint.exists():
            kept = f"; the last good state is in {checkpoint}, which a start with other settings removes"
        names = ", ".join(distributed.all_gather(batch.names))
        return (
            f"{what} at step {self.step + 1} of epoch {self.epoch + 1} (images {names}){kept}: look at these "
            f"images, or start anew with a lower learning_rate than {self.settings.learning_rate} "
            "or with runtime.precision=float32"
        )

    def _step(self, batch: Batch) -> tuple[float, float, float]:
        """Loss, accuracy and the norm of the gradient; a step only if all are finite."""
        s = self.settings
        # By work, not steps: those at the full size are few and last, and would have the lowest rates alone.
        done, total = (cost(*at, self.steps, s) for at in ((self.epoch, self.step), (s.epochs, 0)))
        factor = learning_rate_factor(done, total, s)
        for group, rate in zip(self.optimiser.param_groups, self.top_rates, strict=True):
            group["lr"] = rate * factor
        number = number_of(self.seed, CHANCE, self.epoch, self.step)
        images, masks = self._augmented(batch, torch.Generator().manual_seed(number))
        # Of dropout: the parts of a batch mustn't all lose the same units.
        torch.manual_seed(number_of(self.seed, DROPOUT, self.epoch, self.step, distributed.rank()))
        with self.runtime.autocast():
            logits = self._forward(images.contiguous(memory_format=self.runtime.memory_format))
        # A part's mean weighs as many images as it has: gradients are averaged over processes.
        share = len(images) / batch.whole
        loss = segmentation_loss(logits, masks, s)
        self.network.zero_grad(set_to_none=True)
        (loss * share * distributed.world_size()).backward()
        right = ((logits.detach() >= 0) == (masks >= 0.5)).float().mean()
        whole = distributed.all_reduce(torch.stack([loss.detach(), right]) * share)
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        # The same on all processes, since gradients are means over them by now.
        loss, right, norm = [*whole.tolist(), nn.utils.get_total_norm(gradients).item()]
        if math.isfinite(loss) and math.isfinite(norm):  # else the weights stay what they were
            self._update()
        return loss, right, norm

    def _update(self) -> None:
        for parameter, order, stored in zip(self._parameters, self._orders, self._stored, strict=True):
            stored.grad = None if parameter.grad is None else parameter.grad.permute(order)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)  # else old gradients stay in memory beside the new ones
        self.average.update(self.network)

    def _augmented(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        if self.augmentation is None:
            return batch.images, batch.masks
        # Drawn for the whole batch, so that it doesn't matter how many processes share it.
        changes = self.augmentation.draw(batch.whole, generator)
        own = changes[batch.first : batch.first + len(batch.images)]
        return self.augmentation.apply(batch.images, batch.masks, own)

    @property
    def best_epoch(self) -> int:
        """The first with the best validation Dice, of those at the final size as soon as there are any."""
        final = self.history[small_epochs(self.settings) :]
        return max(final or self.history, key=lambda row: row["validation_dice"])["step"]

    def keep_best(self) -> None:
        """After each epoch's validation: a copy of the running mean if it is the best so far.

        In the host's memory: a device's may be full. None while images are small, as a later one replaces it.
        """
        if self.best_epoch == self.epoch > small_epochs(self.settings):
            state = self.average.network.state_dict()
            self.best = {name: value.to("cpu", copy=True) for name, value in state.items()}

    def save_if_due(self, path: Path) -> None:
        """`save`, if it was longer ago than LUNGSEG_CHECKPOINT_SECONDS, and if it doesn't take too long."""
        between = self._between_checkpoints
        if between > 0:  # 0 is "at every step", whatever it costs
            took = min(self._savings[-2:], default=0.0)  # of two, since one may have been held up
            between = max(between, took / LONGEST_SAVING_SHARE)
        if time.perf_counter() - self._saved >= between:
            self.save(path)

    def save(self, path: Path) -> None:
        """Writes everything that the next step depends on, whole or not at all; the first process alone."""
        if not distributed.is_main():
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
            "best": self.best,
            "seconds": self.seconds,
            "waited": self.waited,
        }
        begun = time.perf_counter()
        save_state(state, path)
        self._saved = time.perf_counter()
        self._savings.append(self._saved - begun)

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
        best = state["best"]
        self.best = best and {name: value.cpu() for name, value in best.items()}
        self._losses, self._accuracies = state["losses"], state["accuracies"]
        self.seconds_before, self._waited_before = state["seconds"], state["waited"]
        return True
