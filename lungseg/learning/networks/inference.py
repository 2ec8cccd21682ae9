"""A trained network made ready to predict: batch norms folded away, compiled or recorded if that helps."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lungseg.learning.networks.settings import TrainingSettings
from lungseg.system.errors import first_line, is_out_of_memory
from lungseg.system.runtime import Runtime

FOLDING_ERROR = 1e-2  # of a logit, or as a share of the largest one; on a GPU float32 may be TF32
GRAPH_WARMUP = 3  # calls before CUDA records one, so that libraries have chosen their algorithms


class Predictor:
    """Logits of a network in evaluation mode, as fast as the device allows.

    Attributes:
        compile_seconds: what the first call with torch.compile took; None if there was none or it failed.
        not_compiled: why torch.compile failed, at whichever call; None if it didn't.
    """

    def __init__(
        self, network: nn.Module, settings: TrainingSettings, runtime: Runtime, plain: bool = False
    ) -> None:
        """`plain`: call the network as it is; for one that is still being trained."""
        self._settings, self._runtime = settings, runtime
        self._network = network if plain else _cast(_folded_if_equal(network, settings.size), runtime.dtype)
        self._call: Callable[[Tensor], Tensor] = self._network
        self._graphs = not plain and runtime.device.type == "cuda" and not runtime.compiled
        self._recorded: dict[torch.Size, _Recorded] = {}
        self.compile_seconds: float | None = None
        self.not_compiled: str | None = None
        self._compile: Callable[[Tensor], Tensor] | None = None
        if runtime.compiled and not plain:
            self._call = self._compiled

    @torch.inference_mode()
    def logits(self, images: Tensor, counted: bool = False) -> Tensor:
        """Float32 N x 1 x s x s of images N x 1 x s x s in [0, 1] on the device.

        Args:
            counted: operations are being counted, which are none where a graph is replayed.
        """
        forward = self._forward
        if counted:
            forward = self._uncompiled
        elif self._graphs and len(images) == 1:
            forward = self._replayed
        if self._settings.test_time == "none":
            return forward(images)
        count = len(images)
        both = forward(torch.cat([images, images.flip(-1)]))
        return (both[:count] + both[count:].flip(-1)) / 2

    def _forward(self, images: Tensor) -> Tensor:
        with self._runtime.autocast():
            return self._call(images.contiguous(memory_format=self._runtime.memory_format)).float()

    def _uncompiled(self, images: Tensor) -> Tensor:
        with self._runtime.autocast():
            return self._network(images.contiguous(memory_format=self._runtime.memory_format)).float()

    def _replayed(self, images: Tensor) -> Tensor:
        if images.shape not in self._recorded:
            try:
                self._recorded[images.shape] = _Recorded(self._forward, images)
            except RuntimeError as error:  # a network that waits for the device can't be recorded
                warnings.warn(f"no CUDA graph ({first_line(error)}): the network runs without", stacklevel=2)
                self._graphs = False
                return self._forward(images)
        return self._recorded[images.shape](images)

    def _compiled(self, images: Tensor) -> Tensor:
        """Compiles at the first call, and at a later one of another shape; goes on without if that fails."""
        start = time.perf_counter()
        try:
            self._compile = self._compile or torch.compile(self._network)
            found = self._compile(images)
        except Exception as error:  # its back end raises errors of many kinds
            if is_out_of_memory(error):
                raise
            self.not_compiled = first_line(error)
            warnings.warn(
                f"torch.compile failed ({self.not_compiled}): the network runs without it", stacklevel=2
            )
            self._call = self._network
            return self._network(images)
        if self.compile_seconds is None:
            self.compile_seconds = time.perf_counter() - start
        return found


def _folded_if_equal(network: nn.Module, size: int) -> nn.Module:
    """`folded`, unless that computes something else: a norm may not read what stands beside it alone."""
    whole, lighter = copy.deepcopy(network).eval(), folded(network)
    where = next(network.parameters()).device
    images = torch.rand((1, 1, size, size), generator=torch.Generator().manual_seed(0)).to(where)
    with torch.inference_mode():
        expected, found = whole(images).float(), lighter(images).float()
    apart = (found - expected).abs().max().item()
    if apart <= FOLDING_ERROR * max(1.0, expected.abs().max().item()):
        return lighter
    warnings.warn("batch norms of this network can't be folded: it runs with them", stacklevel=3)
    return whole


def _cast(network: nn.Module, precision: torch.dtype) -> nn.Module:
    """Its convolutions in a precision, in place: autocast would cast their weights anew at each call."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.to(precision)
    return network


class _Recorded:
    """A forward pass of one shape as a CUDA graph: one launch in place of hundreds."""

    def __init__(self, call: Callable[[Tensor], Tensor], images: Tensor) -> None:
        self._images = images.clone()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(GRAPH_WARMUP):
                call(self._images)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._logits = call(self._images)

    def __call__(self, images: Tensor) -> Tensor:
        self._images.copy_(images)
        self._graph.replay()
        return self._logits.clone()


def folded(network: nn.Module) -> nn.Module:
    """A copy in which each batch norm that follows a convolution is part of it, in evaluation mode.

    w' = w g / sqrt(v + eps), b' = (b - m) g / sqrt(v + eps) + beta. Found where a module holds both as
    neighbours (`nn.Sequential`) or as torchvision's ResNets name them: `conv1` and `bn1`, and so on.
    """
    network = copy.deepcopy(network).eval()
    for module in list(network.modules()):
        for first, second in _neighbours(module):
            norm = getattr(module, second)
            holder, name = _last(module, first)
            convolution = getattr(holder, name)
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(holder, name, fuse_conv_bn_eval(convolution, norm))
                setattr(module, second, nn.Identity())
    return network


def _neighbours(module: nn.Module) -> list[tuple[str, str]]:
    """Names of a module's own parts of which the second reads nothing but the first."""
    names = [name for name, _ in module.named_children()]
    if isinstance(module, nn.Sequential):
        return list(pairwise(names))
    norms = [(f"conv{name.removeprefix('bn')}", name) for name in names if name.startswith("bn")]
    return [pair for pair in norms if pair[0] in names]


def _last(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The part of that name, or where it ends if it is a sequence: who holds it, and under which name."""
    part = getattr(module, name)
    if isinstance(part, nn.Sequential) and len(part):
        return _last(part, list(dict(part.named_children()))[-1])
    return module, name
