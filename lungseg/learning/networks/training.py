"""The training of a network: its steps and epochs, its checkpoints, and going on from a checkpoint.

All random numbers are derived from (seed, epoch, step). So a training that is cut goes on from its last
checkpoint, also within an epoch, and ends with the same bits as one that is not cut. (On a GPU only with
the same free memory: cuDNN takes another algorithm where the memory for the first one is missing.)

A step waits for nothing that a GPU computes. Its loss is read some steps later, and a step whose loss or
gradient is not finite is left out by the GPU itself.
"""

from __future__ import annotations

import math
import time
import warnings
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lungseg.learning.images.augmentation import Augmentation
from lungseg.learning.networks.checkpoints import CheckpointClock, load_state, save_state
from lungseg.learning.networks.data_parallel import delay_exchange, share_gradients
from lungseg.learning.networks.device_readings import BusyShare, LateValues
from lungseg.learning.networks.feed import Batch, Feed
from lungseg.learning.networks.image_cache import Images
from lungseg.learning.networks.losses import segmentation_loss
from lungseg.learning.networks.optimiser import Optimiser
from lungseg.learning.networks.schedule import (
    compute_learning_rate_factor,
    count_batches,
    count_small_epochs,
    count_work,
    derive_seed,
    draw_batches,
    limit_parts,
    require_two_images,
)
from lungseg.learning.networks.settings import TrainingSettings
from lungseg.learning.networks.weight_average import WeightAverage
from lungseg.system import distributed
from lungseg.system.errors import InputError, is_out_of_memory
from lungseg.system.runtime import Runtime

AUGMENTATION, DROPOUT = 1, 2  # give the two random streams of a step different seeds
STEPS_AHEAD = 4  # of a GPU: so many losses are not read yet
TRIED_STEPS = 2  # at an image size: the second has the first one's gradients in memory, too


