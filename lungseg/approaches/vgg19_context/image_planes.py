"""Planes that are known from the image alone, before any prediction: features, grey values and coordinates.

All stages read them. They are computed in one pass of the frozen network over the image pyramid.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lungseg.approaches.vgg19_context.context_planes import count_context_planes
from lungseg.approaches.vgg19_context.grey_planes import (
    COORDINATE_NAMES,
    GREY_NAMES,
    compute_coordinate_planes,
    compute_grey_planes,
    normalise,
)
from lungseg.approaches.vgg19_context.projection import Projection
from lungseg.approaches.vgg19_context.separable_filters import resample
from lungseg.approaches.vgg19_context.settings import Vgg19ContextSettings
from lungseg.approaches.vgg19_context.shape_prior import ShapePrior
from lungseg.learning.images.resize import shrink_maps
from lungseg.learning.model_files import explain_damage
from lungseg.learning.vgg19.pyramid import Pyramid
from lungseg.system.errors import InputError
from lungseg.system.runtime import Runtime


@dataclass(frozen=True)
class SharedPlanes:
    """What all stages read, computed once per batch.

    The first P planes are known from the image. The other C are free: stages write planes of earlier maps
    there, so that none copies the first P.
    """

    planes: dict[int, Tensor]  # by pixels a side G: float32 N x (P + C) x G x G
    image_count: int  # P
    prior: Tensor | None  # the shape prior's maps N x 1 x g x g, if there are any


def _fill(planes: Tensor, sources: list[Tensor]) -> None:
    """Write maps of any sides into planes N x P x G x G, one after the other.

    A CPU does this fastest so: what is resized is still in its cache when it is copied.
    """
    start = 0
    for source in sources:
        stop = start + source.shape[1]
        planes[:, start:stop] = resample(source, planes.shape[-1])
        start = stop


def _fill_at_once(
    planes: Tensor, features: list[Tensor], joined: dict[int, Tensor], rest: list[Tensor]
) -> None:
    """Do what `_fill` does in few operations: a GPU takes longer to start them than to compute them.

    `joined` has the features by their side, as `_join_sides` returns them.
    """
    resized = {}
    for side, maps in joined.items():
        counts = [each.shape[1] for each in features if each.shape[-1] == side]
        resized[side] = iter(resample(maps, planes.shape[-1]).split(counts, 1))
    sources = [*(next(resized[each.shape[-1]]) for each in features), *rest]
    torch.cat([source.transpose(0, 1) for source in sources], out=planes.transpose(0, 1))


def _join_sides(features: list[Tensor]) -> dict[int, Tensor]:
    """Join maps of the same side, in their order, as float32."""
    sides = dict.fromkeys(each.shape[-1] for each in features)
    return {s: torch.cat([each for each in features if each.shape[-1] == s], 1).float() for s in sides}


class ImagePlanes(nn.Module):
    """The planes of images N x 1 x S x S in [0, 1]: float32 N x P x G x G at each stage's grid."""

    def __init__(self, settings: Vgg19ContextSettings, runtime: Runtime) -> None:
        super().__init__()
        self.settings, self.runtime = settings, runtime
        self.at_once = runtime.device.type != "cpu"  # whether planes are made in few, large operations
        self.grids = sorted(set(settings.stage_grids), reverse=True)  # pixels a side, the largest first
        self.pyramid = self._load_pyramid(settings) if settings.blocks else None
        self.projection = Projection(settings.blocks, settings.components)
        self.shape = ShapePrior()
        self.names = list(self.projection.names)  # of the P planes, in their order
        self.names += [f"grey: {name}" for name in GREY_NAMES] if settings.grey else []
        self.names += [f"coordinates: {name}" for name in COORDINATE_NAMES] if settings.coordinates else []

    def _load_pyramid(self, settings: Vgg19ContextSettings) -> Pyramid:
        # Cast once, with the images' memory layout: on a CPU autocast would do both at every call.
        return Pyramid(settings.weights, settings.blocks).to(
            dtype=self.runtime.dtype, memory_format=self.runtime.memory_format
        )

    def get_fitted_tensors(self) -> dict[str, Tensor]:
        """Return what a fit adds to the frozen network, by name."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith("pyramid.")}

    def read(self, path: Path) -> None:
        """Read a file of fitted tensors. Raises InputError if it is missing, damaged or of other settings."""
        with explain_damage(path):
            tensors = load_file(path)
            self.shape = ShapePrior(len(tensors["shape.pictures"])).to(self.runtime.device)
            missing, unknown = self.load_state_dict(tensors, strict=False)
        if unknown or any(not name.startswith("pyramid.") for name in missing):
            raise InputError(f"{path} is of other settings: run its benchmark again, which fits anew")

    def compute_features(self, normalised: Tensor) -> list[Tensor]:
        """Compute the maps of every block, of normalised images N x 1 x S x S."""
        if self.pyramid is None:
            return []
        return self.pyramid(normalised.contiguous(memory_format=self.runtime.memory_format))

    def compute_planes(self, normalised: Tensor, free: dict[int, int] | None = None) -> dict[int, Tensor]:
        """Compute the planes of normalised images N x 1 x S x S.

        They are float32 N x (P + free) x G x G, by pixels a side G; so is the number of free planes that
        follow the P. A plane's values of all images are neighbours.
        """
        features = self.projection(self.compute_features(normalised), self.grids[0])
        joined = _join_sides(features) if self.at_once else {}
        features = features if self.at_once else [each.float() for each in features]
        found = {}
        for grid in self.grids:
            count = len(self.names) + (free or {}).get(grid, 0)
            planes = normalised.new_empty(count, len(normalised), grid, grid).transpose(0, 1)
            small = shrink_maps(normalised, grid)
            rest = [compute_grey_planes(small)] if self.settings.grey else []
            rest += [compute_coordinate_planes(small)] if self.settings.coordinates else []
            known = planes[:, : len(self.names)]
            if self.at_once:
                _fill_at_once(known, features, joined, rest)
            else:
                _fill(known, [*features, *rest])
            found[grid] = planes
        return found

    @torch.inference_mode()
    def forward(self, images: Tensor) -> SharedPlanes:
        normalised = normalise(images)
        prior = self.shape(normalised) if self.settings.shape_prior else None
        return SharedPlanes(self.compute_planes(normalised, self._free), len(self.names), prior)

    @cached_property
    def _free(self) -> dict[int, int]:
        """Return how many planes the stages need for earlier maps, by pixels a side."""
        stages = enumerate(self.settings.stage_grids, start=int(self.settings.shape_prior))
        # The last stage at a grid needs most, and replaces the others in the dictionary.
        return {grid: count_context_planes(maps, grid) for maps, grid in stages}
