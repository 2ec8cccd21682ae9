"""Images to the planes that every stage reads: one frozen pass over the pyramid, shared by all of them."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lungseg.approaches.vgg19_context.cascade import Shared, room, stage_grids
from lungseg.approaches.vgg19_context.planes import (
    COORDINATE_NAMES,
    GREY_NAMES,
    Projection,
    coordinate_planes,
    grey_planes,
    normalise,
)
from lungseg.approaches.vgg19_context.separable import resample
from lungseg.approaches.vgg19_context.settings import Vgg19ContextSettings
from lungseg.approaches.vgg19_context.shape import ShapePrior
from lungseg.learning.vgg19.pyramid import Pyramid, shrink
from lungseg.system.errors import InputError
from lungseg.system.runtime import Runtime


class BasePlanes(nn.Module):
    """Images N x 1 x S x S in [0, 1] -> planes float32 N x P x G x G at each stage's grid.

    Attributes:
        names: of the P planes, in their order.
        grids: pixels a side, the largest first.
    """

    def __init__(self, settings: Vgg19ContextSettings, runtime: Runtime) -> None:
        super().__init__()
        self.settings, self.runtime = settings, runtime
        self.grids = sorted(set(stage_grids(settings)), reverse=True)
        self.pyramid = self._frozen(settings) if settings.blocks else None
        self.projection = Projection(settings.blocks, settings.components)
        self.shape = ShapePrior()
        self.names = list(self.projection.names)
        self.names += [f"grey: {name}" for name in GREY_NAMES] if settings.grey else []
        self.names += [f"coordinates: {name}" for name in COORDINATE_NAMES] if settings.coordinates else []

    def _frozen(self, settings: Vgg19ContextSettings) -> Pyramid:
        # Cast once, and laid out as the images are: on a CPU autocast would do both at every call.
        return Pyramid(settings.weights, settings.blocks).to(
            dtype=self.runtime.dtype, memory_format=self.runtime.memory_format
        )

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
        return self.pyramid(normalised.contiguous(memory_format=self.runtime.memory_format))

    def planes(self, normalised: Tensor, free: dict[int, int] | None = None) -> dict[int, Tensor]:
        """Planes by pixels a side, of normalised images N x 1 x S x S.

        Args:
            free: by pixels a side, how many planes are left free behind the P.

        Returns:
            Float32 N x (P + free) x G x G each, the values of a plane side by side over all images.
        """
        parts = [each.float() for each in self.projection(self.features(normalised), self.grids[0])]
        found = {}
        for grid in self.grids:
            count = len(self.names) + (free or {}).get(grid, 0)
            planes = normalised.new_empty(count, len(normalised), grid, grid).transpose(0, 1)
            self._fill(planes, parts, shrink(normalised, grid))
            found[grid] = planes
        return found

    def _fill(self, planes: Tensor, parts: list[Tensor], small: Tensor) -> None:
        pieces = [*parts]
        pieces += [grey_planes(small)] if self.settings.grey else []
        pieces += [coordinate_planes(small)] if self.settings.coordinates else []
        start = 0
        for piece in pieces:
            stop = start + piece.shape[1]
            planes[:, start:stop] = resample(piece, planes.shape[-1])
            start = stop

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Shared:
        normalised = normalise(images)
        prior = self.shape(normalised) if self.settings.shape_prior else None
        return Shared(self.planes(normalised, self._room), len(self.names), prior)

    @cached_property
    def _room(self) -> dict[int, int]:
        """Behind the planes of each grid, for the stages that work there."""
        stages = enumerate(stage_grids(self.settings), start=int(self.settings.shape_prior))
        return {grid: room(maps, grid) for maps, grid in stages}  # of a grid the last counts, which has most
