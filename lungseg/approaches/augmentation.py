"""Random changes of training images, on the batch and on its device.

The ranges follow what frontal radiographs differ in: how a person stands (rotation, shift), size and
inspiration (scale), and exposure and processing (gamma, contrast, brightness, noise).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor
from torch.nn import functional

from lungseg.approaches.approach import Settings


class AugmentationSettings(Settings):
    """How strong each change may be. Zero, or the range (1, 1), turns it off.

    Attributes:
        flip: probability of a left-right flip. Off by default: the heart has a side.
        rotation: largest angle in degrees, to either side.
        scale: smallest and largest magnification; above 1 the lungs become larger.
        stretch: largest relative change of height against width: with 0.1 one of them grows by up to 10 %
            while the other shrinks by as much.
        shift: largest displacement along each axis, as a share of that side.
        padding: what comes in from outside the image: "zeros" (black), "border" (its edge repeated), or
            "either", one of the two by chance for each image. Outside a mask there is never lung.
        gamma: smallest and largest exponent of the grey values; above 1 the image becomes darker.
        contrast: largest relative change of the distance from the image's mean: 0.2 is factors 0.8 to 1.2.
        brightness: largest change of all grey values, in units of the range [0, 1].
        noise: largest standard deviation of Gaussian noise, in units of the range [0, 1].
    """

    flip: float = Field(0.0, ge=0, le=1)
    rotation: float = Field(10.0, ge=0, le=180)
    scale: tuple[float, float] = (0.85, 1.15)
    stretch: float = Field(0.0, ge=0, lt=1)
    shift: float = Field(0.06, ge=0, lt=1)
    padding: Literal["zeros", "border", "either"] = "zeros"
    gamma: tuple[float, float] = (0.7, 1.4)
    contrast: float = Field(0.2, ge=0, lt=1)
    brightness: float = Field(0.1, ge=0, le=1)
    noise: float = Field(0.03, ge=0, le=1)

    @field_validator("scale", "gamma")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1] < math.inf:
            raise ValueError("give a smallest and a largest factor, both above 0")
        return value


class Augmentation:
    """Changes each image of a batch by its own random amounts, and its mask by the same geometry."""

    def __init__(self, settings: AugmentationSettings) -> None:
        self.settings = settings

    @torch.no_grad()
    def __call__(self, images: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The changed batch: new tensors of the same shapes and device, in [0, 1]; the mask's edges are soft.

        Args:
            images: float32 N x 1 x H x W in [0, 1].
            masks: float32 N x 1 x H x W in [0, 1].
            generator: a generator of the CPU, the only source of chance. What an image undergoes is
                drawn there, so that it is the same on every device; only the noise's pixels are drawn on the
                batch's device, from a seed that is drawn here.
        """
        images, masks = self._move(images, masks, generator)
        images = self._expose(images, generator)
        return self._add_noise(images, generator).clamp(0.0, 1.0), masks.clamp(0.0, 1.0)

    def _move(self, images: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        s = self.settings
        if not (s.flip or s.rotation or s.stretch or s.shift or s.scale != (1, 1)):
            return images, masks
        n, _, height, width = images.shape
        angles = torch.deg2rad(_uniform(n, -s.rotation, s.rotation, generator))
        scales = _log_uniform(n, *s.scale, generator)
        shifts = torch.stack([_uniform(n, -s.shift, s.shift, generator) for _ in range(2)], dim=1)
        flips = torch.rand(n, generator=generator) < s.flip
        theta = affine_matrices(angles, scales, shifts, flips, height, width)
        if s.stretch:
            theta[:, :, :2] = theta[:, :, :2] @ _stretching(n, s.stretch, generator)
        return self._pad(images, theta, generator), warp(masks, theta, "zeros")

    def _pad(self, images: Tensor, theta: Tensor, generator: torch.Generator) -> Tensor:
        if self.settings.padding != "either":
            return warp(images, theta, self.settings.padding)
        black = (torch.rand(len(images), generator=generator) < 0.5).to(images.device)
        both = warp(images, theta, "zeros"), warp(images, theta, "border")
        return torch.where(black.view(-1, 1, 1, 1), *both)

    def _expose(self, images: Tensor, generator: torch.Generator) -> Tensor:
        s, n = self.settings, len(images)
        if s.gamma != (1, 1):
            images = images.clamp(0.0, 1.0) ** _per_image(_log_uniform(n, *s.gamma, generator), images)
        if s.contrast:
            factors = _per_image(1 + _uniform(n, -s.contrast, s.contrast, generator), images)
            means = images.mean(dim=(1, 2, 3), keepdim=True)
            images = (images - means) * factors + means
        if s.brightness:
            images = images + _per_image(_uniform(n, -s.brightness, s.brightness, generator), images)
        return images

    def _add_noise(self, images: Tensor, generator: torch.Generator) -> Tensor:
        if not self.settings.noise:
            return images
        deviations = _per_image(_uniform(len(images), 0.0, self.settings.noise, generator), images)
        # A normal number a pixel from the CPU's generator would keep a GPU waiting.
        seed = int(torch.randint(2**62, (1,), generator=generator))
        pixels = torch.Generator(images.device).manual_seed(seed)
        noise = torch.empty_like(images).normal_(generator=pixels)
        return images + noise * deviations


def affine_matrices(
    angles: Tensor, scales: Tensor, shifts: Tensor, flips: Tensor, height: int, width: int
) -> Tensor:
    """Matrices for `warp`: flip, then rotate and scale about the centre, then shift.

    Args:
        angles: N, radians, counter-clockwise as seen on a screen.
        scales: N, magnification.
        shifts: N x 2, to the right and downwards, as shares of width and height.
        flips: N, bool, left-right.
        height, width: of the images, in pixels: a rotation mustn't shear an image that isn't square.

    Returns:
        float32 N x 2 x 3: normalised output coordinates to normalised input coordinates, as
        `torch.nn.functional.affine_grid` wants them.
    """
    cosine, sine = torch.cos(angles) / scales, torch.sin(angles) / scales
    # Rows of the inverse rotation, in pixels; y points downwards.
    from_x = torch.stack([cosine, -sine * height / width], dim=1)
    from_y = torch.stack([sine * width / height, cosine], dim=1)
    linear = torch.stack([from_x, from_y], dim=1)
    offset = -linear @ (2 * shifts).unsqueeze(2)
    theta = torch.cat([linear, offset], dim=2)
    theta[flips, 0] *= -1
    return theta


def warp(images: Tensor, theta: Tensor, padding: str) -> Tensor:
    """Samples images N x C x H x W bilinearly at the places that matrices of `affine_matrices` name."""
    grid = functional.affine_grid(theta.to(images), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, "bilinear", padding, align_corners=False)


def _stretching(n: int, largest: float, generator: torch.Generator) -> Tensor:
    """Matrices N x 2 x 2 of the output's axes: x divided by a factor, y multiplied by it."""
    factors = _log_uniform(n, 1 / (1 + largest), 1 + largest, generator)
    return torch.diag_embed(torch.stack([1 / factors, factors], 1))


def _uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(n, generator=generator) * (high - low) + low


def _log_uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """Factors whose logarithm is uniform: halving is as likely as doubling."""
    return torch.exp(_uniform(n, math.log(low), math.log(high), generator))


def _per_image(values: Tensor, images: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1).to(images)
