"""How fast a network could be on a machine at most: its counted operations over measured matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.studies.ceilings import Ceilings
from benchmarks.studies.pixels.floor import floor_ms
from lungseg.learning.networks.convolutions import DenseConv2d
from lungseg.system.runtime import Runtime

SHARE = "floor / measured"


def operations(network: nn.Module, runtime: Runtime, batch: int, size: int, training: bool) -> int:
    """Floating-point operations of one pass, 2 for each multiply-add of convolutions and matrix products.

    Args:
        network: grey images N x 1 x H x W -> logits. It is of no other use afterwards.
        runtime: which convolutions leave out what meets padding alone depends on device and memory layout.
        batch: images.
        size: pixels a side.
        training: forward and backward, to the weights alone (an image has no gradient); else forward.
    """
    formulas = {torch.ops.aten.convolution_backward: backward_operations}
    counter = FlopCounterMode(display=False, custom_mapping=formulas)
    network = network.to(runtime.device, memory_format=runtime.memory_format).train(training)
    for module in network.modules():
        if type(module) is DenseConv2d:  # its products take in a border of zeros, which need not be
            module.__class__ = nn.Conv2d
    # Tensors without content: shapes are followed and nothing is computed.
    with FakeTensorMode(allow_non_fake_inputs=True):
        images = torch.empty((batch, 1, size, size), device=runtime.device)
        with torch.set_grad_enabled(training), counter, runtime.autocast():
            logits = network(images.contiguous(memory_format=runtime.memory_format))
            if training:
                logits.sum().backward()
    return counter.get_total_flops()


def backward_operations(
    gradient: Sequence[int],
    images: Sequence[int],
    weights: Sequence[int],
    bias: object,
    stride: object,
    padding: object,
    dilation: object,
    transposed: bool,
    output_padding: object,
    groups: int,
    wanted: Sequence[bool],
    **_: object,
) -> int:
    """Of the backward pass of a convolution that isn't transposed: the forward pass's for each gradient.

    torch's own formula takes the gradient of grouped weights for that of ungrouped ones, which counts a
    depthwise convolution as often as it has channels.

    Args:
        gradient: shape N x C x h x w of the gradient that comes in.
        weights: shape C x c x kh x kw, c being the channels of a group.
        wanted: whether the gradients of the images, the weights and the bias are asked for.
        (All others are what `torch.ops.aten.convolution_backward` is given, and not used.)
    """
    forward = 2 * gradient[0] * prod(gradient[2:]) * prod(weights)
    return forward * (bool(wanted[0]) + bool(wanted[1]))


def floor_cells(counted: int, images: int, ceilings: Ceilings) -> dict[str, float]:
    """The counted operations of a batch of so many images, and the time that they take at the ceiling."""
    floor = floor_ms(ceilings, counted)["operations ms"]
    return {"GFLOP": counted / 1e9, "floor ms": floor, "images/s at the floor": 1e3 * images / floor}


def share_cells(floor: float, measured: float) -> dict[str, Any]:
    """Which share of a measured time the floor is; both in milliseconds of a whole batch."""
    return {"floor ms": floor, SHARE: f"{floor / measured:.0%}"}