class Training:
    """The state of a training, changed step by step.

    Attributes:
        accumulation_steps: parts into which a batch is split, and whose gradients are summed up before the
            optimiser's step, so that less memory is needed. Gradients are those of the whole batch but for
            rounding, except through batch norms that aren't frozen: these see one part at a time, so they
            normalise by the statistics of fewer images, and update their running statistics once a part.
            They see two images at least.
    """

    def __init__(
        self,
        network: nn.Module,
        group_parameters: Callable[[nn.Module], tuple[list[nn.Parameter], list[nn.Parameter]]],
        settings: TrainingSettings,
        runtime: Runtime,
        seed: int,
        count: int,
        may_split: bool = True,
    ) -> None:
        """Prepare a training of a network, in place, on `count` images; no step is done yet.

        `group_parameters` returns a network's pretrained and its new parameters. Unless it `may_split`, a
        full memory is an error, and no reason to split batches. Raises InputError if there are fewer than two
        images.
        """
        require_two_images(count)
        self.settings, self.runtime, self.seed = settings, runtime, seed
        self.network = network.to(runtime.device, memory_format=runtime.memory_format)
        self.average = WeightAverage(self.network, settings.ema_decay)
        self.augmentation = Augmentation(settings.augmentation) if settings.augment else None
        self.optimiser = Optimiser(self.network, group_parameters, settings)
        self.accumulation_steps = 1
        self.busy = BusyShare(runtime.device)
        self._queued = runtime.device.type == "cuda"  # whether the host doesn't wait for steps
        self._unread: deque[tuple[LateValues, list[str], int]] = deque()  # with a step's images and number
        self._may_split = may_split
        self._tried = (0, 0)  # the image size of this session's last step, and the steps that fitted so far
        self.steps = count_batches(count, settings.batch_size)  # of an epoch
        self.epoch, self.step = 0, 0  # epochs that are done, validation included; steps of the present one
        self.history: list[dict[str, Any]] = []  # a row for each epoch that is done
        self.best: dict[str, Tensor] | None = None  # the moving average after the best epoch so far
        self.seconds_before = 0.0  # of former sessions, if the training went on from a checkpoint
        self._waited_before = 0.0
        self._feed: Feed | None = None
        self._losses: list[float] = []
        self._accuracies: list[float] = []
        self._start, self._checkpoints = time.perf_counter(), CheckpointClock()
        self._forward = share_gradients(self.network)

    @property
    def seconds(self) -> float:
        """Return the seconds spent so far, over all sessions."""
        return self.seconds_before + time.perf_counter() - self._start

    @property
    def waited(self) -> float:
        """Return the seconds of waiting for batches and of writing checkpoints, over all sessions."""
        return self._waited_before + self._checkpoints.seconds + (self._feed.waited if self._feed else 0.0)

    def run_epoch(
        self,
        data: Images,
        progress: Callable[[int, int, float], None],
        checkpoint: Path | None = None,
        is_interrupted: Callable[[], bool] = lambda: False,
    ) -> tuple[float, float]:
        """Do the steps that are left of the present epoch on images at its size.

        `progress` is called after each step with (step, steps of the epoch, the last loss that was read). The
        state is written to `checkpoint` when it is due; if a signal waits, at once, and KeyboardInterrupt is
        raised. Returns the mean loss and pixel accuracy over the epoch's batches, as they were trained on
        (augmented). Raises InputError as `take_step`; no checkpoint has a step that is not finite.
        """
        self._set_train_mode()
        order = draw_batches(len(data), self.settings.batch_size, self.seed, self.epoch)
        self._waited_before = self.waited - self._checkpoints.seconds
        self._feed = Feed(data, order[self.step :], self.runtime.device)
        self.busy.start()
        for batch in self._feed:
            loss = self.take_step(batch, checkpoint)
            self.step += 1
            self.busy.sample()
            progress(self.step, len(order), loss)
            if checkpoint is not None:
                self.save_if_due(checkpoint, is_interrupted())
        self._read_values(0, checkpoint)
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

    def _read_values(self, most: int, checkpoint: Path | None) -> None:
        """Read losses and accuracies of all steps but the last `most`, the same in all processes."""
        while len(self._unread) > most:
            values, names, step = self._unread.popleft()
            loss, accuracy, norm = values.read()
            for name, value in (("loss", loss), ("gradient's norm", norm)):
                if not math.isfinite(value):
                    where = f"step {step} of epoch {self.epoch + 1} (images {', '.join(names)})"
                    raise InputError(self._explain(f"the {name} is {value} at {where}", checkpoint))
            self._losses.append(loss)
            self._accuracies.append(accuracy)

    def _explain(self, what: str, checkpoint: Path | None) -> str:
        kept = ""
        if checkpoint is not None and checkpoint.exists():
            kept = f"; the last good state is in {checkpoint}, which a start with other settings removes"
        return (
            f"{what}{kept}: look at these images, or start anew with a lower learning_rate than "
            f"{self.settings.learning_rate} or with runtime.precision=float32"
        )

    def take_step(self, batch: Batch, checkpoint: Path | None = None) -> float:
        """Do one step of the optimiser; return the last loss that was read, which a GPU's steps are ahead of.

        Raises InputError if a loss or a gradient that was read is not finite; that step changed no weight. If
        the memory is full in a session's first two steps at an image size, batches are split into twice as
        many parts, with a warning. That error is raised with several processes, if the training may not split
        batches, or if parts can't be smaller (`limit_parts`).
        """
        values = LateValues(self._step(batch))
        self._unread.append((values, batch.names, self.step + 1))
        # An epoch's first loss is read at once, so that there is one to show.
        self._read_values(STEPS_AHEAD if self._queued and self._losses else 0, checkpoint)
        return self._losses[-1]

    def _step(self, batch: Batch) -> Tensor:
        """Return loss, accuracy and the gradient's norm, float32 3; step only if all are finite."""
        self._set_learning_rate()
        size = batch.images.shape[-1]
        tried = self._tried[1] if size == self._tried[0] else 0
        if self._queued and not tried:
            self.optimiser.allocate()  # before the gradients, whose parts then leave room for it
        values = self._compute_gradients(batch) if tried >= TRIED_STEPS else self._try_gradients(batch)
        self._tried = (size, tried + 1)
        if self._queued or all(map(math.isfinite, values.tolist())):
            # A GPU leaves the step out if this is 1, and nothing waits for the answer.
            skip = values.isfinite().all().logical_not().float() if self._queued else None
            self.optimiser.step(skip)
            self.average.update(self.network)
        return values

    def _set_learning_rate(self) -> None:
        s = self.settings
        # By work, not by steps: the few steps at the full size come last and would get only the lowest rates.
        done, total = (count_work(*at, self.steps, s) for at in ((self.epoch, self.step), (s.epochs, 0)))
        self.optimiser.set_rates(compute_learning_rate_factor(done, total, s))

    def _try_gradients(self, batch: Batch) -> Tensor:
        """Compute gradients by ever smaller parts of a batch, as long as the memory is full."""
        before = [value.clone() for value in self.network.buffers()]
        most = limit_parts(len(batch.images), len(batch.images), self.settings)
        may_split = self._may_split and distributed.world_size() == 1
        while True:
            try:
                return self._compute_gradients(batch)
            except (RuntimeError, MemoryError) as error:
                if not may_split or self.accumulation_steps >= most or not is_out_of_memory(error):
                    raise
            # Outside of the handler: the error holds the tensors that filled the memory.
            self.accumulation_steps = min(2 * self.accumulation_steps, most)
            parts = f"gradients of {self.accumulation_steps} parts of a batch are summed up from now on"
            warnings.warn(f"the memory is full: {parts}", stacklevel=2)
            with torch.no_grad():
                for value, former in zip(self.network.buffers(), before, strict=True):
                    value.copy_(former)  # what batch norms had counted of the images
            self.network.zero_grad(set_to_none=True)
            if self.runtime.device.type == "cuda":
                torch.cuda.empty_cache()

    def _compute_gradients(self, batch: Batch) -> Tensor:
        """Compute the gradient of the loss, part by part; return loss, accuracy and the gradient's norm."""
        number = derive_seed(self.seed, AUGMENTATION, self.epoch, self.step)
        changed = self._augment(batch, torch.Generator().manual_seed(number))
        # Dropout mustn't drop the same units in all processes' shares of a batch.
        torch.manual_seed(derive_seed(self.seed, DROPOUT, self.epoch, self.step, distributed.rank()))
        # The same number in all processes, since batch norms may be shared.
        count = limit_parts(self.accumulation_steps, batch.whole // distributed.world_size(), self.settings)
        parts = list(zip(*(each.tensor_split(count) for each in changed), strict=True))
        sums = torch.zeros(2, device=self.runtime.device)
        for part in parts:
            with delay_exchange(self._forward) if part is not parts[-1] else nullcontext():
                sums += self._add_gradients(*part, len(part[0]) / batch.whole, part is parts[0])
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        # The same in all processes, since gradients are means over them by now.
        return torch.cat([distributed.all_reduce(sums), nn.utils.get_total_norm(gradients)[None]])

    def _add_gradients(self, images: Tensor, masks: Tensor, share: float, first: bool) -> Tensor:
        """Add a part's gradient to that of the batch; return its loss and accuracy, times its share."""
        with self.runtime.autocast():
            logits = self._forward(images.contiguous(memory_format=self.runtime.memory_format))
        loss = segmentation_loss(logits, masks, self.settings)
        if first:  # not before: memory that is given back costs a CPU page faults when it is taken again
            self.network.zero_grad(set_to_none=True)
        # Gradients are averaged over processes, so each one's mean is weighted by its number of images.
        (loss * share * distributed.world_size()).backward()
        right = ((logits.detach() >= 0) == (masks >= 0.5)).float().mean()
        return torch.stack([loss.detach(), right]) * share

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

        The copy is in the host's memory, since the device's may be full. No epoch with small images is kept.
        """
        if self.best_epoch == self.epoch > count_small_epochs(self.settings):
            state = self.average.network.state_dict()
            self.best = {name: value.to("cpu", copy=True) for name, value in state.items()}

    def save_if_due(self, path: Path, interrupted: bool = False) -> None:
        """Save if the last checkpoint is old enough; if a signal waits save and raise KeyboardInterrupt."""
        interrupted = self._ask_all(interrupted)
        if interrupted or self._checkpoints.is_due():
            self.save(path)
        if interrupted:
            raise KeyboardInterrupt

    def _ask_all(self, interrupted: bool) -> bool:
        """Return whether a signal waits in any process: all have to end after the same step."""
        if distributed.world_size() == 1:
            return interrupted
        # On the host: to ask the device would wait for all that is queued there.
        return bool(distributed.all_reduce(torch.tensor(float(interrupted))))

    def save(self, path: Path) -> None:
        """Write a checkpoint: all that the next step depends on. Only the main process writes.

        Raises InputError if the loss or a gradient of a step so far is not finite.
        """
        if not distributed.is_main():
            return
        self._read_values(0, path)
        state = {
            "epoch": self.epoch,
            "step": self.step,
            "losses": self._losses,
            "accuracies": self._accuracies,
            "network": self.network.state_dict(),
            "average": self.average.network.state_dict(),
            "average_steps": self.average.steps,
            "accumulation_steps": self.accumulation_steps,
            "optimiser": self.optimiser.state_dict(),
            "history": self.history,
            "best": self.best,
            "seconds": self.seconds,
            "waited": self.waited,
        }
        begun = time.perf_counter()
        save_state(state, path)
        self._checkpoints.note(begun)

    def resume(self, path: Path) -> bool:
        """Go on from a checkpoint. Return False if there is none or it is damaged, and start over."""
        state = load_state(path)
        if state is None:
            return False
        self.network.load_state_dict(state["network"])
        self.average.network.load_state_dict(state["average"])
        self.average.steps = state["average_steps"]
        self.accumulation_steps = state["accumulation_steps"]  # other parts would give other bits
        self.optimiser.load_state_dict(state["optimiser"])
        self.epoch, self.step, self.history = state["epoch"], state["step"], state["history"]
        self.best = state["best"]
        self._losses, self._accuracies = state["losses"], state["accuracies"]
        self.seconds_before, self._waited_before = state["seconds"], state["waited"]
        return True
