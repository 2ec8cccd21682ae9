"""Images to the planes that every stage reads: one frozen pass over the pyramid, shared by all of them."""

from __future__ import annotations

import torch
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


class BasePlanes(nn.Module):
    """Images N x 1 x S x S in [0, 1] -> planes float32 N x P x G x G, and the shape prior's maps beside them.

    Attributes:
        names: of the P planes, in their order.
    """

    def __init__(self, settings: Vgg19ContextSettings, runtime: Runtime, cases: int = 0) -> None:
        """`cases`: of a fitted shape prior whose values are about to be read in."""
        super().__init__()
        self.settings, self.runtime = settings, runtime
        self.pyramid = Pyramid(settings.weights, settings.blocks) if settings.blocks else None
        self.projection = Projection(settings.blocks, settings.components)
        self.shape = ShapePrior(cases)
        self.names = list(self.projection.names)
        self.names += GREY_NAMES if settings.grey else []
        self.names += COORDINATE_NAMES if settings.coordinates else []

    def fitted(self) -> dict[str, Tensor]:
        """What a fit adds to the frozen network."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith("pyramid.")}

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
