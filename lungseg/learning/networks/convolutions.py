"""Convolutions as matrix products, where these are the faster way: on a CPU, of images stored channels last.

oneDNN computes the gradient of a 1 x 1 convolution's weights more slowly than the same matrix product, on
large maps in float32 also that of a 3 x 3 convolution's (seen with AVX2; in bfloat16 it wasn't measured and
is left to oneDNN), and a dilated convolution on a small map as if its taps met the image everywhere. On a GPU
or with images stored channel by channel, torch's own convolution is called, without the taps that meet
padding alone.
"""

from __future__ import annotations

from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

# Below this share of the map's side a dilated convolution's taps meet the image nearly everywhere, and
# oneDNN's own convolution is the faster one.
LEAST_DILATION = 1 / 4
# On smaller maps (pixels a side) or with fewer channels oneDNN's gradient of a 3 x 3 convolution's weights is
# the faster one: the border takes a larger share of the work.
LEAST_SIDE, LEAST_CHANNELS = 16, 48


def use_products(network: nn.Module) -> None:
    """Makes convolutions that gain PointwiseConv2d, DenseConv2d or AtrousConv2d, in place; weights stay."""
    for module in network.modules():
        if type(module) is not nn.Conv2d or module.groups > 1 or module.stride != (1, 1):
            continue
        if module.padding_mode != "zeros":
            continue
        if module.kernel_size == (1, 1) and module.padding == (0, 0):
            module.__class__ = PointwiseConv2d
        elif module.kernel_size == (3, 3) and module.padding == module.dilation:
            module.__class__ = DenseConv2d if module.dilation == (1, 1) else AtrousConv2d


class PointwiseConv2d(nn.Conv2d):
    """A 1 x 1 convolution of stride 1, without padding or groups."""

    def forward(self, x: Tensor) -> Tensor:
        """N x C' x H x W of N x C x H x W."""
        if not _is_for_products(x):
            return super().forward(x)
        count, _, height, width = x.shape
        found = functional.linear(_as_rows(_pixels(x)), self.weight.flatten(1), self.bias)
        return found.view(count, height, width, -1).permute(0, 3, 1, 2)


class DenseConv2d(nn.Conv2d):
    """A 3 x 3 convolution of stride 1 and padding 1, without groups or dilation."""

    def forward(self, x: Tensor) -> Tensor:
        """N x C' x H x W of N x C x H x W."""
        if self._gains(x) and torch.is_grad_enabled() and self.weight.requires_grad:
            return _WeightsTapByTap.apply(x, self.weight, self.bias)
        return super().forward(x)

    def _gains(self, x: Tensor) -> bool:
        large = min(x.shape[-2:]) >= LEAST_SIDE and min(self.weight.shape[:2]) >= LEAST_CHANNELS
        full = x.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled(x.device.type)
        return large and full and _is_for_products(x)


class AtrousConv2d(nn.Conv2d):
    """A dilated 3 x 3 convolution of stride 1 that keeps the size, without taps that meet padding alone.

    On a map no higher than the dilation the upper and the lower row of the kernel lie outside wherever the
    middle one is, and so do the outer columns on one no wider. What they would add is zero: leaving them out
    gives the same maps and gradients for less work. (Images of 192 px have maps of 12 and rates up to 18.)
    """

    def forward(self, x: Tensor) -> Tensor:
        """N x C' x H x W of N x C x H x W."""
        reach = min(self.dilation) >= LEAST_DILATION * max(x.shape[-2:])
        if reach and self.groups == 1 and _is_for_products(x):
            if torch.is_autocast_enabled(x.device.type):
                x = x.to(torch.get_autocast_dtype(x.device.type))
            return _TapByTap.apply(x, self.weight, self.bias, self.dilation)
        reaches = [side > rate for side, rate in zip(x.shape[-2:], self.dilation, strict=True)]
        if all(reaches):
            return super().forward(x)
        rows, columns = (slice(None) if reach else slice(1, 2) for reach in reaches)
        padding = [rate if reach else 0 for rate, reach in zip(self.dilation, reaches, strict=True)]
        weight = self.weight[:, :, rows, columns]
        return functional.conv2d(x, weight, self.bias, 1, padding, self.dilation, self.groups)


class _Tap(NamedTuple):
    """A weight of the kernel: its row and column, what it adds to, and what it reads for that."""

    row: int
    column: int
    to: tuple[slice, slice]
    of: tuple[slice, slice]


