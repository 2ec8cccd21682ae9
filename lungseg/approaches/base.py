"""The protocol of approaches: the methods that the harness calls."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor, nn

from lungseg.data.sample import Sample
from lungseg.learning.fit import FitContext, FitReport
from lungseg.learning.images.resize import resize_maps
from lungseg.learning.weights import WeightsInfo
from lungseg.system.plugins import Settings
from lungseg.system.runtime import Runtime


@dataclass(frozen=True)
class Stage:
    """A named step of a prediction. Its result is the argument of the next step."""

    name: str  # as tables of timings show it
    run: Callable[[Any], Any] = field(repr=False)
    copies: bool = False  # whether it copies data between host and device; its time then includes the copies


class Approach(ABC):
    """A way to segment lungs. A prediction is `prepare`, then all `stages`, then `finish`."""

    Settings: ClassVar[type[BaseModel]] = Settings  # its keys in a spec
    given: ClassVar[bool] = False  # its masks were made before: nothing is trained, predicted or timed

    def __init__(self, settings: Any, runtime: Runtime) -> None:
        self.settings = settings
        self.runtime = runtime

    @abstractmethod
    def fit(self, train: Sequence[Sample], validation: Sequence[Sample], context: FitContext) -> FitReport:
        """Fit to the training images; the same arguments give the same bits.

        Validation images may choose between settings or steps.
        """

    @abstractmethod
    def prepare(self, images: Sequence[np.ndarray]) -> Tensor:
        """Put host images, float32 H x W in [0, 1] of any sizes, into one batch on the device.

        It is float32 N x 1 x h x w.
        """

    @abstractmethod
    def stages(self) -> list[Stage]:
        """List the steps from the prepared batch to maps N x 1 x h' x w' in [0, 1], all on the device."""

    def finish(self, maps: Tensor, sizes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        """Resize device maps bilinearly to their images' own (H, W): host maps, float32 in [0, 1]."""
        return resize_maps(maps, sizes)

    @torch.inference_mode()
    def predict(self, images: Sequence[np.ndarray], batch_size: int = 8) -> list[np.ndarray]:
        """Predict probability maps of images, at most `batch_size` at once.

        Images and maps are float32 H x W in [0, 1]; a map has its image's own size.
        """
        maps: list[np.ndarray] = []
        for start in range(0, len(images), batch_size):
            group = images[start : start + batch_size]
            batch = self.prepare(group)
            for stage in self.stages():
                batch = stage.run(batch)
            maps += self.finish(batch, [image.shape for image in group])
        return maps

    def predict_samples(self, samples: Sequence[Sample], batch_size: int = 8) -> list[np.ndarray]:
        """Predict the maps of samples, which most approaches see only the images of; as `predict`."""
        return self.predict([sample.image() for sample in samples], batch_size)

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Write the fitted approach, without pickle."""

    @classmethod
    @abstractmethod
    def load(cls, directory: Path, settings: Any, runtime: Runtime) -> Approach:
        """Read what `save` wrote; `settings` are those that it was fitted with."""

    # Hooks: the methods below have defaults that suit most approaches.

    @classmethod
    def depends_on_seed(cls, settings: Any) -> bool:
        """Return whether a fit with these settings depends on the seed; if not, only one seed is run."""
        return True

    @classmethod
    def fit_facts(cls, settings: Any, runtime: Runtime) -> dict[str, str]:
        """Return what else a fit's bits depend on here, such as whether a library can use the GPU."""
        return {}

    def skip(self) -> str | None:
        """Return why the approach can't run on this machine, or None."""
        return None

    def weights(self) -> WeightsInfo | None:
        """Describe the pretrained weights that it starts from; None if it uses none.

        Raises InputError if the weights can't be found or read.
        """
        return None

    def require(self, train: Sequence[Sample]) -> None:  # noqa: B027 (most need nothing)
        """Raise InputError for what would end a fit on these images; called before anything is fitted."""

    def examine(self, samples: Sequence[Sample]) -> list[str]:
        """Look at what is `given` for all evaluated samples, before anything is fitted: notes for the user.

        Raises InputError for what would end the run.
        """
        return []

    def estimate(self, train: int, validation: int) -> float | None:
        """Estimate the seconds of a fit on so many images by a short test; None if it can't tell."""
        return None

    def feature_maps(self, image: np.ndarray) -> np.ndarray | None:
        """Compute features of an image for the report: float32 C x h x w, or None if there are none."""
        return None

    def stage_maps(self, image: np.ndarray) -> list[tuple[str, np.ndarray]]:
        """Predict an image's map after each stage that makes one, for the report, the final map last.

        Each is (what made it, float32 h x w in [0, 1] at that stage's own size). Empty if only the final
        map is made.
        """
        return []

    def to_module(self) -> nn.Module | None:
        """Return the fitted approach as one module, from a prepared batch to its maps, for export as ONNX.

        It computes in float32, with any number of images. None if there is no exact one.
        """
        return None

    def execution_facts(self) -> dict[str, str]:
        """Return how the last prediction ran, for tables of timings; empty if it can't tell.

        "graph" is "replayed", "in part" if only some stages were, "none", or "failed: " and why no CUDA graph
        could be recorded; "folded" is "yes" if batch norms are folded into convolutions, else "no".
        """
        return {}

    def drop_graphs(self) -> None:  # noqa: B027 (most have none)
        """Drop recorded CUDA graphs, whose memory another process needs; later predictions record anew."""

    def importance(self) -> list[tuple[str, str, float]]:
        """List (stage, column, share) of each column of a fitted approach; empty if it can't tell.

        A column is called SOURCE:NAME, such as "relu1_2:17". The shares of a stage sum to 1.
        """
        return []
