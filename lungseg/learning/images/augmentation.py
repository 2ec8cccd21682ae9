"""Data augmentation: random changes of training images and masks, on the batch's device.

The changes are those in which frontal radiographs differ: how a person stands (rotation, shift, elastic),
size and inspiration (scale, stretch), what the image shows (crop, collimation), and exposure and processing
(gamma, contrast, brightness, local contrast, noise).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Literal, Self

import torch
from pydantic import Field, field_validator
from torch import Tensor
from torch.nn import functional

from lungseg.learning.images.clahe import apply_clahe
from lungseg.learning.images.geometry import (
    KNOTS,
    crop_matrices,
    interpolate_displacements,
    make_affine_matrices,
    stretch_matrices,
)
from lungseg.system.plugins import Settings


class AugmentationSettings(Settings):
    """How strong each change may be. Zero, or the range (1, 1), turns it off.

    Displacements are shares of the side along each axis, grey values are in units of the range [0, 1].
    """

    flip: float = Field(0.0, ge=0, le=1)
    """Probability of a mirror image. It is off by default, since the heart has a side."""
    rotation: float = Field(10.0, ge=0, le=180)
    """Largest angle to either side, in degrees."""
    scale: tuple[float, float] = (0.85, 1.15)
    """Smallest and largest magnification. Above 1 the lungs become larger."""
    stretch: float = Field(0.0, ge=0, lt=1)
    """With 0.1, height or width grows by up to 10 %. The other shrinks."""
    shift: float = Field(0.06, ge=0, lt=1)
    """Largest displacement, as a share of the side."""
    crop: float = Field(0.0, ge=0, lt=0.5)
    """Largest share cut off at each border. The rest fills the image."""
    # A pixel's usual displacement is a quarter of it. Up to about 0.05 nothing folds over.
    elastic: float = Field(0.0, ge=0, lt=0.2)
    """Largest displacement of a smooth deformation, as a share of the side."""
    padding: Literal["zeros", "border", "either"] = "zeros"
    """What comes in from outside the image: black, its edge repeated, or one of both at random."""
    collimation: float = Field(0.0, ge=0, lt=0.5)
    """Largest share that becomes black at each border."""
    gamma: tuple[float, float] = (0.7, 1.4)
    """Smallest and largest exponent of the grey values. Above 1 the image becomes darker."""
    contrast: float = Field(0.2, ge=0, lt=1)
    """With 0.2, the distance from the image's mean is multiplied by 0.8 to 1.2."""
    brightness: float = Field(0.1, ge=0, le=1)
    """Largest change of all grey values. Black is 0, white is 1."""
    local_contrast: float = Field(0.0, ge=0, le=1)
    """Probability of contrast-limited adaptive histogram equalisation (CLAHE), which many scanners do."""
    noise: float = Field(0.03, ge=0, le=1)
    """Largest standard deviation of Gaussian noise."""

    @field_validator("scale", "gamma")
    @classmethod
    def _check_order(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1] < math.inf:
            raise ValueError("give a smallest and a largest factor, both above 0")
        return value


@dataclass(frozen=True)
class Changes:
    """The drawn changes of N images, as tensors on the CPU; by default float32 N. One that is off is None.

    Shares are of width and height, and grey values in units of [0, 1].
    """

    angles: Tensor | None = None  # radians; None also means no scales, shifts, flips and stretch
    scales: Tensor | None = None  # factors
    shifts: Tensor | None = None  # N x 2: shares, to the right and downwards
    flips: Tensor | None = None  # bool
    stretch: Tensor | None = None  # factors by which the width grows and the height shrinks
    black: Tensor | None = None  # bool: whether what comes in is black (None: yes), not the border repeated
    gamma: Tensor | None = None  # exponents
    contrast: Tensor | None = None  # factors
    brightness: Tensor | None = None  # what is added
    noise: Tensor | None = None  # standard deviations
    noise_seeds: Tensor | None = None  # int64
    borders: Tensor | None = None  # N x 4: the shares cut off at left, right, top and bottom
    knots: Tensor | None = None  # N x 2 x KNOTS x KNOTS: of the deformation, shares
    collimated: Tensor | None = None  # N x 4: the black shares at left, right, top and bottom
    local_contrast: Tensor | None = None  # bool: whether CLAHE is applied

    def __getitem__(self, chosen: slice) -> Self:
        """Return the changes of some of the images."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return replace(self, **{name: value[chosen] for name, value in values.items() if value is not None})


class Augmentation:
    """Random changes: each image of a batch by its own amounts, and its mask by the same geometry."""

    def __init__(self, settings: AugmentationSettings) -> None:
        self.settings = settings

    def __call__(self, images: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw changes and apply them; see `draw` and `apply`."""
        return self.apply(images, masks, self.draw(len(images), generator))

    def draw(self, count: int, generator: torch.Generator) -> Changes:
        """Draw the changes of `count` images, all from a generator of the CPU: the same for every device."""
        drawn = self.settings, count, generator
        return Changes(
            **_draw_affine(*drawn), **_draw_padding(*drawn), **_draw_grey_values(*drawn), **_draw_rest(*drawn)
        )

    @torch.no_grad()
    def apply(self, images: Tensor, masks: Tensor, changes: Changes) -> tuple[Tensor, Tensor]:
        """Apply changes to images and masks float32 N x 1 x H x W in [0, 1]; the masks' edges become soft.

        The order is: deform, flip, rotate and scale about the centre, shift, stretch, crop; then CLAHE,
        gamma, contrast, brightness and noise; then black borders, behind which there is no lung. An image's
        result doesn't depend on the rest of its batch, but for rounding where several threads share the work.
        The noise differs between kinds of devices, since each draws it from the seeds in its own way. On a
        GPU one call draws it for all images, so there it depends on the batch. Nothing here waits for a GPU,
        except local contrast.
        """
        amounts = _send(_list_amounts(changes, *images.shape[-2:]), images.device)
        images, masks = _move(images, masks, changes, amounts)
        images = _expose(images, amounts)
        if changes.noise is not None:
            noise = _draw_noise(images, changes.noise_seeds.tolist(), images.device.type != "cpu")
            images = images + noise * _per_image(amounts["noise"])
        images = images.clamp(0.0, 1.0)
        if changes.collimated is not None:
            open_field = amounts["across"] * amounts["down"]
            images, masks = images * open_field, masks * open_field
        return images, masks.clamp(0.0, 1.0)


