"""Images to the planes that every stage reads: one frozen pass over the pyramid, shared by all of them."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lungseg.approaches.approach import Runtime
from lungseg.approaches.vgg19_context.planes import (
    COORDINATE_NAMES,
    GREY_NAMES,
    Projection,
    coordinate_planes,
    grey_planes,
    normalise,
)
from lungseg.approaches.vgg19_context.pyramid import Pyramid, shrink
from lungseg.approaches.vgg19_context.settings import Vgg19ContextSettings
from lungseg.approaches.vgg19_context.shape import ShapePrior
from lungseg.errors import InputError


class BasePlanes(nn.Module):
    """Images N x 1 x S x S in [0, 1] -> planes float32 N x P x G x G, and the shape prior's maps beside them.

    Attributes:
        names: of the P planes, in their order.
    """

    def __init__(self, settings: Vgg19ContextSettings, runtime: Runtime) -> None:
        super().__init__()
        self.settings, self.runtime = settings, runtime
        self.pyramid = Pyramid(settings.weights, settings.blocks) if settings.blocks else None
        self.projection = Projection(settings.blocks, settings.components)
        self.shape = ShapePrior()
        self.names = list(self.projection.names)
        self.names += [f"grey: {name}" for name in GREY_NAMES] if settings.grey else []
        self.names += [f"coordinates: {name}" for name in COORDINATE_NAMES] if settings.coordinates else []

    def fitted(self) -> dict[str, Tensor]:
        """What a fit adds to the frozen network."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith("pyramid.")}

    def read(self, path: Path) -> None:
        """Reads what `fitted` gave. Raises InputError if the file is missing or damaged."""
        try:
            tensors = load_file(path)
            self.shape = ShapePrior(len(tensors["shape.pictures"])).to(self.runtime.device)
            missing, unknown = self.load_state_dict(tensors, strict=False)
            damaged = unknown or any(not name.startswith("pyramid.") for name in missing)
        except (OSError, SafetensorError, KeyError, RuntimeError) as error:
            raise InputError(f"{path} is missing or damaged: fit the approach again") from error
        if damaged:
            raise InputError(f"{path} is of other settings: fit the approach again")

    def features(self, normalised: Tensor) -> list[Tensor]:
        """Maps of every block, of normalised images N x 1 x S x S."""
        if self.pyramid is None:
            return []
        layout = torch.channels_last if self.runtime.channels_last else torch.contiguous_format
        with self.runtime.autocast():
            return self.pyramid(normalised.contiguous(memory_format=layout))

    def planes(self, normalised: Tensor) -> Tensor:
        """Planes float32 N x P x G x G of normalised images N x 1 x S x S."""
        grid = self.settings.grid
        with self.runtime.autocast():
            parts = self.projection(self.features(normalised), grid)
        small = shrink(normalised, grid)
        parts += [grey_planes(small)] if self.settings.grey else []
        parts += [coordinate_planes(small)] if self.settings.coordinates else []
        return torch.cat(parts, 1) if parts else small[:, :0]

    @torch.inference_mode()
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        normalised = normalise(images)
        prior = self.shape(normalised) if self.settings.shape_prior else None
        return self.planes(normalised), prior
