"""Geometric changes of images: affine matrices (rotate, scale, shift, flip, stretch, crop) and deformations.

Coordinates are normalised as in `torch.nn.functional.affine_grid` with `align_corners=False`: -1 is the left
or upper edge of an image and 1 its right or lower edge, whatever its height and width. A matrix of N x 2 x 3
maps a place (x, y) in the changed image to the place in the original image whose value it shows.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

KNOTS = 7  # of a deformation along each side; the outermost lie a quarter of the side outside the image


def make_affine_matrices(
    angles: Tensor, scales: Tensor, shifts: Tensor, flips: Tensor, height: int, width: int
) -> Tensor:
    """Compute matrices of images that are flipped, then rotated and scaled about the centre, then shifted.

    Args:
        angles: N, radians, counter-clockwise as seen on a screen.
        scales: N, magnification.
        shifts: N x 2, to the right and downwards, as shares of width and height.
        flips: N, bool, left-right.
        height, width: of the images, in pixels: a rotation mustn't shear an image that isn't square.
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


def stretch_matrices(theta: Tensor, factors: Tensor) -> Tensor:
    """Add a stretch to matrices: an image becomes `factors` times as wide and 1 / `factors` times as high."""
    linear = theta[:, :, :2] * torch.stack([1 / factors, factors], 1)[:, None]
    return torch.cat([linear, theta[:, :, 2:]], 2)


def crop_matrices(theta: Tensor, borders: Tensor) -> Tensor:
    """Add a crop to matrices: what lies within the borders fills the whole image.

    The borders N x 4 are the shares of width, width, height and height to cut off at left, right, top and
    bottom; two opposite ones add up to less than 1.
    """
    low, high = 2 * borders[:, 0::2] - 1, 1 - 2 * borders[:, 1::2]
    centre, factors = (low + high) / 2, (high - low) / 2
    offset = theta[:, :, :2] @ centre[:, :, None] + theta[:, :, 2:]
    return torch.cat([theta[:, :, :2] * factors[:, None], offset], 2)


def interpolate_displacements(knots: Tensor, height: int, width: int) -> Tensor:
    """Compute a smooth displacement of each pixel: the uniform cubic B-spline with the given knots.

    Knots float32 N x 2 x KNOTS x KNOTS (y and x) of any unit make N x 2 x height x width of that unit, on
    their device. Rueckert et al., "Nonrigid registration using free-form deformations", IEEE Transactions on
    Medical Imaging 18(8), 1999. The spline's weights are positive and sum to 1, so no displacement exceeds
    the largest knot. If the knots are independent, its standard deviation is about half of theirs.
    """
    rows, columns = (_compute_spline_weights(side, knots.device) for side in (height, width))
    # Not matrix products: their rounding may depend on the size of the batch.
    along = sum(rows[:, k, None] * knots[:, :, k, None, :] for k in range(KNOTS))
    return sum(columns[:, k] * along[..., k, None] for k in range(KNOTS))


@lru_cache(maxsize=16)  # a new copy to a GPU would wait for all that is queued there
def _compute_spline_weights(side: int, device: torch.device) -> Tensor:
    """Compute the knots' weights float32 side x KNOTS at the pixels' centres along one side, for a device."""
    places = (torch.arange(side) + 0.5) / side * (KNOTS - 3)
    away = (places[:, None] - torch.arange(-1, KNOTS - 1)).abs()
    near, far = 2 / 3 - away**2 + away**3 / 2, (2 - away).clamp_min(0) ** 3 / 6
    return torch.where(away < 1, near, far).to(device)
