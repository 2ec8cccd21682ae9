"""The training of a network: its steps and epochs, its checkpoints, and going on from a checkpoint.

All random numbers are derived from (seed, epoch, step). So a training that is cut goes on from its last
checkpoint, also within an epoch, and ends with the same bits as one that is not cut.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lungseg.learning.images.augmentation import Augmentation
from lungseg.learning.networks.checkpoints import load_state, read_checkpoint_interval, save_state
from lungseg.learning.networks.data_parallel import share_gradients
from lungseg.learning.networks.feed import Batch, Feed
from lungseg.learning.networks.image_cache import Images
from lungseg.learning.networks.losses import segmentation_loss
from lungseg.learning.networks.schedule import (
    compute_learning_rate_factor,
    count_batches,
    count_small_epochs,
    count_work,
    derive_seed,
    draw_batches,
)
from lungseg.learning.networks.settings import TrainingSettings
from lungseg.learning.networks.weight_average import WeightAverage
from lungseg.system import distributed
from lungseg.system.errors import InputError
from lungseg.system.runtime import Runtime

AUGMENTATION, DROPOUT = 1, 2  # give the two random streams of a step different seeds
LONGEST_SAVING_SHARE = 0.05  # of the time: a large state on a slow disk is written more rarely


def require_two_images(count: int) -> None:
    """Raise InputError if there are fewer than two training images, the smallest batch for a batch norm."""
    if count < 2:
        raise InputError(f"training a network needs two images at least, the split has {count}")


def find_memory_order(weight: Tensor) -> tuple[int, ...]:
    """List a weight's dimensions from the outermost in memory to the innermost; it may be channels last."""
    if weight.ndim == 4 and not weight.is_contiguous():
        return 0, 2, 3, 1
    return tuple(range(weight.ndim))


