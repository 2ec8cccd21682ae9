"""Convolutions computed as matrix products, where that is faster: on a CPU, with channels-last images.

On a CPU torch's convolutions are oneDNN's. Three cases are slower there than matrix products:

- the gradient of the weights of a 1 x 1 convolution;
- on large maps in float32, the gradient of the weights of a 3 x 3 convolution (measured with AVX2; bfloat16
  was not measured and is left to oneDNN);
- a dilated convolution on a small map, most of whose taps meet only padding.

On a GPU, or if images are stored channel by channel, torch's own convolution is called. There too, taps that
meet only padding are left out.
"""

from __future__ import annotations

from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

# With a dilation below this share of the map's side, the taps meet the image nearly everywhere and oneDNN's
# own convolution is faster.
LEAST_DILATION = 1 / 4
# On smaller maps (pixels a side) or with fewer channels, oneDNN's gradient of a 3 x 3 convolution's weights
# is faster, since the border is a larger share of the work.
LEAST_SIDE, LEAST_CHANNELS = 16, 48


def use_matrix_products(network: nn.Module) -> None:
    """Turn convolutions into PointwiseConv2d, DenseConv2d or AtrousConv2d where that gains, in place."""
    for module in network.modules():
        plain = type(module) is nn.Conv2d and module.groups == 1 and module.stride == (1, 1)
        if not plain or module.padding_mode != "zeros":
            continue
        if module.kernel_size == (1, 1) and module.padding == (0, 0):
            module.__class__ = PointwiseConv2d
        elif module.kernel_size == (3, 3) and module.padding == module.dilation:
            module.__class__ = DenseConv2d if module.dilation == (1, 1) else AtrousConv2d


class PointwiseConv2d(nn.Conv2d):
    """A 1 x 1 convolution of stride 1, without padding or groups."""

    def forward(self, x: Tensor) -> Tensor:
        if not _is_for_products(x):
            return super().forward(x)
        count, _, height, width = x.shape
        found = functional.linear(_as_rows(_pixels(x)), self.weight.flatten(1), self.bias)
        return found.view(count, height, width, -1).permute(0, 3, 1, 2)


class DenseConv2d(nn.Conv2d):
    """A 3 x 3 convolution of stride 1 and padding 1, without groups or dilation."""

    def forward(self, x: Tensor) -> Tensor:
        if self._gains(x) and torch.is_grad_enabled() and self.weight.requires_grad:
            return _ConvolutionWithFastWeightGradient.apply(x, self.weight, self.bias)
        return super().forward(x)

    def _gains(self, x: Tensor) -> bool:
        large = min(x.shape[-2:]) >= LEAST_SIDE and min(self.weight.shape[:2]) >= LEAST_CHANNELS
        full = x.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled(x.device.type)
        return large and full and _is_for_products(x)


class AtrousConv2d(nn.Conv2d):
    """A dilated 3 x 3 convolution of stride 1 that keeps the size, without taps that meet only padding.

    On a map no higher than the dilation, the upper and lower row of the kernel always lie outside the map. On
    a map no wider, the outer columns do. They would add zeros, so leaving them out gives the same maps and
    gradients for less work. (Images of 192 px have maps of 12 and rates up to 18.)
    """

    def forward(self, x: Tensor) -> Tensor:
        is_wide = min(self.dilation) >= LEAST_DILATION * max(x.shape[-2:])
        if is_wide and self.groups == 1 and _is_for_products(x):
            if torch.is_autocast_enabled(x.device.type):
                x = x.to(torch.get_autocast_dtype(x.device.type))
            return _DilatedConvolution.apply(x, self.weight, self.bias, self.dilation)
        inside = [side > rate for side, rate in zip(x.shape[-2:], self.dilation, strict=True)]
        if all(inside):
            return super().forward(x)
        rows, columns = (slice(None) if each else slice(1, 2) for each in inside)
        padding = [rate if each else 0 for rate, each in zip(self.dilation, inside, strict=True)]
        weight = self.weight[:, :, rows, columns]
        return functional.conv2d(x, weight, self.bias, 1, padding, self.dilation, self.groups)


class _Tap(NamedTuple):
    """A weight of the kernel: its row and column, and the rows and columns that it writes and reads."""

    row: int
    column: int
    written: tuple[slice, slice]
    read: tuple[slice, slice]


class _ConvolutionWithFastWeightGradient(torch.autograd.Function):
    """torch's 3 x 3 convolution, with the gradient of its weights computed as a matrix product per tap.

    The pixels of all images stand in one long row, with a border of zeros around each map. What a tap reads
    is then that row moved by a constant, so no tap needs a copy of its own.
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
        return of_x, _compute_weight_gradient(x, gradient), of_bias


def _compute_weight_gradient(x: Tensor, gradient: Tensor) -> Tensor:
    """Compute C' x C x 3 x 3 from a 3 x 3 convolution's input and its output's gradient, channels last."""
    padded = [functional.pad(_pixels(maps), (0, 0, 1, 1, 1, 1)) for maps in (x, gradient)]
    row = padded[0].shape[2]
    inputs, outputs = map(_as_rows, padded)
    edge = row + 1  # the border of the first and of the last image
    met = outputs[edge:-edge].T
    found = x.new_empty((outputs.shape[1], 3, 3, inputs.shape[1]))
    for i, j in product(range(3), range(3)):
        start = i * row + j
        found[:, i, j] = met @ inputs[start : start + met.shape[1]]
    return found.permute(0, 3, 1, 2)


class _DilatedConvolution(torch.autograd.Function):
    """A dilated 3 x 3 convolution as a sum of matrix products: one per tap, of the pixels that it reads.

    Sums are taken in float32 at least: nine roundings to bfloat16 would add up.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, dilation: tuple[int, int]
    ) -> Tensor:
        taps = _list_taps(x.shape[-2:], dilation)
        pixels = _pixels(x)
        matrices = [weight[:, :, tap.row, tap.column].to(x.dtype) for tap in taps]
        total = x.new_zeros((*pixels.shape[:3], len(weight)), dtype=_sum_type(x))
        if bias is not None:
            total += bias
        for tap, matrix in zip(taps, matrices, strict=True):
            met = total[:, *tap.written]
            met += functional.linear(_as_rows(pixels[:, *tap.read]), matrix).view(met.shape)
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
            above, below = _as_rows(gradients[:, *tap.written]), pixels[:, *tap.read]
            met = of_x[:, *tap.read]
            met += (above @ matrix).view(met.shape)
            of_weight[:, tap.row, tap.column] = above.T @ _as_rows(below)
        of_bias = gradient.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None
        return of_x.to(x.dtype).permute(0, 3, 1, 2), of_weight.permute(0, 3, 1, 2), of_bias, None


def _list_taps(sides: tuple[int, int], dilation: tuple[int, int]) -> list[_Tap]:
    """List the taps that read the image anywhere."""
    rows, columns = (_list_spans(side, rate) for side, rate in zip(sides, dilation, strict=True))
    return [_Tap(i, j, (a, c), (b, d)) for (i, a, b), (j, c, d) in product(rows, columns)]


def _list_spans(side: int, rate: int) -> list[tuple[int, slice, slice]]:
    """List a kernel's rows (or columns), each with the part of the map that it writes and that it reads."""
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
    """Return N x H x W x C of N x C x H x W, without a copy if that is stored channels last."""
    return maps.permute(0, 2, 3, 1)


def _as_rows(pixels: Tensor) -> Tensor:
    """Return a row for each pixel."""
    return pixels.reshape(-1, pixels.shape[-1])
