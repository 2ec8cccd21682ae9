"""The protocol that every approach keeps, and what a fit is given. Knows nothing of scoring."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor

from lungseg.data.sample import Sample
from lungseg.learning.fit import FitContext, FitReport
from lungseg.learning.weights import WeightsInfo
from lungseg.system.plugins import Settings
from lungseg.system.runtime import Runtime


@dataclass(frozen=True)
class Stage:
    """A named step of a prediction; what it returns feeds the next one.

    Attributes:
        copies: it moves data between host and device, which its time then includes.
    """

    name: str
    run: Callable[[Any], Any] = field(repr=False)
    copies: bool = False


class Approach(ABC):
    """A way to make a mask. `prepare`, then `stages` one after the other, then `finish` is the prediction.

    Attributes:
        Settings: its keys in a spec.
        stochastic: a fit depends on the seed, whatever the settings; see `depends_on_seed`.
        many_processes: its fit is shared by all processes that torchrun started; others are fitted by one.
        counted: operations are being counted: each has to be called by itself, and none replayed.
    """

    Settings: ClassVar[type[BaseModel]] = Settings
    stochastic: ClassVar[bool] = True
    many_processes: ClassVar[bool] = False

    def __init__(self, settings: Any, runtime: Runtime) -> None:
        self.settings = settings
        self.runtime = runtime
        self.counted = False

    @property
    def compile_seconds(self) -> float | None:
        """What torch.compile took, where `runtime.compiled` asked for it; known after a prediction."""
        return None

    @property
    def not_compiled(self) -> str | None:
        """Why torch.compile failed where `runtime.compiled` asked for it, or None; known after a call."""
        return None

    @classmethod
    def depends_on_seed(cls, settings: Any) -> bool:
        """Whether a fit with these settings depends on the seed; if not, only the first one is run."""
        return cls.stochastic

    def skip(self) -> str | None:
        """Why it can't run here, or None."""
        return None

    @classmethod
    def hints(cls, settings: Any, runtime: Runtime) -> list[str]:
        """What a user should know of such settings here before hours are spent, a sentence each."""
        return []

    def weights(self) -> WeightsInfo | None:
        """The pretrained weights that it starts from, or None. Raises InputError if they aren't there."""
        return None

    def require(self, train: Sequence[Sample]) -> None:
        """Raises InputError for what would end a fit on these images; asked before anything is fitted."""
        return None

    def estimate(self, train: int, validation: int) -> float | None:
        """Seconds that a fit on so many images will take here, by a short probe; None if it can't tell."""
        return None

    @abstractmethod
    def fit(self, train: Sequence[Sample], validation: Sequence[Sample], context: FitContext) -> FitReport:
        """Learns from `train`, may choose by `validation`. The same arguments give the same bits."""

    @abstractmethod
    def prepare(self, images: Sequence[np.ndarray]) -> Tensor:
        """Host images float32 H x W in [0, 1], of any sizes -> float32 batch N x 1 x h x w on the device."""

    @abstractmethod
    def stages(self) -> list[Stage]:
        """The steps from the prepared batch to maps N x 1 x h' x w' in [0, 1], all on the device."""

    def finish(self, maps: Tensor, sizes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        """Device maps -> host maps, float32 in [0, 1], each resized bilinearly to its image's own (H, W)."""
        from lungseg.learning.images.resize import resize_maps

        return resize_maps(maps, sizes)

    @torch.inference_mode()
    def predict(self, images: Sequence[np.ndarray], batch_size: int = 8) -> list[np.ndarray]:
        """Maps in [0, 1] at the images' own sizes, in their order."""
        maps: list[np.ndarray] = []
        for start in range(0, len(images), batch_size):
            part = images[start : start + batch_size]
            batch = self.prepare(part)
            for stage in self.stages():
                batch = stage.run(batch)
            maps += self.finish(batch, [image.shape for image in part])
        return maps

    def feature_maps(self, image: np.ndarray) -> np.ndarray | None:
        """For the picture of features: C x h x w float32 of one image, or None if it has none to show."""
        return None

    def importance(self) -> list[tuple[str, str, float]]:
        """What a fitted approach reads most: (stage, column, share), empty if it can't tell.

        A column is called KIND:NAME, such as "relu1_2:17"; the shares of a stage sum to 1.
        """
        return []

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Writes the fitted approach, without pickle."""

    @classmethod
    @abstractmethod
    def load(cls, directory: Path, settings: Any, runtime: Runtime) -> Approach:
        """Reads what `save` wrote; `settings` are those that it was fitted with."""
