"""Planes computed from an image's grey values: normalised grey, local contrast, and the pixel's place."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from lungseg.approaches.vgg19_context.separable_filters import (
    apply_separable,
    make_box_kernel,
    make_places,
    make_smoothing_matrix,
)

LOW, HIGH = 0.02, 0.98  # quantiles of an image's grey values that become 0 and 1
QUANTILE_STRIDE = 4  # every fourth pixel along each axis: their quantiles differ by less than the noise
BODY = 0.1  # normalised grey value above which a pixel counts as body
LOCAL_WINDOWS = (1 / 14, 1 / 4)  # sides of the windows of the local mean, as shares of the image's side


def normalise(images: Tensor) -> Tensor:
    """Stretch images N x 1 x H x W to [0, 1]: their 2 % quantile becomes 0, their 98 % quantile becomes 1."""
    sampled = images[..., ::QUANTILE_STRIDE, ::QUANTILE_STRIDE].flatten(1).float()
    low, high = torch.quantile(sampled, _make_levels(images.device), dim=1).view(2, -1, 1, 1, 1)
    return ((images - low) / (high - low).clamp_min(1e-3)).clamp(0, 1)


@cache
def _make_levels(device: torch.device) -> Tensor:
    # Made once: a copy from the host would wait for the device, and forbid that a CUDA graph is recorded.
    return torch.tensor([LOW, HIGH], device=device)


GREY_NAMES = ["grey", *(f"grey - mean of {window:.2f}" for window in LOCAL_WINDOWS)]


def compute_grey_planes(images: Tensor) -> Tensor:
    """Compute grey values and their differences from local means, of normalised images N x 1 x G x G.

    The planes are N x 3 x G x G, in the order of GREY_NAMES.
    """
    local = apply_separable(images, _make_local_mean_matrices(images.shape[-1], images.device))
    return torch.cat([images, images - local], 1)


@cache  # for good: a recorded CUDA graph goes on reading it
def _make_local_mean_matrices(grid: int, device: torch.device) -> Tensor:
    """Return float32 windows x grid x grid: a smoothing matrix for each window."""
    halves = [max(1, round(window * grid / 2)) for window in LOCAL_WINDOWS]
    return torch.stack([make_smoothing_matrix(make_box_kernel(half), grid, device) for half in halves])


COORDINATE_NAMES = ["y", "x", "body above", "body left", "body left in row"]


def compute_coordinate_planes(images: Tensor) -> Tensor:
    """Compute where each pixel of normalised images N x 1 x G x G lies, in the image and in the body.

    The planes (COORDINATE_NAMES) are y and x in [-1, 1]; the share of the body's pixels that lie above the
    pixel's row; the share that lie left of its column; and the share of its own row's body pixels that lie
    left of it (one half if the row has none). The last three are the same if an image is letterboxed, cut or
    shifted.
    """
    count, _, side, _ = images.shape
    places = make_places(side, images.device)
    body = (images > BODY).int()
    # One pass for all three: the sums of the rows and of the columns become two rows more.
    amounts = torch.cat([body.sum(3, keepdim=True).mT, body.sum(2, keepdim=True), body], 2)
    above, left, in_row = _compute_share_before(amounts).split([1, 1, side], 2)
    planes = [places[:, None], places, above.mT, left]
    return torch.cat([*(plane.expand(count, 1, side, side) for plane in planes), in_row], 1)


def _compute_share_before(amounts: Tensor) -> Tensor:
    """Compute the share of each row's sum that lies before each place; one half if the sum is zero.

    Half of a place's own amount counts. The amounts are integers, so running sums are the same on every
    device.
    """
    running = amounts.cumsum(-1)
    total = running[..., -1:]
    return ((running - amounts / 2) / total.clamp_min(1)).masked_fill_(total == 0, 0.5)
