"""Approach B: DeepLabV3+ (Chen et al. 2018) with a ResNet50 (He et al. 2016) backbone, trained end to end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lungseg.approaches.approach import Approach, Fitted, Run, Runtime, Stage, WeightsInfo
from lungseg.approaches.deeplabv3plus.network import DeepLabV3Plus, backbone_shapes, load_backbone
from lungseg.approaches.deeplabv3plus.settings import DeepLabV3PlusSettings
from lungseg.approaches.deeplabv3plus.training import Images, Training, segmentation_loss
from lungseg.approaches.resize import shrink_mask, to_batch
from lungseg.approaches.tensors import write_tensors
from lungseg.approaches.weights import find_weights, load_weights, weights_info
from lungseg.errors import InputError


class DeepLabV3PlusResNet50(Approach):
    """DeepLabV3+ at a fixed working size; the map is resized to the image's own size."""

    Settings = DeepLabV3PlusSettings
    FILE = "deeplabv3plus.safetensors"

    def __init__(self, settings: DeepLabV3PlusSettings, runtime: Runtime) -> None:
        super().__init__(settings, runtime)
        self.network: DeepLabV3Plus | None = None

    def weights(self) -> WeightsInfo:
        file = find_weights("resnet50", self.settings.weights)
        if file is not None:  # read now: a damaged file must not end a benchmark in its last hour
            load_weights(file, backbone_shapes(DeepLabV3Plus(self.settings.network)))
        return weights_info("resnet50", file)

    def _new_network(self, seed: int) -> DeepLabV3Plus:
        torch.manual_seed(seed)
        network = DeepLabV3Plus(self.settings.network)
        file = find_weights("resnet50", self.settings.weights)
        if file is not None:
            load_backbone(network, load_weights(file, backbone_shapes(network)))
        return network

    def estimate(self, train: int, validation: int) -> float | None:
        """Seconds by two timed steps after one to warm up."""
        s = self.settings
        count = min(s.batch_size, max(2, train))
        probe = Training(DeepLabV3Plus(s.network), s, self.runtime, 0, count)
        noise = torch.rand(count, 1, s.size, s.size, generator=torch.Generator().manual_seed(0))
        data = Images(noise, (noise > 0.5).float())
        probe.run_epoch(data, lambda *_: None)
        start = time.perf_counter()
        for _ in range(2):
            probe.run_epoch(data, lambda *_: None)
        step = (time.perf_counter() - start) / 2
        # A forward pass is about a third of a training step.
        return s.epochs * step / count * (train + validation / 3)

    def fit(self, train: Sequence[Any], validation: Sequence[Any], run: Run) -> Fitted:
        s = self.settings
        data = self._load(train, run)
        held = self._load(validation, run)
        sizes = [sample.mask().shape for sample in validation]
        training = Training(self._new_network(run.seed), s, self.runtime, run.seed, len(train))
        checkpoint, best_path = run.checkpoints / "last.pt", run.checkpoints / "best.safetensors"
        if best_path.exists() and training.resume(checkpoint):
            for row in training.history:
                run.history(**row)
        while training.epoch < s.epochs:
            self._train_epoch(training, data, run)
            self._validate(training, held, sizes, run)
            run.history(**training.history[-1])
            if _best_epoch(training.history) == training.epoch:
                write_tensors(best_path, training.average.network.state_dict())
            training.save(checkpoint)
        self.network = self._empty_network()
        self._read(best_path)
        return Fitted(
            "images",
            len(train) * s.epochs,
            sum(p.numel() for p in self.network.parameters()),
            _best_epoch(training.history),
            seconds_before=training.seconds_before,
        )

    def _load(self, samples: Sequence[Any], run: Run) -> Images:
        size = self.settings.size
        images = torch.empty(len(samples), 1, size, size)
        masks = torch.empty(len(samples), 1, size, size)
        for index, sample in enumerate(samples):
            images[index] = to_batch([sample.image()], size, torch.device("cpu"))[0]
            masks[index, 0] = torch.from_numpy(shrink_mask(sample.mask(), size))
            if index % 8 == 0:
                run.progress(index, len(samples), "reading images")
        return Images(images, masks)

    def _train_epoch(self, training: Training, data: Images, run: Run) -> None:
        epoch, epochs = training.epoch, self.settings.epochs
        last = f", Dice {training.history[-1]['validation_dice']:.4f}" if training.history else ""

        def progress(step: int, steps: int, loss: float) -> None:
            text = f"epoch {epoch + 1} of {epochs}, loss {loss:.4f}{last}"
            run.progress(epoch * steps + step, epochs * steps, text)

        loss, accuracy = training.run_epoch(data, progress)
        training.history.append(
            {"unit": "epoch", "step": training.epoch, "train_loss": loss, "train_accuracy": accuracy}
        )

    @torch.inference_mode()
    def _validate(self, training: Training, held: Images, sizes: list[tuple[int, int]], run: Run) -> None:
        network = training.average.network
        losses, right = [], []

        # A batch at a time: at their own sizes all of them together can fill the memory.
        def maps() -> Iterator[np.ndarray]:
            for start in range(0, len(sizes), self.settings.batch_size):
                part = slice(start, start + self.settings.batch_size)
                masks = held.masks[part].to(self.runtime.device)
                logits = self._forward(network, held.images[part].to(self.runtime.device))
                losses.append(float(segmentation_loss(logits, masks, self.settings.loss)) * len(masks))
                right.append(float(((logits >= 0) == (masks >= 0.5)).float().mean()) * len(masks))
                yield from self.finish(logits.sigmoid(), sizes[part])

        dice = run.score(maps())
        training.history[-1].update(
            validation_loss=sum(losses) / len(sizes),
            validation_accuracy=sum(right) / len(sizes),
            validation_dice=dice,
        )

    def _forward(self, network: torch.nn.Module, images: Tensor) -> Tensor:
        layout = torch.channels_last if self.runtime.channels_last else torch.contiguous_format
        with self.runtime.autocast():
            return network(images.contiguous(memory_format=layout)).float()

    def prepare(self, images: Sequence[np.ndarray]) -> Tensor:
        return to_batch(images, self.settings.size, self.runtime.device)

    def stages(self) -> list[Stage]:
        return [Stage("network", lambda batch: self._forward(self._inference, batch).sigmoid())]

    @property
    def _inference(self) -> torch.nn.Module:
        if not self.runtime.compiled:
            return self.network
        if not hasattr(self, "_compiled"):
            self._compiled = torch.compile(self.network)
        return self._compiled

    def save(self, directory: Path) -> None:
        write_tensors(directory / self.FILE, self.network.state_dict())

    def _empty_network(self) -> DeepLabV3Plus:
        layout = torch.channels_last if self.runtime.channels_last else torch.contiguous_format
        network = DeepLabV3Plus(self.settings.network).to(self.runtime.device, memory_format=layout)
        return network.eval()

    def _read(self, path: Path) -> None:
        try:
            self.network.load_state_dict(load_file(path, device=str(self.runtime.device)))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise InputError(f"{path} is missing or damaged: fit the approach again") from error

    @classmethod
    def load(
        cls, directory: Path, settings: DeepLabV3PlusSettings, runtime: Runtime
    ) -> DeepLabV3PlusResNet50:
        approach = cls(settings, runtime)
        approach.network = approach._empty_network()
        approach._read(directory / cls.FILE)
        return approach


def _best_epoch(history: list[dict[str, Any]]) -> int:
    """The first epoch with the best validation Dice."""
    return max(history, key=lambda row: row["validation_dice"])["step"]
