"""An approach that trains a network end to end: everything but the network."""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lungseg.approaches.base import Approach, Stage
from lungseg.learning.fit import FitContext, FitReport
from lungseg.learning.images.resize import to_batch
from lungseg.learning.networks.data_parallel import (
    require_an_image_each,
    require_shareable_norms,
    with_shared_norms,
)
from lungseg.learning.networks.images import Images, read_images
from lungseg.learning.networks.inference import Predictor
from lungseg.learning.networks.losses import segmentation_loss
from lungseg.learning.networks.schedule import cost, small_epochs, working_size
from lungseg.learning.networks.settings import TrainingSettings
from lungseg.learning.networks.training import (
    Training,
    require_two_images,
    seconds_between_checkpoints,
)
from lungseg.learning.weights import write_tensors
from lungseg.system import distributed
from lungseg.system.errors import InputError, is_out_of_memory
from lungseg.system.runtime import Runtime

CHECKPOINT = "last.pt"


class NetworkApproach(Approach):
    """A network that predicts at a fixed working size; the map is resized to the image's own size."""

    Settings: ClassVar[type[TrainingSettings]] = TrainingSettings
    many_processes = True
    FILE = "network.safetensors"

    def __init__(self, settings: TrainingSettings, runtime: Runtime) -> None:
        super().__init__(settings, runtime)
        self.network: nn.Module | None = None
        self._predictor: Predictor | None = None

    @abstractmethod
    def empty_network(self) -> nn.Module:
        """A network of any weights: grey images N x 1 x s x s in [0, 1] -> logits N x 1 x s x s."""

    @abstractmethod
    def start(self, network: nn.Module) -> None:
        """Puts pretrained weights into a network that is to be trained, if the settings ask for them."""

    @abstractmethod
    def groups(self, network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Every parameter once: the pretrained ones, and the new ones."""

    def new_network(self, seed: int) -> nn.Module:
        """What a training begins with."""
        torch.manual_seed(seed)
        network = self.empty_network()
        self.start(network)
        return network

    @classmethod
    def hints(cls, settings: TrainingSettings, runtime: Runtime) -> list[str]:
        own = {"recipe", "size", "epochs"} & settings.model_fields_set
        if runtime.device.type != "cpu" or own:
            return []
        return ['its recipe is one for a GPU: on a CPU set recipe = "cpu", or its own size and epochs']

    def estimate(self, train: int, validation: int) -> float | None:
        """Seconds, by two timed steps a size after one to warm up; None if these can't be done."""
        try:
            return self._estimate(train, validation)
        except (InputError, RuntimeError, MemoryError):  # the training itself says what is wrong
            return None

    def _estimate(self, train: int, validation: int) -> float:
        s = self.settings
        count = self._share_of_a_batch(train)
        with distributed.alone():
            probe = Training(self.empty_network(), self.groups, s, self.runtime, 0, count)
            steps = {size: self._step_seconds(probe, size, count) for size in self._sizes()}
        # A forward pass is about a third of a training step; processes share the images.
        seconds = sum(steps[working_size(epoch, s)] for epoch in range(s.epochs))
        return seconds / count * (train + validation / 3) / distributed.world_size()

    def _share_of_a_batch(self, train: int) -> int:
        """Images that one process has to hold, and at least as many as a training takes."""
        return max(2, math.ceil(min(train, self.settings.batch_size) / distributed.world_size()))

    def _step_seconds(self, probe: Training, size: int, count: int) -> float:
        data = _noise(count, size)
        probe.run_epoch(data, lambda *_: None)
        start = time.perf_counter()
        for _ in range(2):
            probe.run_epoch(data, lambda *_: None)
        return (time.perf_counter() - start) / 2

    def _sizes(self) -> list[int]:
        """Of the images that a training sees."""
        return sorted({working_size(epoch, self.settings) for epoch in (0, self.settings.epochs - 1)})

    def require(self, train: Sequence[Any]) -> None:
        require_two_images(len(train))
        require_an_image_each(len(train), self.settings)
        require_shareable_norms(self.settings, self.runtime)
        seconds_between_checkpoints()

    def fit(self, train: Sequence[Any], validation: Sequence[Any], context: FitContext) -> FitReport:
        self.require(train)
        data, held = (
            {size: self._read_images(samples, size, context) for size in self._sizes()}
            for samples in (train, validation)
        )
        with self._full_memory_named():
            shapes = [sample.mask().shape for sample in validation]
            self._try_full_size(len(train))
            training = self._begun(context, len(train))
            for row in training.history:
                context.history(**row)
            while training.epoch < self.settings.epochs:
                size = working_size(training.epoch, self.settings)
                self._train_epoch(training, data[size], context)
                self._validate(training, held[size], shapes, context)
                training.keep_best()
                context.history(**training.history[-1])
                training.save_if_due(context.checkpoints / CHECKPOINT)
            training.save(context.checkpoints / CHECKPOINT)  # until the model is stored
            self._take(training.best)
            distributed.barrier()  # the first process alone goes on, and removes the checkpoints
        return FitReport(
            "images",
            len(train) * self.settings.epochs,
            sum(p.numel() for p in training.network.parameters()),
            training.best_epoch,
            wait_share=training.waited / training.seconds,
            seconds_before=training.seconds_before,
        )

    def _try_full_size(self, count: int) -> None:
        """A step at the size that comes last: if it doesn't fit, no epochs at the smaller one are lost."""
        if not small_epochs(self.settings):
            return
        count = self._share_of_a_batch(count)
        with distributed.alone():
            probe = Training(self.empty_network(), self.groups, self.settings, self.runtime, 0, count)
            probe.run_epoch(_noise(count, self.settings.size), lambda *_: None)

    @contextmanager
    def _full_memory_named(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            s = self.settings
            raise InputError(
                f"the memory is full: lower batch_size = {s.batch_size} or size = {s.size}"
            ) from error

    def _begun(self, context: FitContext, count: int) -> Training:
        """The training where a former run left it, or a new one."""
        training, path = self._training(context, count), context.checkpoints / CHECKPOINT
        places = distributed.all_gather([(training.resume(path), training.epoch, training.step)])
        if len(set(places)) > 1:
            raise InputError(
                f"the processes don't find the same state in {path}: "
                "give all machines the same folder, or start over with --fresh"
            )
        return training

    def _training(self, context: FitContext, count: int) -> Training:
        network = with_shared_norms(self.new_network(context.seed), self.settings, self.runtime)
        return Training(network, self.groups, self.settings, self.runtime, context.seed, count)

    def _read_images(self, samples: Sequence[Any], size: int, context: FitContext) -> Images:
        """One process fills the cache, then the others find it."""
        if not distributed.is_main():
            distributed.barrier()
        images = self._read_or_make(samples, size, context)
        if distributed.is_main():
            distributed.barrier()
        return images

    def _read_or_make(self, samples: Sequence[Any], size: int, context: FitContext) -> Images:
        def report(done: int, total: int) -> None:
            if done % 8 == 0:
                context.progress(done, total, "reading images")

        return read_images(samples, size, report)

    def _train_epoch(self, training: Training, data: Images, context: FitContext) -> None:
        epoch, epochs = training.epoch, self.settings.epochs
        last = f", Dice {training.history[-1]['validation_dice']:.4f}" if training.history else ""

        def progress(step: int, steps: int, loss: float) -> None:
            text = f"epoch {epoch + 1} of {epochs}, loss {loss:.4f}{last}"
            done, total = (cost(*at, steps, self.settings) for at in ((epoch, step), (epochs, 0)))
            context.progress(done, total, text)

        loss, accuracy = training.run_epoch(data, progress, context.checkpoints / CHECKPOINT)
        training.history.append(
            {"unit": "epoch", "step": training.epoch, "train_loss": loss, "train_accuracy": accuracy}
        )

    @torch.inference_mode()
    def _validate(
        self, training: Training, held: Images, shapes: list[tuple[int, int]], context: FitContext
    ) -> None:
        """Adds loss, accuracy and Dice of the validation images to the last row of the history."""
        predictor = Predictor(training.average.network, self.settings, self.runtime, plain=True)
        own = distributed.shard(range(len(shapes)))
        losses, right = [], []

        # A batch at a time: at their own sizes all of them together can fill the memory.
        def maps() -> Iterator[np.ndarray]:
            for start in range(own.start, own.stop, self.settings.batch_size):
                part = range(start, min(start + self.settings.batch_size, own.stop))
                images, masks = (each.to(self.runtime.device) for each in held.batch(part))
                logits = predictor.logits(images)
                for logit, mask in zip(logits.split(1), masks.split(1), strict=True):
                    losses.append(float(segmentation_loss(logit, mask, self.settings)))
                    right.append(float(((logit >= 0) == (mask >= 0.5)).float().mean()))
                yield from self.finish(logits.sigmoid(), shapes[part.start : part.stop])

        # Image by image and then gathered, so that the mean is one over all of them and not a mean of means.
        dice = context.score(maps()) if distributed.world_size() == 1 else context.scores(maps(), own)
        dice = dice if distributed.world_size() == 1 else float(np.mean(distributed.all_gather(dice)))
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
        return [Stage("network", lambda batch: self._predictor.logits(batch, self.counted).sigmoid())]

    @property
    def compile_seconds(self) -> float | None:
        return self._predictor.compile_seconds if self._predictor else None

    @property
    def not_compiled(self) -> str | None:
        return self._predictor.not_compiled if self._predictor else None

    def save(self, directory: Path) -> None:
        write_tensors(directory / self.FILE, self.network.state_dict())

    def _take(self, weights: dict[str, Tensor]) -> None:
        network = self.empty_network()
        network.load_state_dict(weights)
        self._use(network)

    def _use(self, network: nn.Module) -> None:
        # After loading: a device called "cuda" is the first one to some libraries, the present one to torch.
        network.to(self.runtime.device, memory_format=self.runtime.memory_format).eval()
        self.network, self._predictor = network, None

    @classmethod
    def load(cls, directory: Path, settings: TrainingSettings, runtime: Runtime) -> Self:
        approach, path = cls(settings, runtime), directory / cls.FILE
        network = approach.empty_network()
        try:
            network.load_state_dict(load_file(path))
        except (OSError, SafetensorError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            raise InputError(
                f"{path} is missing or damaged: to fit it anew remove its folder, and the one of that name "
                "below trials"
            ) from error
        approach._use(network)
        return approach


def _noise(count: int, size: int) -> Images:
    arrays = np.random.default_rng(0).integers(0, 65536, (count, 2, size, size), np.uint16)
    return Images([str(number) for number in range(count)], list(arrays))