def _draw_affine(s: AugmentationSettings, count: int, generator: torch.Generator) -> dict[str, Tensor]:
    if not _is_affine(s):
        return {}
    drawn = {
        "angles": torch.deg2rad(_uniform(count, -s.rotation, s.rotation, generator)),
        "scales": _log_uniform(count, *s.scale, generator),
        "shifts": torch.stack([_uniform(count, -s.shift, s.shift, generator) for _ in range(2)], dim=1),
        "flips": torch.rand(count, generator=generator) < s.flip,
    }
    if s.stretch:
        drawn["stretch"] = _log_uniform(count, 1 / (1 + s.stretch), 1 + s.stretch, generator)
    return drawn


def _is_affine(s: AugmentationSettings) -> bool:
    return bool(s.flip or s.rotation or s.stretch or s.shift or s.scale != (1, 1))


def _draw_padding(s: AugmentationSettings, count: int, generator: torch.Generator) -> dict[str, Tensor]:
    if not (_is_affine(s) or s.crop or s.elastic):
        return {}
    if s.padding == "either":
        return {"black": torch.rand(count, generator=generator) < 0.5}
    return {"black": torch.full((count,), s.padding == "zeros")}


def _draw_grey_values(s: AugmentationSettings, count: int, generator: torch.Generator) -> dict[str, Tensor]:
    drawn = {}
    if s.gamma != (1, 1):
        drawn["gamma"] = _log_uniform(count, *s.gamma, generator)
    if s.contrast:
        drawn["contrast"] = 1 + _uniform(count, -s.contrast, s.contrast, generator)
    if s.brightness:
        drawn["brightness"] = _uniform(count, -s.brightness, s.brightness, generator)
    if s.noise:
        drawn["noise"] = _uniform(count, 0.0, s.noise, generator)
        drawn["noise_seeds"] = torch.randint(2**62, (count,), generator=generator)
    return drawn


def _draw_rest(s: AugmentationSettings, count: int, generator: torch.Generator) -> dict[str, Tensor]:
    # Drawn last: switching one of these on doesn't change the amounts of the others.
    drawn = {}
    if s.crop:
        drawn["borders"] = torch.rand(count, 4, generator=generator) * s.crop
    if s.collimation:
        drawn["collimated"] = torch.rand(count, 4, generator=generator) * s.collimation
    if s.elastic:
        knots = torch.rand(count, 2, KNOTS, KNOTS, generator=generator)
        drawn["knots"] = (2 * knots - 1) * s.elastic
    if s.local_contrast:
        drawn["local_contrast"] = torch.rand(count, generator=generator) < s.local_contrast
    return drawn


def _uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(n, generator=generator) * (high - low) + low


def _log_uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """Draw factors whose logarithm is uniform: halving is as likely as doubling."""
    return torch.exp(_uniform(n, math.log(low), math.log(high), generator))


def _list_amounts(changes: Changes, height: int, width: int) -> dict[str, Tensor]:
    """Compute on the host the small tensors that the images' device needs, by name."""
    found = {
        "theta": _make_matrices(changes, height, width),  # first, where memory is aligned for its product
        "knots": changes.knots,
        "gamma": changes.gamma,
        "contrast": changes.contrast,
        "brightness": changes.brightness,
        "noise": changes.noise,
    }
    if changes.black is not None:
        found["black"] = changes.black
    if changes.local_contrast is not None:
        found["chosen"] = changes.local_contrast.nonzero()[:, 0]
    if changes.collimated is not None:
        found["across"], found["down"] = _find_open_field(changes.collimated, height, width)
    return {name: value for name, value in found.items() if value is not None}


