"""Where lungs lie in a picture that looks like this one: kernel ridge regression of the whole mask.

A Gaussian kernel compares the shrunken picture with every training picture, and the masks are regressed on it
(Saunders et al. 1998); a constant added to the kernel gives the regression its intercept. The prediction for
a training image without itself and its copies has a closed form (leave-one-group-out; Cawley and Talbot 2003
for a single case), so the next stage can learn from maps that never saw the image's mask.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lungseg.learning.vgg19.pyramid import shrink

SIDE = 32  # pixels of the shrunken picture
MASK_SIDE = 64  # pixels of the regressed mask
WIDTH = 4.0  # of the kernel: exp(-d^2 / (WIDTH m)), m the median squared distance between training pictures
PENALTY = 0.01
MOST_CASES = 8000  # its matrix has their square as its size: half a gigabyte
JITTER = 1e-6  # a picture of one grey value is described by zeros


class ShapePrior(nn.Module):
    """Normalised images N x 1 x S x S -> maps N x 1 x 64 x 64 in [0, 1]."""

    def __init__(self, cases: int = 0) -> None:
        """`cases`: training pictures, when a fitted one is to be read into it."""
        super().__init__()
        self.register_buffer("pictures", torch.zeros(cases, SIDE**2))
        self.register_buffer("coefficients", torch.zeros(cases, MASK_SIDE**2))
        self.register_buffer("width", torch.ones(()))

    def fit(self, pictures: Tensor, masks: Tensor, groups: Tensor) -> Tensor:
        """Fits, and predicts each case by a fit without its group.

        Args:
            pictures: what `describe` returns of N images.
            masks: float32 N x 1 x 64 x 64, shares of lung.
            groups: int N; the images of a patient and their changed copies share one. If there are more
                than 8000 cases, those of evenly spaced groups are fitted.

        Returns:
            float32 N x 1 x 64 x 64 in [0, 1]: the maps that no case's own group had part in.
        """
        chosen = _within_limit(groups)
        maps = torch.empty(len(pictures), 1, MASK_SIDE, MASK_SIDE)
        maps[chosen] = self._fit(pictures[chosen], masks[chosen], groups[chosen])
        if not chosen.all():
            maps[~chosen] = self.of_pictures(pictures[~chosen])
        return maps

    def _fit(self, pictures: Tensor, masks: Tensor, groups: Tensor) -> Tensor:
        targets = masks.flatten(1).double()
        distances = squared_distances(pictures, pictures).fill_diagonal_(0)
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
            # The residual of a block left out is the inverse of its block of the inverse, times its weights.
            block = inverse[members][:, members]
            held_out[members] = targets[members] - torch.linalg.solve(block, coefficients[members])
        self.pictures, self.coefficients = pictures, coefficients.float()
        return held_out.float().clamp(0, 1).view(-1, 1, MASK_SIDE, MASK_SIDE)

    def forward(self, images: Tensor) -> Tensor:
        return self.of_pictures(describe(images))

    def of_pictures(self, pictures: Tensor) -> Tensor:
        """Maps N x 1 x 64 x 64 in [0, 1] of what `describe` returned."""
        # Float32 is enough here: its error is a millionth of the width. In float64, as for the fit, this
        # took longer than all else that the prior does.
        lengths = [torch.linalg.vector_norm(each, dim=1) ** 2 for each in (pictures, self.pictures)]
        distances = lengths[0][:, None] + lengths[1] - 2 * (pictures @ self.pictures.T)
        kernel = torch.exp(-distances.clamp_min(0) / self.width) + 1
        maps = kernel @ self.coefficients
        return maps.clamp(0, 1).view(-1, 1, MASK_SIDE, MASK_SIDE)


def _within_limit(groups: Tensor) -> Tensor:
    """Bool N: all cases, or the most that the limit allows, of evenly spaced groups."""
    numbers, sizes = groups.unique(return_counts=True)
    if len(groups) <= MOST_CASES:
        return torch.ones(len(groups), dtype=torch.bool)
    count = max(1, int(MOST_CASES / float(sizes.max())))
    return torch.isin(groups, numbers[torch.linspace(0, len(numbers) - 1, count).long()])


def describe(images: Tensor) -> Tensor:
    """Normalised images N x 1 x S x S -> float32 N x 1024: 32 x 32 pixels, zero mean and unit deviation."""
    pictures = shrink(images, SIDE).flatten(1)
    centred = pictures - pictures.mean(1, keepdim=True)
    return centred / (pictures.std(1, keepdim=True) + JITTER)


def squared_distances(first: Tensor, second: Tensor) -> Tensor:
    """Squared Euclidean distances N x M between rows."""
    first, second = first.double(), second.double()  # as a sum of products float32 would lose the near ones
    return (torch.cdist(first, second) ** 2).float()
