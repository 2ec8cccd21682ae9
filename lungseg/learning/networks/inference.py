"""Prediction by a trained network: batch norms folded into convolutions, torch.compile, CUDA graphs."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lungseg.learning.cuda_graphs import RecordedCalls
from lungseg.learning.networks.settings import TrainingSettings
from lungseg.system.errors import is_out_of_memory, summarise_error
from lungseg.system.runtime import Runtime, keep_float32_precision

FOLDING_ERROR = 1e-2  # of a logit, or as a share of the largest one


class Predictor:
    """A network in evaluation mode, made ready to predict as fast as the device allows.

    Attributes:
        compile_seconds: duration of the first call with torch.compile; None if there was none or it failed.
        not_compiled: why torch.compile failed, at whichever call; None if it didn't.
        folded: whether batch norms are folded into convolutions.
    """

    def __init__(
        self, network: nn.Module, settings: TrainingSettings, runtime: Runtime, plain: bool = False
    ) -> None:
        """Fold, cast and compile a copy of the network as the runtime asks for.

        `plain` calls the network as it is, because it is still being trained. Without `runtime.tuned` it is
        not folded, cast or recorded. Of the settings, `size` and `test_time` are read.
        """
        self._settings, self._runtime = settings, runtime
        self._network, self.folded = network, False
        if runtime.tuned and not plain:
            self._network, self.folded = _fold_norms_if_equal(network, settings.size)
            _cast_convolutions(self._network, runtime.dtype)
        compiled = runtime.compiled and not plain
        self._call: Callable[[Tensor], Tensor] = self._call_compiled if compiled else self._network
        graphs = runtime.tuned and not (plain or runtime.compiled) and runtime.device.type == "cuda"
        self._recorded = RecordedCalls(graphs, share_memory=True)
        self.compile_seconds: float | None = None
        self.not_compiled: str | None = None
        self._compile: Callable[[Tensor], Tensor] | None = None

    @property
    def graph(self) -> str:
        """Return whether the last prediction "replayed" a CUDA graph, as `RecordedCalls.describe` has it."""
        return self._recorded.describe()

    def drop_graphs(self) -> None:
        """Drop the recorded graphs with their memory."""
        self._recorded.drop()

    @torch.inference_mode()
    def predict_logits(self, images: Tensor, counted: bool = False) -> Tensor:
        """Predict logits float32 N x 1 x s x s of images N x 1 x s x s in [0, 1], on the device.

        While operations are `counted`, neither compiled code nor a recorded graph is used.
        """
        forward = partial(self._forward, counted=counted)
        if self._recorded.enabled and not counted:
            forward = self._replay
        if self._settings.test_time == "none":
            return forward(images)
        count = len(images)
        both = forward(torch.cat([images, images.flip(-1)]))
        return (both[:count] + both[count:].flip(-1)) / 2

    def _forward(self, images: Tensor, counted: bool = False) -> Tensor:
        call = self._network if counted else self._call
        with self._runtime.autocast():
            return call(images.contiguous(memory_format=self._runtime.memory_format)).float()

    def _replay(self, images: Tensor) -> Tensor:
        return self._recorded.run("network", self._forward, images, last=True)

    def _call_compiled(self, images: Tensor) -> Tensor:
        """Call the compiled network; torch compiles once per shape. If that fails, go on without."""
        start = time.perf_counter()
        try:
            self._compile = self._compile or torch.compile(self._network)
            found = self._compile(images)
        except Exception as error:  # its back end raises errors of many kinds
            if is_out_of_memory(error):
                raise
            self.not_compiled = summarise_error(error)
            warnings.warn(
                f"torch.compile failed ({self.not_compiled}): the network runs without it", stacklevel=2
            )
            self._call = self._network
            return self._network(images)
        if self.compile_seconds is None:
            self.compile_seconds = time.perf_counter() - start
        return found


def _fold_norms_if_equal(network: nn.Module, size: int) -> tuple[nn.Module, bool]:
    """Fold norms, unless the result differs: a norm may read more than the convolution before it.

    Both are compared in full float32, because TF32 on a GPU would hide a difference, or be one. Returns the
    network and whether it is folded.
    """
    whole, lighter = copy.deepcopy(network).eval(), fold_norms(network)
    where = next(network.parameters()).device
    images = torch.rand((1, 1, size, size), generator=torch.Generator().manual_seed(0)).to(where)
    with torch.inference_mode(), keep_float32_precision():
        torch.backends.cudnn.conv.fp32_precision = "ieee"
        torch.backends.cuda.matmul.fp32_precision = "ieee"
        expected, found = whole(images).float(), lighter(images).float()
    apart = (found - expected).abs().max().item()
    if apart <= FOLDING_ERROR * max(1.0, expected.abs().max().item()):
        return lighter, True
    warnings.warn("batch norms of this network can't be folded: it runs with them", stacklevel=3)
    return whole, False


def _cast_convolutions(network: nn.Module, precision: torch.dtype) -> None:
    """Cast the convolutions, in place: autocast would cast their weights anew at each call."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.to(precision)


def fold_norms(network: nn.Module) -> nn.Module:
    """Return a copy, in evaluation mode, in which batch norms are folded into the convolutions before them.

    w' = w g / sqrt(v + eps), b' = (b - m) g / sqrt(v + eps) + beta. A norm belongs to a convolution if both
    are neighbours in an `nn.Sequential`, or have the names that torchvision's ResNets use: `conv1` and `bn1`,
    and so on.
    """
    network = copy.deepcopy(network).eval()
    for module in list(network.modules()):
        for first, second in _list_neighbours(module):
            norm = getattr(module, second)
            holder, name = _find_last(module, first)
            convolution = getattr(holder, name)
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(holder, name, fuse_conv_bn_eval(convolution, norm))
                setattr(module, second, nn.Identity())
    return network


def _list_neighbours(module: nn.Module) -> list[tuple[str, str]]:
    """List the pairs of children of which the second seems to read only the first, by their names."""
    names = [name for name, _ in module.named_children()]
    if isinstance(module, nn.Sequential):
        return list(pairwise(names))
    norms = [(f"conv{name.removeprefix('bn')}", name) for name in names if name.startswith("bn")]
    return [pair for pair in norms if pair[0] in names]


def _find_last(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Find the child of a name, or the last module in it if it is a sequence: its parent and its name."""
    child = getattr(module, name)
    if isinstance(child, nn.Sequential) and len(child):
        return _find_last(child, list(dict(child.named_children()))[-1])
    return module, name
