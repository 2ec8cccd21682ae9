"""Approaches that train a network end to end: everything that does not depend on the network."""

from __future__ import annotations

import math
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
from lungseg.learning.networks.schedule import (
    count_small_epochs,
    count_work,
    find_working_size,
    require_two_images,
)
from lungseg.learning.networks.settings import TrainingSettings
from lungseg.learning.networks.step_probe import StepProbe
from lungseg.learning.networks.training import Training
from lungseg.learning.networks.validation import DeviceMasks, HostValidation, validate_on_device
from lungseg.system import distributed
from lungseg.system.errors import InputError, is_out_of_memory
from lungseg.system.interrupts import delay_interrupts
from lungseg.system.runtime import Runtime

CHECKPOINT = "last.pt"

# The masks of validation images on a GPU, or only their shapes where the harness compares maps with masks.
Truths = DeviceMasks | list[tuple[int, int]]


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
        if runtime.device.type != "cpu":
            return cls(settings, runtime)._describe_accumulation()
        if {"recipe", "size", "epochs"} & settings.model_fields_set:
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
        steps = self._make_probe().time_steps(self._list_sizes(), count)
        # A forward pass (validation) takes about a third of a training step; processes share the images.
        seconds = sum(steps[find_working_size(epoch, s)] for epoch in range(s.epochs))
        return seconds / count * (train + validation / 3) / distributed.world_size()

    def _count_images_per_process(self, train: int) -> int:
        """Return the most images of a batch in one process, but at least the two that a training needs."""
        return max(2, math.ceil(min(train, self.settings.batch_size) / distributed.world_size()))

    def _make_probe(self) -> StepProbe:
        return StepProbe(self.build_network, self.group_parameters, self.settings, self.runtime)

    def _describe_accumulation(self) -> list[str]:
        """Say whether a batch has to be split; nothing if it needn't be, or if that can't be found out."""
        try:
            memory = self._make_probe().find_memory(self._count_images_per_process(self.settings.batch_size))
        except (InputError, RuntimeError, MemoryError):  # as in `estimate`
            return []
        return [memory.describe()] if memory and memory.accumulation_steps > 1 else []

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
            truths = self._keep_masks(validation, shapes)
            training = self._resume_or_start(context, len(train), self._find_accumulation_steps(len(train)))
            for row in training.history:
                context.history(**row)
            self._train(training, data, held, truths or shapes, context)
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
            busy_share=training.busy.mean,
            accumulation_steps=training.accumulation_steps,
        )

    def _train(
        self,
        training: Training,
        data: dict[int, Images],
        held: dict[int, Images],
        truths: Truths,
        context: FitContext,
    ) -> None:
        """Do the epochs that are left. A signal ends them after the present step, which is stored."""
        path = context.checkpoints / CHECKPOINT
        with delay_interrupts() as is_interrupted:
            while training.epoch < self.settings.epochs:
                size = find_working_size(training.epoch, self.settings)
                self._train_epoch(training, data[size], context, is_interrupted)
                self._validate(training, held[size], truths, context)
                training.keep_best()
                context.history(**training.history[-1])
                training.save_if_due(path, is_interrupted())

    def _find_accumulation_steps(self, train: int) -> int:
        """Return the parts that a batch has to be split into, the same in all processes."""
        count, probe, own = self._count_images_per_process(train), self._make_probe(), 1
        memory = probe.find_memory(count)
        if memory is not None:
            own = memory.accumulation_steps
        elif count_small_epochs(self.settings):
            own = probe.try_step(count)  # else a full memory would be found only after the small epochs
        return max(distributed.all_gather([own]))

    def _keep_masks(self, validation: Sequence[Any], shapes: list[tuple[int, int]]) -> DeviceMasks | None:
        """Copy the validation masks to a GPU; None on a CPU, or if Dice can't be counted on the GPU."""
        device = self.runtime.device
        if type(self).finish is not NetworkApproach.finish or not DeviceMasks.fit_on(shapes, device):
            return None
        return DeviceMasks((sample.mask() for sample in validation), device)

    @contextmanager
    def _explain_full_memory(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            lower = f"batch_size = {self.settings.batch_size} or size = {self.settings.size}"
            raise InputError(f"the memory is full: lower {lower}") from error

    def _resume_or_start(self, context: FitContext, count: int, accumulation_steps: int) -> Training:
        training, path = self._make_training(context, count), context.checkpoints / CHECKPOINT
        training.accumulation_steps = accumulation_steps
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
    def _validate(self, training: Training, held: Images, truths: Truths, context: FitContext) -> None:
        """Add loss, accuracy and Dice of the validation images to the last row of the history."""
        predict = Predictor(training.average.network, self.settings, self.runtime, plain=True).predict_logits
        own = distributed.shard(range(len(held)))
        given = predict, held, own, truths, self.settings, self.runtime.device
        if isinstance(truths, DeviceMasks):
            losses, right, dice = validate_on_device(*given)
        else:
            host = HostValidation(*given)
            maps, losses, right = host.predict_maps(self.finish), host.losses, host.accuracies
            dice = [context.score(maps)] if distributed.world_size() == 1 else context.scores(maps, own)
        # Gathered image by image: the mean of the processes' means would be another number.
        means = [float(np.mean(distributed.all_gather(each))) for each in (losses, right, dice)]
        names = "validation_loss", "validation_accuracy", "validation_dice"
        training.history[-1].update(zip(names, means, strict=True))

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

    def execution_facts(self) -> dict[str, str]:
        if self._predictor is None:
            return {}
        return {"graph": self._predictor.graph, "folded": "yes" if self._predictor.folded else "no"}

    def drop_graphs(self) -> None:
        if self._predictor is not None:
            self._predictor.drop_graphs()

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