class _WeightsTapByTap(torch.autograd.Function):
    """torch's 3 x 3 convolution, the gradient of whose weights is a matrix product for each tap.

    With a border of zeros around each map, what a tap meets is the whole row of pixels of all images, moved
    by a constant: no tap needs a copy of its own.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return functional.conv2d(x, weight, bias, padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None]:
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_x = None
        if ctx.needs_input_grad[0]:
            one = (1, 1)
            of_x, _, _ = torch.ops.aten.convolution_backward(
                gradient, x, weight, None, one, one, one, False, (0, 0), 1, (True, False, False)
            )
        of_bias = gradient.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None
        return of_x, _of_weight(x, gradient), of_bias


def _of_weight(x: Tensor, gradient: Tensor) -> Tensor:
    """C' x C x 3 x 3, of what a 3 x 3 convolution has read and of its output's gradient, channels last."""
    inputs, outputs = (functional.pad(_pixels(maps), (0, 0, 1, 1, 1, 1)) for maps in (x, gradient))
    row = inputs.shape[2]
    inputs, outputs = _as_rows(inputs), _as_rows(outputs)
    edge = row + 1  # of the first and the last image: nothing but border
    met = outputs[edge:-edge].T
    found = x.new_empty((outputs.shape[1], 3, 3, inputs.shape[1]))
    for i, j in product(range(3), range(3)):
        start = i * row + j
        found[:, i, j] = met @ inputs[start : start + met.shape[1]]
    return found.permute(0, 3, 1, 2)


class _TapByTap(torch.autograd.Function):
    """A dilated 3 x 3 convolution as a sum of matrix products: one for each tap, of the pixels it meets.

    Sums are taken in float32 at least: nine roundings to bfloat16 would add up.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, dilation: tuple[int, int]
    ) -> Tensor:
        taps = _taps(x.shape[-2:], dilation)
        pixels = _pixels(x)
        matrices = [weight[:, :, tap.row, tap.column].to(x.dtype) for tap in taps]
        total = x.new_zeros((*pixels.shape[:3], len(weight)), dtype=_sum_type(x))
        if bias is not None:
            total += bias
        for tap, matrix in zip(taps, matrices, strict=True):
            met = total[:, *tap.to]
            met += functional.linear(_as_rows(pixels[:, *tap.of]), matrix).view(met.shape)
        ctx.save_for_backward(x, *matrices)
        ctx.taps, ctx.weight_type = taps, weight.dtype
        return total.to(x.dtype).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        x, *matrices = ctx.saved_tensors
        pixels, gradients = _pixels(x), _pixels(gradient)
        of_x = torch.zeros_like(pixels, dtype=_sum_type(x))
        outputs, inputs = matrices[0].shape
        of_weight = x.new_zeros((outputs, 3, 3, inputs), dtype=ctx.weight_type)
        for tap, matrix in zip(ctx.taps, matrices, strict=True):
            above, below = _as_rows(gradients[:, *tap.to]), pixels[:, *tap.of]
            met = of_x[:, *tap.of]
            met += (above @ matrix).view(met.shape)
            of_weight[:, tap.row, tap.column] = above.T @ _as_rows(below)
        of_bias = gradient.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None
        return of_x.to(x.dtype).permute(0, 3, 1, 2), of_weight.permute(0, 3, 1, 2), of_bias, None


def _taps(sides: tuple[int, int], dilation: tuple[int, int]) -> list[_Tap]:
    """Those that meet the image anywhere."""
    rows, columns = (_spans(side, rate) for side, rate in zip(sides, dilation, strict=True))
    return [_Tap(i, j, (a, c), (b, d)) for (i, a, b), (j, c, d) in product(rows, columns)]


def _spans(side: int, rate: int) -> list[tuple[int, slice, slice]]:
    """Rows of a kernel, or columns, with the part of the map that each adds to, and that which it reads."""
    whole = slice(0, side)
    if rate >= side:
        return [(1, whole, whole)]
    late, early = slice(rate, side), slice(0, side - rate)
    return [(0, late, early), (1, whole, whole), (2, early, late)]


def _sum_type(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _is_for_products(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last)


def _pixels(maps: Tensor) -> Tensor:
    """N x H x W x C of N x C x H x W, without a copy where that is stored channels last."""
    return maps.permute(0, 2, 3, 1)


def _as_rows(pixels: Tensor) -> Tensor:
    """A row for each pixel."""
    return pixels.reshape(-1, pixels.shape[-1])
