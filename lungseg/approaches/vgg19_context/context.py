"""What an earlier stage believes around each pixel: auto-context (Tu and Bai 2010).

A later regressor reads the earlier map at the pixel, blurred at the pixel and at eight places around it at
several distances, mirrored to the other lung, and in sums over rows, columns and the image; and the pixel's
place relative to where the earlier map puts the lungs.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from lungseg.approaches.vgg19_context.separable import gaussian, separable, smoothing

# (sigma of the blur, distance of the eight places), as shares of the grid's side.
RINGS = (
    (1 / 128, 3 / 128),
    (2 / 128, 6 / 128),
    (4 / 128, 12 / 128),
    (8 / 128, 24 / 128),
    (14 / 128, 40 / 128),
)
DIRECTIONS = ((-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1))
SMALLEST_SIGMA = 0.6  # grid pixels: a narrower blur changes nothing


def context_names(grid: int) -> list[str]:
    """Names of the planes of `context_planes`, in their order."""
    names = ["here", "mirrored"]
    for sigma, distance in _rings(grid):
        names.append(f"blur {sigma:.1f}")
        names += [f"blur {sigma:.1f} at {y * distance:+d},{x * distance:+d}" for y, x in DIRECTIONS]
    return [*names, "row", "column", "image"]


def context_planes(maps: Tensor) -> Tensor:
    """Maps N x 1 x G x G in [0, 1] of an earlier stage -> float32 N x C x G x G."""
    count, _, grid, _ = maps.shape
    out = maps.new_empty(count, len(context_names(grid)), grid, grid)
    fill_context(out, maps)
    return out


def fill_context(out: Tensor, maps: Tensor) -> None:
    """Writes `context_planes` of maps into planes that are there, of any strides."""
    grid = maps.shape[-1]
    rings = _rings(grid)
    places = iter(out.unbind(1))
    next(places).copy_(maps[:, 0])
    next(places).copy_(maps[:, 0].flip(-1))
    blurred = blurs(maps, tuple(sigma for sigma, _ in rings))
    margin = max(distance for _, distance in rings)
    padded = F.pad(blurred, (margin,) * 4, mode="replicate")
    for index, (_, distance) in enumerate(rings):
        for y, x in ((0, 0), *DIRECTIONS):
            top, left = margin + distance * y, margin + distance * x
            next(places).copy_(padded[:, index, top : top + grid, left : left + grid])
    for axes in (3, 2, (2, 3)):
        next(places).copy_(maps.mean(axes, keepdim=True)[:, 0])


def _rings(grid: int) -> list[tuple[float, int]]:
    rings = [(sigma * grid, max(1, round(distance * grid))) for sigma, distance in RINGS]
    return [ring for ring in rings if ring[0] >= SMALLEST_SIGMA]


def blurs(maps: Tensor, sigmas: tuple[float, ...]) -> Tensor:
    """Gaussian blurs N x sigmas x G x G of N x 1 x G x G; sigma in pixels, the border repeated."""
    return separable(maps, _gaussians(sigmas, maps.shape[-1], maps.device))


@lru_cache(maxsize=16)
def _gaussians(sigmas: tuple[float, ...], grid: int, device: torch.device) -> Tensor:
    """Float32 sigmas x grid x grid."""
    return torch.stack([smoothing(gaussian(sigma), grid, device) for sigma in sigmas])


FRAME_NAMES = ["y in lungs", "x in lungs", "distance from midline", "aspect of lungs"]


def frame_planes(maps: Tensor) -> Tensor:
    """The pixel's place in the frame of the lungs as an earlier stage sees them: N x 4 x G x G.

    y and x from the lungs' centre in standard deviations of their mass, the distance from the midline in the
    same unit, and the ratio of the two deviations. Squaring the map keeps faint belief from moving the frame.
    """
    mass = maps.clamp(0, 1) ** 2
    grid = maps.shape[-1]
    places = torch.linspace(-1, 1, grid, device=maps.device)
    total = mass.sum((2, 3)).clamp_min(1e-3)
    x_centre, x_spread = _moments(mass.sum(2), places, total)
    y_centre, y_spread = _moments(mass.sum(3), places, total)
    y = ((places.view(1, 1, -1, 1) - y_centre) / y_spread).expand(-1, -1, -1, grid)
    x = ((places.view(1, 1, 1, -1) - x_centre) / x_spread).expand(-1, -1, grid, -1)
    return torch.cat([y, x, x.abs(), (x_spread / y_spread).expand_as(x)], 1)


def _moments(profile: Tensor, places: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of places under a profile N x 1 x G, each as N x 1 x 1 x 1."""
    centre = (profile * places).sum(2) / total
    variance = (profile * places**2).sum(2) / total - centre**2
    return centre[..., None, None], variance.clamp_min(1e-3).sqrt()[..., None, None]
