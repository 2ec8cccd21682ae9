"""The exponential moving average (EMA) of a network's weights, which is validated and kept."""

from __future__ import annotations

import copy

import torch
from torch import nn


class WeightAverage:
    """Exponential moving average of a network's weights; batch norm's statistics are copied.

    The decay rises with the steps, min(decay, (1 + step) / (10 + step)), as in TensorFlow's average, so that
    the first weights do not hold back a short training.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).eval()  # holds the average
        self.steps = 0  # updates so far

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move the average towards the weights of the network."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        mine, theirs = list(self.network.parameters()), list(network.parameters())
        torch._foreach_lerp_(mine, theirs, 1 - decay)
        pairs = list(zip(self.network.buffers(), network.buffers(), strict=True))
        for dtype in {kept.dtype for kept, _ in pairs}:  # a GPU copies tensors of one dtype at once
            kept, new = zip(*(pair for pair in pairs if pair[0].dtype == dtype), strict=True)
            torch._foreach_copy_(kept, new)
