"""An approach that trains a network end to end: everything but the network."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lungseg.approaches.approach import Approach, Fitted, Run, Runtime, Stage
from lungseg.approaches.networks import processes
from lungseg.approaches.networks.distributed import require_an_image_each, with_shared_norms
from lungseg.approaches.networks.images import Images, read_images
from lungseg.approaches.networks.inference import Predictor
from lungseg.approaches.networks.losses import segmentation_loss
from lungseg.approaches.networks.settings import TrainingSettings
from lungseg.approaches.networks.training import Training
from lungseg.approaches.resize import to_batch
from lungseg.approaches.tensors import write_tensors
from lungseg.errors import InputError


class NetworkApproach(Approach):
    """A network at a fixed working size; the map is resized to the image's own size."""

    Settings: ClassVar[type[TrainingSettings]] = TrainingSettings
    many_processes = True
    built_on = ("lungseg.approaches.networks",)
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

    def estimate(self, train: int, validation: int) -> float | None:
        """Seconds by two timed epochs of one step after one to warm up."""
        s = self.settings
        count = min(s.batch_size, max(2, train))
        noise = np.random.default_rng(0).integers(0, 65536, (count, 2, s.size, s.size), np.uint16)
        data = Images([str(number) for number in range(count)], list(noise))
        with processes.alone():
            probe = Training(self.empty_network(), self.groups, s, self.runtime, 0, count)
            probe.run_epoch(data, lambda *_: None)
            start = time.perf_counter()
            for _ in range(2):
                probe.run_epoch(data, lambda *_: None)
            step = (time.perf_counter() - start) / 2
        # A forward pass is about a third of a training step.
        return s.epochs * step / count * (train + validation / 3)

    def fit(self, train: Sequence[Any], validation: Sequence[Any], run: Run) -> Fitted:
        s = self.settings
        data, held = self._read_images(train, run), self._read_images(validation, run)
        sizes = [sample.mask().shape for sample in validation]
        training = self._training(run, len(train))
        checkpoint, best_path = run.checkpoints / "last.pt", run.checkpoints / "best.safetensors"
        if training.resume(checkpoint) and training.epoch and not best_path.exists():
            training = self._training(run, len(train))  # what it would go on from isn't whole
        for row in training.history:
            run.history(**row)
        while training.epoch < s.epochs:
            self._train_epoch(training, data, run, checkpoint)
            self._validate(training, held, sizes, run)
            run.history(**training.history[-1])
            if best_epoch(training.history) == training.epoch and processes.is_first():
                write_tensors(best_path, training.average.network.state_dict())
            training.save(checkpoint)
        processes.wait_for_all()
        self._read(best_path)
        return Fitted(
            "images",
            len(train) * s.epochs,
            sum(p.numel() for p in self.network.parameters()),
            best_epoch(training.history),
            wait_share=training.waited / training.seconds,
            seconds_before=training.seconds_before,
        )

    def _training(self, run: Run, count: int) -> Training:
        require_an_image_each(count, self.settings)
        network = with_shared_norms(self.new_network(run.seed), self.settings, self.runtime)
        return Training(network, self.groups, self.settings, self.runtime, run.seed, count)

    def _read_images(self, samples: Sequence[Any], run: Run) -> Images:
        def report(done: int, total: int) -> None:
            if done % 8 == 0:
                run.progress(done, total, "reading images")

        return read_images(samples, self.settings.size, report)

    def _train_epoch(self, training: Training, data: Images, run: Run, checkpoint: Path) -> None:
        epoch, epochs = training.epoch, self.settings.epochs
        last = f", Dice {training.history[-1]['validation_dice']:.4f}" if training.history else ""

        def progress(step: int, steps: int, loss: float) -> None:
            text = f"epoch {epoch + 1} of {epochs}, loss {loss:.4f}{last}"
            run.progress(epoch * steps + step, epochs * steps, text)

        loss, accuracy = training.run_epoch(data, progress, checkpoint)
        training.history.append(
            {"unit": "epoch", "step": training.epoch, "train_loss": loss, "train_accuracy": accuracy}
        )

    @torch.inference_mode()
    def _validate(self, training: Training, held: Images, sizes: list[tuple[int, int]], run: Run) -> None:
        """Adds loss, accuracy and Dice of the validation images to the last row of the history."""
        predictor = Predictor(training.average.network, self.settings, self.runtime, plain=True)
        own = processes.own_part(range(len(sizes)))
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
                yield from self.finish(logits.sigmoid(), sizes[part.start : part.stop])

        # Image by image and then gathered, so that the mean is one over all of them and not a mean of means.
        dice = run.score(maps()) if processes.count() == 1 else run.scores(maps(), own)
        dice = dice if processes.count() == 1 else float(np.mean(processes.all_parts(dice)))
        training.history[-1].update(
            validation_loss=float(np.mean(processes.all_parts(losses))),
            validation_accuracy=float(np.mean(processes.all_parts(right))),
            validation_dice=dice,
        )

    def prepare(self, images: Sequence[np.ndarray]) -> Tensor:
        return to_batch(images, self.settings.size, self.runtime.device)

    def stages(self) -> list[Stage]:
        if self._predictor is None:
            self._predictor = Predictor(self.network, self.settings, self.runtime)
        return [Stage("network", lambda batch: self._predictor.logits(batch).sigmoid())]

    def save(self, directory: Path) -> None:
        write_tensors(directory / self.FILE, self.network.state_dict())

    def _read(self, path: Path) -> None:
        layout = torch.channels_last if self.runtime.channels_last else torch.contiguous_format
        network = self.empty_network().to(self.runtime.device, memory_format=layout).eval()
        try:
            network.load_state_dict(load_file(path, device=str(self.runtime.device)))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise InputError(f"{path} is missing or damaged: fit the approach again") from error
        self.network, self._predictor = network, None

    @classmethod
    def load(cls, directory: Path, settings: TrainingSettings, runtime: Runtime) -> Self:
        approach = cls(settings, runtime)
        approach._read(directory / cls.FILE)
        return approach


def best_epoch(history: list[dict[str, Any]]) -> int:
    """The first epoch with the best validation Dice."""
    return max(history, key=lambda row: row["validation_dice"])["step"]