def _send(amounts: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Copy tensors of the host to a device as float32, all by one copy that nothing waits for."""
    if not amounts:
        return {}
    packed = torch.cat([value.float().flatten() for value in amounts.values()])
    if device.type == "cuda":  # a copy from memory that isn't pinned would wait
        packed = packed.pin_memory()
    parts = packed.to(device, non_blocking=True).split([value.numel() for value in amounts.values()])
    return {name: part.view(amounts[name].shape) for name, part in zip(amounts, parts, strict=True)}


def _move(
    images: Tensor, masks: Tensor, changes: Changes, amounts: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    grid = _make_sampling_grid(amounts, images)
    if grid is None:
        return images, masks
    moved = _sample(masks, grid, "zeros")
    # On the host, where the answer is known at once.
    kinds = {True} if changes.black is None else set(changes.black.tolist())
    if kinds == {True}:
        return _sample(images, grid, "zeros"), moved
    if kinds == {False}:
        return _sample(images, grid, "border"), moved
    chosen = _per_image(amounts["black"]) > 0
    return torch.where(chosen, _sample(images, grid, "zeros"), _sample(images, grid, "border")), moved


def _sample(images: Tensor, grid: Tensor, padding: str) -> Tensor:
    return functional.grid_sample(images, grid, "bilinear", padding, align_corners=False)


def _make_matrices(changes: Changes, height: int, width: int) -> Tensor | None:
    """Compute the affine matrices N x 2 x 3 of the changes, on the host; None if nothing moves."""
    moving = (changes.angles, changes.borders, changes.knots)
    count = next((len(value) for value in moving if value is not None), None)
    if count is None:
        return None
    theta = torch.eye(2, 3).repeat(count, 1, 1)
    if changes.angles is not None:
        amounts = changes.angles, changes.scales, changes.shifts, changes.flips
        theta = make_affine_matrices(*amounts, height, width)
    if changes.stretch is not None:
        theta = stretch_matrices(theta, changes.stretch)
    return theta if changes.borders is None else crop_matrices(theta, changes.borders)


def _make_sampling_grid(amounts: dict[str, Tensor], images: Tensor) -> Tensor | None:
    """Compute where each changed pixel is read, N x H x W x 2 in [-1, 1]; None if nothing moves."""
    if "theta" not in amounts:
        return None
    count, _, height, width = images.shape
    grid = functional.affine_grid(amounts["theta"], [count, 1, height, width], align_corners=False)
    if "knots" in amounts:
        # In [-1, 1] the whole side is 2 long.
        grid = grid + 2 * interpolate_displacements(amounts["knots"], height, width).permute(0, 2, 3, 1)
    return grid


def _expose(images: Tensor, amounts: dict[str, Tensor]) -> Tensor:
    if "chosen" in amounts and len(amounts["chosen"]):
        chosen = amounts["chosen"].long()
        images = images.index_copy(0, chosen, apply_clahe(images[chosen].clamp(0.0, 1.0)))
    if "gamma" in amounts:
        images = images.clamp(0.0, 1.0) ** _per_image(amounts["gamma"])
    if "contrast" in amounts:
        means = images.mean(dim=(1, 2, 3), keepdim=True)
        images = (images - means) * _per_image(amounts["contrast"]) + means
    if "brightness" in amounts:
        images = images + _per_image(amounts["brightness"])
    return images


def _draw_noise(images: Tensor, seeds: list[int], at_once: bool) -> Tensor:
    """Draw noise with mean 0 and standard deviation 1 of the shape of images, on their device.

    Each image's noise comes from its own seed, so that it doesn't depend on the batch. `at_once` draws all
    from the first seed, by a single call: a GPU takes longer to start a call than to draw an image.
    """
    # Only the seeds come from the CPU's generator: to draw every pixel there would keep a GPU waiting.
    pixels, noise = torch.Generator(images.device), torch.empty_like(images)
    if at_once:
        return noise.normal_(generator=pixels.manual_seed(seeds[0]))
    for seed, own in zip(seeds, noise, strict=True):
        own.normal_(generator=pixels.manual_seed(seed))
    return noise


def _find_open_field(shares: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return which columns N x 1 x 1 x W and rows N x 1 x H x 1 lie within the borders N x 4, as bool.

    The borders are shares at left, right, top and bottom; a pixel's centre counts.
    """
    x = ((torch.arange(width) + 0.5) / width).view(1, 1, 1, -1)
    y = ((torch.arange(height) + 0.5) / height).view(1, 1, -1, 1)
    left, right, top, bottom = shares.view(-1, 4, 1, 1, 1).unbind(1)
    return (x >= left) & (x <= 1 - right), (y >= top) & (y <= 1 - bottom)


def _per_image(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
