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
    grid = maps.shape[-1]
    planes = [maps, maps.flip(-1)]
    for sigma, distance in _rings(grid):
        blurred = blur(maps, sigma)
        planes.append(blurred)
        padded = F.pad(blurred, (distance,) * 4, mode="replicate")
        for y, x in DIRECTIONS:
            top, left = distance * (1 + y), distance * (1 + x)
            planes.append(padded[..., top : top + grid, left : left + grid])
    for axes in (3, 2, (2, 3)):
        planes.append(maps.mean(axes, keepdim=True).expand_as(maps))
    return torch.cat(planes, 1)


def _rings(grid: int) -> list[tuple[float, int]]:
    rings = [(sigma * grid, max(1, round(distance * grid))) for sigma, distance in RINGS]
    return [ring for ring in rings if ring[0] >= SMALLEST_SIGMA]


def blur(maps: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of N x 1 x H x W; sigma in pixels, cut at three sigma, the border repeated."""
    kernel = _gaussian(sigma).to(maps)
    radius = len(kernel) // 2
    across = F.conv2d(F.pad(maps, (radius, radius, 0, 0), mode="replicate"), kernel.view(1, 1, 1, -1))
    return F.conv2d(F.pad(across, (0, 0, radius, radius), mode="replicate"), kernel.view(1, 1, -1, 1))


@lru_cache
def _gaussian(sigma: float) -> Tensor:
    radius = max(1, int(3 * sigma))
    places = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-(places**2) / (2 * sigma**2))
    return kernel / kernel.sum()


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
