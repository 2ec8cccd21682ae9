"""Planes made from the maps of earlier stages: auto-context (Tu and Bai 2010).

A stage reads the two latest maps. From each it has the surroundings of every pixel: the map's value at the
pixel, blurred values at the pixel and at eight places around it at several distances, the value at the
mirrored place in the other lung, and means over the row, the column and the image. From the latest map it
also has the frame: the pixel's place relative to where that map puts the lungs.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from lungseg.approaches.vgg19_context.separable_filters import (
    apply_separable,
    make_gaussian_kernel,
    make_places,
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
    planes, rings = out.transpose(0, 1), _scale_rings(maps.shape[-1])
    blurred = blur(maps, tuple(sigma for sigma, _ in rings))
    margin = max(distance for _, distance in rings)
    padded = F.pad(blurred, (margin,) * 4, mode="replicate")
    around = planes[2:-3].unflatten(0, (len(rings), 1 + len(DIRECTIONS)))
    copies = [(planes[0], maps[:, 0]), (planes[1], maps[:, 0].flip(-1))]
    copies += [(around[:, 0], blurred.transpose(0, 1))]
    for ring, (_, distance) in enumerate(rings):
        copies += _list_copies_around(around[ring], padded[:, ring], margin, distance)
    means = (maps.mean(axes, keepdim=True)[:, 0] for axes in (3, 2, (2, 3)))
    copies += [(plane, mean.expand_as(plane)) for plane, mean in zip(planes[-3:], means, strict=True)]
    # One call for all of them: most of their time is that of starting them.
    torch._foreach_copy_([target for target, _ in copies], [source for _, source in copies])


def _list_copies_around(
    planes: Tensor, padded: Tensor, margin: int, distance: int
) -> list[tuple[Tensor, Tensor]]:
    """List what to copy where for a ring's eight places, planes 9 x N x G x G with the centre's first.

    The source is a blurred map N x (G + 2 margin) x (G + 2 margin). Places that lie evenly are one copy.
    """
    count, grid = planes.shape[1], planes.shape[-1]
    image, row, column = padded.stride()

    def view(top: int, left: int, shape: tuple[int, ...], steps: tuple[int, ...]) -> Tensor:
        start = padded.storage_offset() + (margin + top) * row + (margin + left) * column
        return padded.as_strided((*shape, count, grid, grid), (*steps, image, row, column), start)

    down, right = 2 * distance * row, 2 * distance * column
    return [
        (planes[1:3], view(-distance, 0, (2,), (down,))),
        (planes[3:5], view(0, -distance, (2,), (right,))),
        (planes[5:].unflatten(0, (2, 2)), view(-distance, -distance, (2, 2), (down, right))),
    ]


def _scale_rings(grid: int) -> list[tuple[float, int]]:
    """Return the rings in pixels of the grid, without those of too narrow a blur."""
    rings = [(sigma / 128 * grid, max(1, round(distance / 128 * grid))) for sigma, distance in RINGS]
    return [ring for ring in rings if ring[0] >= SMALLEST_SIGMA]


def blur(maps: Tensor, sigmas: tuple[float, ...]) -> Tensor:
    """Blur maps float32 N x 1 x G x G by Gaussians (sigmas in pixels), with the border repeated."""
    return apply_separable(maps, _make_blur_matrices(sigmas, maps.shape[-1], maps.device))


@cache  # for good: a recorded CUDA graph goes on reading it
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
    places = make_places(grid, maps.device)
    profiles = torch.cat([mass.sum(3), mass.sum(2)], 1)  # N x 2 x G: along y and along x
    centre, spread = _compute_moments(profiles, places, mass.sum((2, 3)).clamp_min(1e-3))
    from_centre = (places - centre) / spread
    y, x = from_centre[:, :1, :, None], from_centre[:, 1:, None]
    aspect = (spread[:, 1:] / spread[:, :1])[..., None]
    planes = (y, x, x.abs(), aspect)
    return torch.cat([plane.expand(-1, -1, grid, grid) for plane in planes], 1)


def _compute_moments(profiles: Tensor, places: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """Compute mean and standard deviation, N x 2 x 1 each, of places under profiles N x 2 x G."""
    centre = (profiles * places).sum(2) / total
    variance = (profiles * places**2).sum(2) / total - centre**2
    return centre[..., None], variance.clamp_min(1e-3).sqrt()[..., None]
