"""Planes made from the maps of earlier stages: auto-context (Tu and Bai 2010).

A stage reads the two latest maps. From each it has the surroundings of every pixel: the map's value at the
pixel, blurred values at the pixel and at eight places around it at several distances, the value at the
mirrored place in the other lung, and means over the row, the column and the image. From the latest map it
also has the frame: the pixel's place relative to where that map puts the lungs.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from lungseg.approaches.vgg19_context.separable_filters import (
    apply_separable,
    make_gaussian_kernel,
    make_smoothing_matrix,
    resample,
)

LATEST = 2  # maps that a stage reads, the latest ones
# (sigma of the blur, distance of the eight places), in 128ths of the grid's side.
RINGS = ((1, 3), (2, 6), (4, 12), (8, 24), (14, 40))
DIRECTIONS = ((-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1))
SMALLEST_SIGMA = 0.6  # grid pixels: a narrower blur changes nothing
FRAME_NAMES = ["y in lungs", "x in lungs", "distance from midline", "aspect of lungs"]


def count_context_planes(maps: int, grid: int) -> int:
    """Count the planes that are made from so many maps, at grid x grid pixels."""
    count = min(maps, LATEST) * len(list_surrounding_names(grid))
    return count + len(FRAME_NAMES) if maps else 0


def list_context_plane_names(sources: list[str], grid: int) -> list[str]:
    """List the names of the planes that `compute_context_planes` makes from maps of these names."""
    names = [f"{source}: {name}" for source in sources[-LATEST:] for name in list_surrounding_names(grid)]
    return names + [f"{source}: {name}" for source in sources[-1:] for name in FRAME_NAMES]


def compute_context_planes(maps: list[Tensor], grid: int) -> Tensor | None:
    """Compute planes float32 N x C x grid x grid of the latest maps; None if there are no maps.

    The maps are float32 N x 1 x g x g in [0, 1], of the stages so far; g may differ between them.
    """
    if not maps:
        return None
    count = count_context_planes(len(maps), grid)
    out = maps[-1].new_empty(count, len(maps[-1]), grid, grid).transpose(0, 1)
    fill_context_planes(out, maps)
    return out


def fill_context_planes(out: Tensor, maps: list[Tensor]) -> None:
    """Write what `compute_context_planes` returns into planes `out` N x C x G x G of any strides."""
    grid, start = out.shape[-1], 0
    latest = [resample(each, grid) for each in maps[-LATEST:]]
    for each in latest:
        stop = start + len(list_surrounding_names(grid))
        _fill_surroundings(out[:, start:stop], each)
        start = stop
    out[:, start:] = compute_frame(latest[-1])


def list_surrounding_names(grid: int) -> list[str]:
    """List the names of one map's surroundings, in the order of their planes."""
    names = ["here", "mirrored"]
    for sigma, distance in _scale_rings(grid):
        names.append(f"blur {sigma:.1f}")
        names += [f"blur {sigma:.1f} at {y * distance:+d},{x * distance:+d}" for y, x in DIRECTIONS]
    return [*names, "row", "column", "image"]


def _fill_surroundings(out: Tensor, maps: Tensor) -> None:
    grid = maps.shape[-1]
    rings = _scale_rings(grid)
    planes = iter(out.unbind(1))
    next(planes).copy_(maps[:, 0])
    next(planes).copy_(maps[:, 0].flip(-1))
    blurred = blur(maps, tuple(sigma for sigma, _ in rings))
    margin = max(distance for _, distance in rings)
    padded = F.pad(blurred, (margin,) * 4, mode="replicate")
    for index, (_, distance) in enumerate(rings):
        for y, x in ((0, 0), *DIRECTIONS):
            top, left = margin + distance * y, margin + distance * x
            next(planes).copy_(padded[:, index, top : top + grid, left : left + grid])
    for axes in (3, 2, (2, 3)):
        next(planes).copy_(maps.mean(axes, keepdim=True)[:, 0])


def _scale_rings(grid: int) -> list[tuple[float, int]]:
    """Return the rings in pixels of the grid, without those of too narrow a blur."""
    rings = [(sigma / 128 * grid, max(1, round(distance / 128 * grid))) for sigma, distance in RINGS]
    return [ring for ring in rings if ring[0] >= SMALLEST_SIGMA]


def blur(maps: Tensor, sigmas: tuple[float, ...]) -> Tensor:
    """Blur maps float32 N x 1 x G x G by Gaussians (sigmas in pixels), with the border repeated."""
    return apply_separable(maps, _make_blur_matrices(sigmas, maps.shape[-1], maps.device))


@lru_cache(maxsize=16)
def _make_blur_matrices(sigmas: tuple[float, ...], grid: int, device: torch.device) -> Tensor:
    """Return float32 sigmas x grid x grid."""
    kernels = [make_gaussian_kernel(sigma) for sigma in sigmas]
    return torch.stack([make_smoothing_matrix(kernel, grid, device) for kernel in kernels])


def compute_frame(maps: Tensor) -> Tensor:
    """Compute each pixel's place in the frame of the lungs that a map N x 1 x G x G in [0, 1] shows.

    The planes (FRAME_NAMES) are y and x from the lungs' centre, in standard deviations of their mass; the
    distance from the midline in the same unit; and the ratio of the two deviations. A pixel's mass is the
    square of the map, so that low values hardly move the frame.
    """
    mass = maps.clamp(0, 1) ** 2
    grid = maps.shape[-1]
    places = torch.linspace(-1, 1, grid, device=maps.device)
    total = mass.sum((2, 3)).clamp_min(1e-3)
    x_centre, x_spread = _compute_moments(mass.sum(2), places, total)
    y_centre, y_spread = _compute_moments(mass.sum(3), places, total)
    y = ((places.view(1, 1, -1, 1) - y_centre) / y_spread).expand(-1, -1, -1, grid)
    x = ((places.view(1, 1, 1, -1) - x_centre) / x_spread).expand(-1, -1, grid, -1)
    return torch.cat([y, x, x.abs(), (x_spread / y_spread).expand_as(x)], 1)


def _compute_moments(profile: Tensor, places: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """Compute mean and standard deviation of places under a profile N x 1 x G, each as N x 1 x 1 x 1."""
    centre = (profile * places).sum(2) / total
    variance = (profile * places**2).sum(2) / total - centre**2
    return centre[..., None, None], variance.clamp_min(1e-3).sqrt()[..., None, None]
