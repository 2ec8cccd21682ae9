"""Approaches that train a network end to end: everything that does not depend on the network."""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lungseg.approaches.base import Approach, Stage
from lungseg.learning.fit import FitContext, FitReport
from lungseg.learning.images.resize import to_batch
from lungseg.learning.model_files import explain_damage, write_tensors
from lungseg.learning.networks.checkpoints import read_checkpoint_interval
from lungseg.learning.networks.data_parallel import (
    require_image_per_process,
    require_shareable_norms,
    share_norms,
)
from lungseg.learning.networks.image_cache import Images, read_images
from lungseg.learning.networks.inference import Predictor
from lungseg.learning.networks.losses import segmentation_loss
from lungseg.learning.networks.schedule import count_small_epochs, count_work, find_working_size
from lungseg.learning.networks.settings import TrainingSettings
from lungseg.learning.networks.training import Training, require_two_images
from lungseg.system import distributed
from lungseg.system.errors import InputError, is_out_of_memory
from lungseg.system.interrupts import delay_interrupts
from lungseg.system.runtime import Runtime

CHECKPOINT = "last.pt"


class NetworkApproach(Approach):
    """A network that predicts at a fixed working size; the map is resized to the image's own size.

    All processes that torchrun started share its fit; other approaches are fitted by one process.
    """

    Settings: ClassVar[type[TrainingSettings]] = TrainingSettings
    FILE = "network.safetensors"

    def __init__(self, settings: TrainingSettings, runtime: Runtime) -> None:
        super().__init__(settings, runtime)
        self.counted = False  # whether operations are counted, without compiled code or a recorded graph
        self.network: nn.Module | None = None  # fitted, in evaluation mode on the runtime's device
        self._predictor: Predictor | None = None

    @abstractmethod
    def build_network(self) -> nn.Module:
        """Build the network with any weights, from grey images N x 1 x s x s in [0, 1] to logits."""

    @abstractmethod
    def load_pretrained(self, network: nn.Module) -> None:
        """Load pretrained weights into the network, in place, if the settings ask for them."""

    @abstractmethod
    def group_parameters(self, network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Return the pretrained and the new parameters; each parameter is in one of the two lists."""

    def make_network(self, seed: int) -> nn.Module:
        """Make the network that a training starts from."""
        torch.manual_seed(seed)
        network = self.build_network()
        self.load_pretrained(network)
        return network

    @classmethod
    def hints(cls, settings: TrainingSettings, runtime: Runtime) -> list[str]:
        """List what a user should know about the settings before a long training, a sentence each."""
        own = {"recipe", "size", "epochs"} & settings.model_fields_set
        if runtime.device.type != "cpu" or own:
            return []
        return ['its recipe is one for a GPU: on a CPU set recipe = "cpu", or its own size and epochs']

    def estimate(self, train: int, validation: int) -> float | None:
        """Estimate seconds from two timed steps per image size; None if these can't be done."""
        try:
            return self._estimate(train, validation)
        except (InputError, RuntimeError, MemoryError):  # the training will say what is wrong
            return None

    def _estimate(self, train: int, validation: int) -> float:
        s = self.settings
        count = self._count_images_per_process(train)
        with distributed.work_alone():
            probe = self._make_probe(count)
            steps = {size: self._time_step(probe, size, count) for size in self._list_sizes()}
        # A forward pass (validation) takes about a third of a training step; processes share the images.
        seconds = sum(steps[find_working_size(epoch, s)] for epoch in range(s.epochs))
        return seconds / count * (train + validation / 3) / distributed.world_size()

    def _count_images_per_process(self, train: int) -> int:
        """Return the most images of a batch in one process, but at least the two that a training needs."""
        return max(2, math.ceil(min(train, self.settings.batch_size) / distributed.world_size()))

    def _time_step(self, probe: Training, size: int, count: int) -> float:
        data = _make_noise(count, size)
        probe.run_epoch(data, lambda *_: None)  # to warm up
        start = time.perf_counter()
        for _ in range(2):
            probe.run_epoch(data, lambda *_: None)
        return (time.perf_counter() - start) / 2

    def _list_sizes(self) -> list[int]:
        """List the image sizes of the training."""
        return sorted({find_working_size(epoch, self.settings) for epoch in (0, self.settings.epochs - 1)})

    def require(self, train: Sequence[Any]) -> None:
        require_two_images(len(train))
        require_image_per_process(len(train), self.settings)
        require_shareable_norms(self.settings, self.runtime)
        read_checkpoint_interval()

    def fit(self, train: Sequence[Any], validation: Sequence[Any], context: FitContext) -> FitReport:
        self.require(train)
        data, held = (
            {size: self._read_images(samples, size, context) for size in self._list_sizes()}
            for samples in (train, validation)
        )
        with self._explain_full_memory():
            shapes = [sample.mask().shape for sample in validation]
            self._try_full_size(len(train))
            training = self._resume_or_start(context, len(train))
            for row in training.history:
                context.history(**row)
            self._train(training, data, held, shapes, context)
            # Saved again, so that nothing is lost before the model is stored.
            training.save(context.checkpoints / CHECKPOINT)
            network = self.build_network()
            network.load_state_dict(training.best)
            self._use_network(network)
            distributed.barrier()  # then only the main process goes on, and removes the checkpoints
        return FitReport(
            "images",
            len(train) * self.settings.epochs,
            sum(p.numel() for p in training.network.parameters()),
            training.best_epoch,
            wait_share=training.waited / training.seconds,
            seconds_before=training.seconds_before,
        )

    def _train(
        self,
        training: Training,
        data: dict[int, Images],
        held: dict[int, Images],
        shapes: list[tuple[int, int]],
        context: FitContext,
    ) -> None:
        """Do the epochs that are left. A signal ends them after the present step, which is stored."""
        path = context.checkpoints / CHECKPOINT
        with delay_interrupts() as is_interrupted:
            while training.epoch < self.settings.epochs:
                size = find_working_size(training.epoch, self.settings)
                self._train_epoch(training, data[size], context, is_interrupted)
                self._validate(training, held[size], shapes, context)
                training.keep_best()
                context.history(**training.history[-1])
                training.save_if_due(path, is_interrupted())

    def _try_full_size(self, count: int) -> None:
        """Try a step at the full size, so that a full memory is found before the small epochs are trained."""
        if not count_small_epochs(self.settings):
            return
        count = self._count_images_per_process(count)
        with distributed.work_alone():
            self._make_probe(count).run_epoch(_make_noise(count, self.settings.size), lambda *_: None)

    def _make_probe(self, count: int) -> Training:
        return Training(self.build_network(), self.group_parameters, self.settings, self.runtime, 0, count)

    @contextmanager
    def _explain_full_memory(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            lower = f"batch_size = {self.settings.batch_size} or size = {self.settings.size}"
            raise InputError(f"the memory is full: lower {lower}") from error

    def _resume_or_start(self, context: FitContext, count: int) -> Training:
        training, path = self._make_training(context, count), context.checkpoints / CHECKPOINT
        states = distributed.all_gather([(training.resume(path), training.epoch, training.step)])
        if len(set(states)) > 1:
            raise InputError(
                f"the processes don't find the same state in {path}: "
                "give all machines the same folder, or start over with --fresh"
            )
        return training

    def _make_training(self, context: FitContext, count: int) -> Training:
        network = share_norms(self.make_network(context.seed), self.settings, self.runtime)
        return Training(network, self.group_parameters, self.settings, self.runtime, context.seed, count)

    def _read_images(self, samples: Sequence[Any], size: int, context: FitContext) -> Images:
        """Read images: the main process fills the cache, then the others read it."""

        def report(done: int, total: int) -> None:
            if done % 8 == 0:
                context.progress(done, total, "reading images")

        if not distributed.is_main():
            distributed.barrier()
        images = read_images(samples, size, report)
        if distributed.is_main():
            distributed.barrier()
        return images

    def _train_epoch(
        self, training: Training, data: Images, context: FitContext, is_interrupted: Callable[[], bool]
    ) -> None:
        epoch, epochs = training.epoch, self.settings.epochs
        last = f", Dice {training.history[-1]['validation_dice']:.4f}" if training.history else ""

        def progress(step: int, steps: int, loss: float) -> None:
            text = f"epoch {epoch + 1} of {epochs}, loss {loss:.4f}{last}"
            done, total = (count_work(*at, steps, self.settings) for at in ((epoch, step), (epochs, 0)))
            context.progress(done, total, text)

        loss, accuracy = training.run_epoch(data, progress, context.checkpoints / CHECKPOINT, is_interrupted)
        training.history.append(
            {"unit": "epoch", "step": training.epoch, "train_loss": loss, "train_accuracy": accuracy}
        )

    @torch.inference_mode()
    def _validate(
        self, training: Training, held: Images, shapes: list[tuple[int, int]], context: FitContext
    ) -> None:
        """Add loss, accuracy and Dice of the validation images to the last row of the history."""
        predictor = Predictor(training.average.network, self.settings, self.runtime, plain=True)
        own = distributed.shard(range(len(shapes)))
        losses, right = [], []

        # One batch at a time: all maps at their own sizes together could fill the memory.
        def predict_maps() -> Iterator[np.ndarray]:
            for start in range(own.start, own.stop, self.settings.batch_size):
                chosen = range(start, min(start + self.settings.batch_size, own.stop))
                images, masks = (each.to(self.runtime.device) for each in held.read_batch(chosen))
                logits = predictor.predict_logits(images)
                for logit, mask in zip(logits.split(1), masks.split(1), strict=True):
                    losses.append(float(segmentation_loss(logit, mask, self.settings)))
                    right.append(float(((logit >= 0) == (mask >= 0.5)).float().mean()))
                yield from self.finish(logits.sigmoid(), shapes[chosen.start : chosen.stop])

        if distributed.world_size() == 1:
            dice = context.score(predict_maps())
        else:
            # Gathered image by image: the mean of the processes' means would be another number.
            dice = float(np.mean(distributed.all_gather(context.scores(predict_maps(), own))))
        training.history[-1].update(
            validation_loss=float(np.mean(distributed.all_gather(losses))),
            validation_accuracy=float(np.mean(distributed.all_gather(right))),
            validation_dice=dice,
        )

    def prepare(self, images: Sequence[np.ndarray]) -> Tensor:
        return to_batch(images, self.settings.size, self.runtime.device)

    def stages(self) -> list[Stage]:
        if self._predictor is None:
            self._predictor = Predictor(self.network, self.settings, self.runtime)
        return [Stage("network", lambda batch: self._predictor.predict_logits(batch, self.counted).sigmoid())]

    def to_module(self) -> nn.Module:
        return _Probabilities(self.network, self.settings.test_time)

    @property
    def compile_seconds(self) -> float | None:
        """Return the seconds that torch.compile took, if it was used; known after a prediction."""
        return self._predictor.compile_seconds if self._predictor else None

    @property
    def not_compiled(self) -> str | None:
        """Return why torch.compile failed, or None; known after a prediction."""
        return self._predictor.not_compiled if self._predictor else None

    def save(self, directory: Path) -> None:
        write_tensors(directory / self.FILE, self.network.state_dict())

    def _use_network(self, network: nn.Module) -> None:
        # After loading: "cuda" means the first device to some libraries, and the present one to torch.
        network.to(self.runtime.device, memory_format=self.runtime.memory_format).eval()
        self.network, self._predictor = network, None

    @classmethod
    def load(cls, directory: Path, settings: TrainingSettings, runtime: Runtime) -> Self:
        approach, path = cls(settings, runtime), directory / cls.FILE
        network = approach.build_network()
        with explain_damage(path):
            network.load_state_dict(load_file(path))
        approach._use_network(network)
        return approach


class _Probabilities(nn.Module):
    """A network whose maps are probabilities, as `Predictor` makes them."""

    def __init__(self, network: nn.Module, test_time: str) -> None:
        super().__init__()
        self.network, self.flips = network, test_time == "flip"

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        if self.flips:
            logits = (logits + self.network(images.flip(-1)).flip(-1)) / 2
        return logits.sigmoid()


def _make_noise(count: int, size: int) -> Images:
    arrays = np.random.default_rng(0).integers(0, 65536, (count, 2, size, size), np.uint16)
    return Images([str(number) for number in range(count)], list(arrays))
