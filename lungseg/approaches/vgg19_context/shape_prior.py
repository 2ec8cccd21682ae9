"""The shape prior: kernel ridge regression of the whole mask on the shrunken image.

A Gaussian kernel compares an image with every training image, and the masks are regressed on it (Saunders et
al. 1998). A constant added to the kernel is the intercept. The prediction of a fit without a training image
and its copies has a closed form (leave-one-group-out; Cawley and Talbot 2003 for a single case). So the next
stage can learn from maps of fits that never saw the image's mask.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lungseg.learning.images.resize import shrink_maps

SIDE = 32  # pixels a side of the shrunken image
MASK_SIDE = 64  # pixels a side of the regressed mask
WIDTH = 4.0  # of the kernel: exp(-d^2 / (WIDTH m)), m the median squared distance between training images
PENALTY = 0.01
MOST_CASES = 8000  # the kernel matrix has their square as its size: half a gigabyte
JITTER = 1e-6  # keeps an image of one grey value from a division by zero


class ShapePrior(nn.Module):
    """Kernel ridge regression: normalised images N x 1 x S x S -> maps N x 1 x 64 x 64 in [0, 1]."""

    def __init__(self, cases: int = 0) -> None:
        """Make an unfitted prior, with space for the state of one that was fitted to so many cases."""
        super().__init__()
        self.register_buffer("pictures", torch.zeros(cases, SIDE**2))
        self.register_buffer("coefficients", torch.zeros(cases, MASK_SIDE**2))
        self.register_buffer("width", torch.ones(()))

    def fit(self, pictures: Tensor, masks: Tensor, groups: Tensor) -> Tensor:
        """Fit, and predict each case by a fit without its group: float32 N x 1 x 64 x 64 in [0, 1].

        Args:
            pictures: what `describe_images` returns of N images.
            masks: float32 N x 1 x 64 x 64, shares of lung.
            groups: int N; the images of a patient and their changed copies share one. If there are more
                than 8000 cases, only those of evenly spaced groups are fitted.
        """
        chosen = _choose_cases(groups)
        maps = torch.empty(len(pictures), 1, MASK_SIDE, MASK_SIDE)
        maps[chosen] = self._fit(pictures[chosen], masks[chosen], groups[chosen])
        if not chosen.all():
            maps[~chosen] = self.predict_maps(pictures[~chosen])
        return maps

    def _fit(self, pictures: Tensor, masks: Tensor, groups: Tensor) -> Tensor:
        targets = masks.flatten(1).double()
        distances = compute_squared_distances(pictures, pictures).fill_diagonal_(0)
        apart = distances[distances > 0]
        self.width = WIDTH * apart.median() if len(apart) else torch.ones(())
        kernel = (torch.exp(-distances / self.width) + 1).double()
        del distances, apart
        kernel.diagonal().add_(PENALTY)
        inverse = torch.linalg.inv(kernel)
        coefficients = inverse @ targets
        held_out = torch.empty_like(targets)
        for group in groups.unique():
            members = (groups == group).nonzero()[:, 0]
            # The residuals of a group that is left out: (its block of the inverse)^-1 times its coefficients.
            block = inverse[members][:, members]
            held_out[members] = targets[members] - torch.linalg.solve(block, coefficients[members])
        self.pictures, self.coefficients = pictures, coefficients.float()
        return held_out.float().clamp(0, 1).view(-1, 1, MASK_SIDE, MASK_SIDE)

    def forward(self, images: Tensor) -> Tensor:
        return self.predict_maps(describe_images(images))

    def predict_maps(self, pictures: Tensor) -> Tensor:
        """Predict maps float32 N x 1 x 64 x 64 in [0, 1] of what `describe_images` returned."""
        # Float32 is enough here: its error is a millionth of the width. In float64, as in the fit, this took
        # longer than all else that the prior does.
        lengths = [torch.linalg.vector_norm(each, dim=1) ** 2 for each in (pictures, self.pictures)]
        distances = lengths[0][:, None] + lengths[1] - 2 * (pictures @ self.pictures.T)
        kernel = torch.exp(-distances.clamp_min(0) / self.width) + 1
        maps = kernel @ self.coefficients
        return maps.clamp(0, 1).view(-1, 1, MASK_SIDE, MASK_SIDE)


def _choose_cases(groups: Tensor) -> Tensor:
    """Return bool N: all cases, or as many as the limit allows, of evenly spaced groups."""
    numbers, sizes = groups.unique(return_counts=True)
    if len(groups) <= MOST_CASES:
        return torch.ones(len(groups), dtype=torch.bool)
    count = max(1, int(MOST_CASES / float(sizes.max())))
    return torch.isin(groups, numbers[torch.linspace(0, len(numbers) - 1, count).long()])


def describe_images(images: Tensor) -> Tensor:
    """Shrink normalised images N x 1 x S x S to 32 x 32 pixels, float32 N x 1024.

    Each has zero mean and unit standard deviation.
    """
    pictures = shrink_maps(images, SIDE).flatten(1)
    centred = pictures - pictures.mean(1, keepdim=True)
    return centred / (pictures.std(1, keepdim=True) + JITTER)


def compute_squared_distances(first: Tensor, second: Tensor) -> Tensor:
    """Compute squared Euclidean distances float32 N x M between rows."""
    first, second = first.double(), second.double()  # in float32, short distances would be lost to rounding
    return (torch.cdist(first, second) ** 2).float()