class Training:
    """The state of a training, changed step by step."""

    def __init__(
        self,
        network: nn.Module,
        group_parameters: Callable[[nn.Module], tuple[list[nn.Parameter], list[nn.Parameter]]],
        settings: TrainingSettings,
        runtime: Runtime,
        seed: int,
        count: int,
    ) -> None:
        """Prepare a training of a network, in place, on `count` images; no step is done yet.

        `group_parameters` returns a network's pretrained and its new parameters. Raises InputError if there
        are fewer than two images.
        """
        require_two_images(count)
        self.settings, self.runtime, self.seed = settings, runtime, seed
        self.network = network.to(runtime.device, memory_format=runtime.memory_format)
        self.average = WeightAverage(self.network, settings.ema_decay)
        self.augmentation = Augmentation(settings.augmentation) if settings.augment else None
        self._parameters = list(self.network.parameters())
        self._orders = [find_memory_order(parameter) for parameter in self._parameters]
        # The same memory as contiguous tensors: for any others a CPU's fused optimiser copies the gradient.
        self._stored = [
            p.detach().permute(order) for p, order in zip(self._parameters, self._orders, strict=True)
        ]
        self.optimiser = self._make_optimiser(*group_parameters(self.network))
        self.top_rates = [group["lr"] for group in self.optimiser.param_groups]
        self.steps = count_batches(count, settings.batch_size)  # of an epoch
        self.epoch, self.step = 0, 0  # epochs that are done, validation included; steps of the present one
        self.history: list[dict[str, Any]] = []  # a row for each epoch that is done
        self.best: dict[str, Tensor] | None = None  # the moving average after the best epoch so far
        self.seconds_before = 0.0  # of former sessions, if the training went on from a checkpoint
        self._waited_before = 0.0
        self._feed: Feed | None = None
        self._losses: list[float] = []
        self._accuracies: list[float] = []
        self._start = self._saved = time.perf_counter()
        self._savings: list[float] = []  # seconds that each checkpoint took
        self._between_checkpoints = read_checkpoint_interval()
        self._forward = share_gradients(self.network)

    @property
    def seconds(self) -> float:
        """Return the seconds spent so far, over all sessions."""
        return self.seconds_before + time.perf_counter() - self._start

    @property
    def waited(self) -> float:
        """Return the seconds of waiting for batches and of writing checkpoints, over all sessions."""
        return self._waited_before + sum(self._savings) + (self._feed.waited if self._feed else 0.0)

    def _make_optimiser(
        self, backbone: list[nn.Parameter], head: list[nn.Parameter]
    ) -> torch.optim.Optimizer:
        s = self.settings
        stored = dict(zip(self._parameters, self._stored, strict=True))
        groups = []
        for parameters, rate in ((backbone, s.learning_rate * s.backbone_factor), (head, s.learning_rate)):
            # No weight decay on vectors (biases, scales of batch norms).
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
        is_interrupted: Callable[[], bool] = lambda: False,
    ) -> tuple[float, float]:
        """Do the steps that are left of the present epoch on images at its size.

        `progress` is called after each step with (step, steps of the epoch, loss). The state is written to
        `checkpoint` when it is due; if a signal waits, at once, and KeyboardInterrupt is raised. Returns the
        mean loss and pixel accuracy over the epoch's batches, as they were trained on (augmented). Raises
        InputError if the loss or a gradient is not finite.
        """
        self._set_train_mode()
        order = draw_batches(len(data), self.settings.batch_size, self.seed, self.epoch)
        self._waited_before = self.waited - sum(self._savings)
        self._feed = Feed(data, order[self.step :], self.runtime.device)
        for batch in self._feed:
            loss, accuracy = self.take_step(batch, checkpoint)
            self._losses.append(loss)
            self._accuracies.append(accuracy)
            self.step += 1
            progress(self.step, len(order), loss)
            if checkpoint is not None:
                self.save_if_due(checkpoint, is_interrupted())
        found = float(np.mean(self._losses)), float(np.mean(self._accuracies))
        self.epoch, self.step = self.epoch + 1, 0
        self._losses, self._accuracies = [], []
        return found

    def _set_train_mode(self) -> None:
        self.network.train()
        if self.settings.freeze_norms:
            for module in self.network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def take_step(self, batch: Batch, checkpoint: Path | None = None) -> tuple[float, float]:
        """Do one step of the optimiser; return the whole batch's mean loss and accuracy, over all processes.

        Raises InputError if the loss or a gradient is not finite; the weights then stay as they are.
        """
        loss, accuracy, gradient = self._step(batch)
        for name, value in (("loss", loss), ("gradient's norm", gradient)):
            if not math.isfinite(value):
                raise InputError(self._explain_not_finite(f"the {name} is {value}", batch, checkpoint))
        return loss, accuracy

    def _explain_not_finite(self, what: str, batch: Batch, checkpoint: Path | None) -> str:
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
        """Return loss, accuracy and the norm of the gradient; step only if loss and norm are finite."""
        s = self.settings
        # By work, not by steps: the few steps at the full size come last and would get only the lowest rates.
        done, total = (count_work(*at, self.steps, s) for at in ((self.epoch, self.step), (s.epochs, 0)))
        factor = compute_learning_rate_factor(done, total, s)
        for group, rate in zip(self.optimiser.param_groups, self.top_rates, strict=True):
            group["lr"] = rate * factor
        number = derive_seed(self.seed, AUGMENTATION, self.epoch, self.step)
        images, masks = self._augment(batch, torch.Generator().manual_seed(number))
        # Dropout mustn't drop the same units in all processes' shares of a batch.
        torch.manual_seed(derive_seed(self.seed, DROPOUT, self.epoch, self.step, distributed.rank()))
        with self.runtime.autocast():
            logits = self._forward(images.contiguous(memory_format=self.runtime.memory_format))
        # Gradients are averaged over processes, so each one's mean is weighted by its number of images.
        share = len(images) / batch.whole
        loss = segmentation_loss(logits, masks, s)
        self.network.zero_grad(set_to_none=True)
        (loss * share * distributed.world_size()).backward()
        right = ((logits.detach() >= 0) == (masks >= 0.5)).float().mean()
        whole = distributed.all_reduce(torch.stack([loss.detach(), right]) * share)
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        # The same in all processes, since gradients are means over them by now.
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

    def _augment(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        if self.augmentation is None:
            return batch.images, batch.masks
        # Drawn for the whole batch, so that the number of processes doesn't matter.
        changes = self.augmentation.draw(batch.whole, generator)
        own = changes[batch.first : batch.first + len(batch.images)]
        return self.augmentation.apply(batch.images, batch.masks, own)

    @property
    def best_epoch(self) -> int:
        """Return the epoch with the best validation Dice, the first of equals.

        Epochs at the full size count alone, as soon as there are any.
        """
        final = self.history[count_small_epochs(self.settings) :]
        return max(final or self.history, key=lambda row: row["validation_dice"])["step"]

    def keep_best(self) -> None:
        """Keep a copy of the moving average if this epoch is the best so far; called after validation.

        The copy is in the host's memory, since the device's may be full. Epochs with small images are not
        kept, as one at the full size replaces them in any case.
        """
        if self.best_epoch == self.epoch > count_small_epochs(self.settings):
            state = self.average.network.state_dict()
            self.best = {name: value.to("cpu", copy=True) for name, value in state.items()}

    def save_if_due(self, path: Path, interrupted: bool = False) -> None:
        """Save if the last checkpoint is old enough; if a signal waits save and raise KeyboardInterrupt.

        Least age: LUNGSEG_CHECKPOINT_SECONDS, and so long that saving takes at most 5 % of the time.
        """
        between = self._between_checkpoints
        if between > 0:  # 0 stands for every step, whatever that costs
            took = min(self._savings[-2:], default=0.0)  # the lower of two, since one may have been delayed
            between = max(between, took / LONGEST_SAVING_SHARE)
        interrupted = self._ask_all(interrupted)
        if interrupted or time.perf_counter() - self._saved >= between:
            self.save(path)
        if interrupted:
            raise KeyboardInterrupt

    def _ask_all(self, interrupted: bool) -> bool:
        """Return whether a signal waits in any process: all have to end after the same step."""
        if distributed.world_size() == 1:
            return interrupted
        return bool(distributed.all_reduce(torch.tensor(float(interrupted), device=self.runtime.device)))

    def save(self, path: Path) -> None:
        """Write a checkpoint: all that the next step depends on. Only the main process writes."""
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
        """Go on from a checkpoint. Return False if there is none or it is damaged, and start over."""
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
