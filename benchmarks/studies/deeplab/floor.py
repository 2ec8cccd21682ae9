"""Computes how fast a network can be at most: its counted operations at the speed of matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.studies.ceilings import Ceilings
from benchmarks.studies.pixels.floor import compute_floor_ms
from lungseg.learning.networks.convolutions import DenseConv2d
from lungseg.system.runtime import Runtime

SHARE = "floor / measured"


def count_operations(network: nn.Module, runtime: Runtime, batch: int, size: int, training: bool) -> int:
    """Count floating-point operations of a pass: 2 for each multiply-add of convolutions and matrix products.

    Args:
        network: grey images N x 1 x H x W -> logits. It is changed: don't use it afterwards.
        runtime: device and memory layout decide which convolutions leave out taps that meet only padding.
        batch: images.
        size: pixels a side.
        training: count forward and backward passes, with gradients of weights but not of images; else the
            forward pass alone.
    """
    formulas = {torch.ops.aten.convolution_backward: count_backward_operations}
    counter = FlopCounterMode(display=False, custom_mapping=formulas)
    network = network.to(runtime.device, memory_format=runtime.memory_format).train(training)
    for module in network.modules():
        if type(module) is DenseConv2d:  # its products include a border of zeros that isn't necessary
            module.__class__ = nn.Conv2d
    # Fake tensors have shapes and no content: nothing is computed.
    with FakeTensorMode(allow_non_fake_inputs=True):
        images = torch.empty((batch, 1, size, size), device=runtime.device)
        with torch.set_grad_enabled(training), counter, runtime.autocast():
            logits = network(images.contiguous(memory_format=runtime.memory_format))
            if training:
                logits.sum().backward()
    return counter.get_total_flops()


def count_backward_operations(
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
    """Count operations of the backward pass of a convolution: those of the forward pass for each gradient.

    torch's own formula treats grouped weights as ungrouped: it counts a depthwise convolution as many times
    as it has channels. Transposed convolutions are not supported.

    Args:
        gradient: shape N x C x h x w of the output's gradient.
        weights: shape C x c x kh x kw, c being the channels of a group.
        wanted: whether the gradients of the images, the weights and the bias are computed.
        (All others are arguments of `torch.ops.aten.convolution_backward` that aren't used.)
    """
    forward = 2 * gradient[0] * prod(gradient[2:]) * prod(weights)
    return forward * (bool(wanted[0]) + bool(wanted[1]))


def compute_floor(counted: int, images: int, ceilings: Ceilings) -> dict[str, float]:
    """Return table cells: the counted operations of a batch, and the time that they take at the ceiling."""
    floor = compute_floor_ms(ceilings, counted)["operations ms"]
    return {"GFLOP": counted / 1e9, "floor ms": floor, "images/s at the floor": 1e3 * images / floor}


def compute_share(floor: float, measured: float) -> dict[str, Any]:
    """Return table cells: the floor, and which share of a measured time it is; both in ms of a batch."""
    return {"floor ms": floor, SHARE: f"{floor / measured:.0%}"}
