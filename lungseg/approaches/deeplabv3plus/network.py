"""DeepLabV3+ on torchvision's ResNet50: one channel in, one logit a pixel out.

Chen et al., "Encoder-decoder with atrous separable convolution for semantic image segmentation", ECCV 2018
(https://arxiv.org/abs/1802.02611). Three topologies:

- "standard": the paper's. Atrous spatial pyramid pooling (ASPP) on `layer4`, low-level branch on `layer1`.
- "smp": that of the library segmentation_models_pytorch, so that its weights can be read by `from_smp`: a
  separable convolution between ASPP and the upsampling, bilinear upsampling with aligned corners, and
  dilated stages in which the first block is dilated as much as the others (torchvision's gets the rate of
  the stage before).
- "seed": a smaller one, known from Keras, which ends inside ResNet50's last blocks of `layer3` and `layer1`,
  after the ReLU of their second convolution: 256 and 64 channels, and no `layer4`. (Keras' ResNet50 has its
  strides on 1 x 1 convolutions, torchvision's on 3 x 3.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import resnet50
from torchvision.models.resnet import Bottleneck

from lungseg.learning.networks.convolutions import AtrousConv2d, use_products
from lungseg.system.errors import InputError
from lungseg.system.plugins import Settings

# What torchvision's ImageNet weights were trained on, RGB in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CHANNELS = 256
LOW_LEVEL_CHANNELS = 48


@dataclass(frozen=True)
class Topology:
    """What a topology fixes, and its values for the settings that are left out."""

    high_channels: int
    low_channels: int
    separable: bool
    rates: dict[int, tuple[int, int, int]]  # by output stride
    dropout: float
    decoder_convolutions: int
    aligned_corners: bool = False


# At stride 8 the paper doubles the rates, so that they span the same part of the image; smp doesn't.
_PAPER_RATES = {16: (6, 12, 18), 8: (12, 24, 36)}
TOPOLOGIES = {
    "standard": Topology(2048, 256, False, _PAPER_RATES, dropout=0.1, decoder_convolutions=2),
    "smp": Topology(2048, 256, True, dict.fromkeys((16, 8), (12, 24, 36)), 0.5, 1, aligned_corners=True),
    "seed": Topology(256, 64, False, _PAPER_RATES, dropout=0.0, decoder_convolutions=2),
}


class NetworkSettings(Settings):
    """The network's keys in a spec. None stands for the topology's own value.

    Attributes:
        topology: see the module's docstring.
        output_stride: pixels of the image that a cell of the deepest features stands for; 8 is slower.
        separable: depthwise separable instead of plain 3 x 3 convolutions in ASPP and decoder.
            By default only "smp" has them.
        rates: dilation of the three 3 x 3 branches of ASPP, in cells of the deepest feature map. 6, 12, 18 at
            stride 16 and 12, 24, 36 at stride 8; "smp" 12, 24, 36 at both.
        dropout: share of ASPP's outputs set to zero in training. 0.1, 0.5 ("smp"), none ("seed").
        decoder_convolutions: 3 x 3 convolutions after the low-level branch joins. 2; 1 ("smp").
    """

    topology: Literal["standard", "smp", "seed"] = "standard"
    output_stride: Literal[8, 16] = 16
    separable: bool | None = None
    rates: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None
    dropout: float | None = Field(None, ge=0, lt=1)
    decoder_convolutions: PositiveInt | None = None


class DeepLabV3Plus(nn.Module):
    """The network. Random until `load_backbone` or `load_state_dict` fills it.

    The head's convolutions start from He's normal initialisation (fan-in, ReLU), its batch norms from the
    identity, the logit near zero (sd 0.01); the backbone as torchvision starts it. All is drawn from torch's
    default generator, so `torch.manual_seed` before the constructor fixes it.
    """

    def __init__(self, settings: NetworkSettings | None = None) -> None:
        super().__init__()
        settings = settings or NetworkSettings()
        topology = TOPOLOGIES[settings.topology]
        separable = topology.separable if settings.separable is None else settings.separable
        dropout = topology.dropout if settings.dropout is None else settings.dropout
        rates = settings.rates or topology.rates[settings.output_stride]
        convolutions = settings.decoder_convolutions or topology.decoder_convolutions
        self.output_stride = settings.output_stride
        self.aligned_corners = topology.aligned_corners

        self.backbone = Backbone(settings.topology, settings.output_stride)
        self.aspp = ASPP(topology.high_channels, rates, separable, dropout)
        smp = settings.topology == "smp"
        self.after_aspp = conv_block(CHANNELS, CHANNELS, 3, separable=True) if smp else nn.Identity()
        self.low_level = conv_block(topology.low_channels, LOW_LEVEL_CHANNELS, 1)
        widths = [CHANNELS + LOW_LEVEL_CHANNELS, *[CHANNELS] * convolutions]
        blocks = [conv_block(a, b, 3, separable=separable) for a, b in pairwise(widths)]
        self.decoder = nn.Sequential(*blocks)
        self.logit = nn.Conv2d(CHANNELS, 1, 1)
        for module in (self.aspp, self.after_aspp, self.low_level, self.decoder):
            module.apply(_initialise)
        use_products(self)
        nn.init.normal_(self.logit.weight, std=0.01)
        nn.init.zeros_(self.logit.bias)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, float32 N x 1 x H x W, of grey images N x 1 x H x W in [0, 1]; a positive one means lung.

        Any H and W: to a multiple of the output stride, the last row and column are repeated, and the
        logits of what was added are cut off. (Stretching the maps instead would displace them.)
        """
        height, width = images.shape[-2:]
        missing = (0, -width % self.output_stride, 0, -height % self.output_stride)
        images = functional.pad(images, missing, mode="replicate")
        low, high = self.backbone((images - self.mean) / self.std)
        high = self._resize(self.after_aspp(self.aspp(high)), low.shape[-2:])
        features = self.decoder(torch.cat([high, self.low_level(low)], dim=1))
        # A 1 x 1 convolution and bilinear resizing commute; this order is sixteen times cheaper.
        return self._resize(self.logit(features).float(), images.shape[-2:])[..., :height, :width]

    def _resize(self, maps: Tensor, size: torch.Size) -> Tensor:
        return functional.interpolate(maps, size, mode="bilinear", align_corners=self.aligned_corners)


class Backbone(nn.Module):
    """ResNet50 without its classifier, under torchvision's names; returns low- and high-level features."""

    def __init__(self, topology: str, output_stride: int) -> None:
        super().__init__()
        net = resnet50(weights=None, replace_stride_with_dilation=[False, output_stride == 8, True])
        self.inside = topology == "seed"
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2, self.layer3 = net.layer1, net.layer2, net.layer3
        if self.inside:
            # Weights that nothing uses would be counted, stored and, in distributed training, waited for.
            del self.layer3[-1].conv3, self.layer3[-1].bn3
        else:
            self.layer4 = net.layer4
        if topology == "smp":
            for layer in (self.layer3, self.layer4):
                layer[0].conv2.dilation = layer[0].conv2.padding = layer[1].conv2.dilation

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features at stride 4 and at the output stride, of normalised N x 3 x H x W images."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        if not self.inside:
            low = self.layer1(x)
            return low, self.layer4(self.layer3(self.layer2(low)))
        x = self.layer1[:-1](x)
        low = _first_half(self.layer1[-1], x)
        x = self.layer3[:-1](self.layer2(_second_half(self.layer1[-1], low, x)))
        return low, _first_half(self.layer3[-1], x)


def _first_half(block: Bottleneck, x: Tensor) -> Tensor:
    """Up to the ReLU of the second convolution."""
    x = block.relu(block.bn1(block.conv1(x)))
    return block.relu(block.bn2(block.conv2(x)))


def _second_half(block: Bottleneck, inside: Tensor, x: Tensor) -> Tensor:
    return block.relu(block.bn3(block.conv3(inside)) + x)


class ASPP(nn.Module):
    """One 1 x 1 and three dilated 3 x 3 convolutions beside image pooling, joined by a 1 x 1 convolution."""

    def __init__(self, channels: int, rates: tuple[int, int, int], separable: bool, dropout: float) -> None:
        super().__init__()
        dilated = [conv_block(channels, CHANNELS, 3, rate, separable) for rate in rates]
        self.branches = nn.ModuleList([conv_block(channels, CHANNELS, 1), *dilated])
        self.pooling = conv_block(channels, CHANNELS, 1)
        self.project = nn.Sequential(*conv_block(5 * CHANNELS, CHANNELS, 1), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        maps = [branch(x) for branch in self.branches]
        pooled = self._pool(x).expand(-1, -1, *x.shape[-2:])
        return self.project(torch.cat([*maps, pooled], dim=1))

    def _pool(self, x: Tensor) -> Tensor:
        x = x.mean(dim=(2, 3), keepdim=True)
        # A norm that is shared by several processes has the others' images too, and they wait for this one.
        if not self.training or len(x) > 1 or isinstance(self.pooling[1], nn.SyncBatchNorm):
            return self.pooling(x)
        # One image pooled to one value has no variance: batch norm takes its running statistics instead.
        # Training shouldn't count on it: leave out a last batch of one.
        convolution, norm, relu = self.pooling
        x = convolution(x)
        moments = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        return relu(functional.batch_norm(x, *moments, training=False, eps=norm.eps))


def conv_block(
    inputs: int, outputs: int, kernel: int, dilation: int = 1, separable: bool = False
) -> nn.Sequential:
    """Convolution of stride 1 that keeps the size, batch norm, ReLU.

    A separable one is a depthwise followed by a 1 x 1 convolution, with nothing in between.
    """
    same = {"padding": dilation * (kernel // 2), "dilation": dilation, "bias": False}
    Convolution = AtrousConv2d if dilation > 1 else nn.Conv2d
    if separable:
        depthwise = Convolution(inputs, inputs, kernel, groups=inputs, **same)
        convolution = nn.Sequential(depthwise, nn.Conv2d(inputs, outputs, 1, bias=False))
    else:
        convolution = Convolution(inputs, outputs, kernel, **same)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")


class ParameterGroups(NamedTuple):
    """The pretrained and the new parameters, which are often trained at different rates."""

    backbone: list[nn.Parameter]
    head: list[nn.Parameter]


def parameter_groups(network: DeepLabV3Plus) -> ParameterGroups:
    """Every parameter of the network, once: ResNet50's, and all the others'."""
    head = [value for name, value in network.named_parameters() if not name.startswith("backbone.")]
    return ParameterGroups(list(network.backbone.parameters()), head)


def backbone_shapes(network: DeepLabV3Plus) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights that `load_backbone` needs, by torchvision's names in resnet50."""
    state = network.backbone.state_dict()
    return {name: tuple(value.shape) for name, value in state.items() if "num_batches" not in name}


def load_backbone(network: DeepLabV3Plus, state_dict: Mapping[str, Tensor]) -> None:
    """Copies weights of torchvision's resnet50 into the backbone, in place.

    Args:
        network: any topology; what it lacks (the classifier, for "seed" also `layer4`) is left out.
        state_dict: torchvision's names; floating type and device may differ from the network's.

    Raises:
        InputError: a weight is missing, has another shape, or isn't one of resnet50's: another network's.
    """
    with torch.device("meta"):
        known = resnet50(weights=None).state_dict()
    shapes = backbone_shapes(network)
    wrong = [name for name, shape in shapes.items() if getattr(state_dict.get(name), "shape", None) != shape]
    wrong += sorted(set(state_dict) - set(known))
    if wrong:
        raise InputError(
            f"the weights aren't resnet50's ({wrong[0]} is missing, unknown or of another shape): "
            "give those of torchvision's resnet50"
        )
    wanted = network.backbone.state_dict()
    network.backbone.load_state_dict({name: state_dict.get(name, wanted[name]) for name in wanted})


# Prefixes in segmentation_models_pytorch and here, the more specific ones first.
_SMP_PREFIXES = {
    "encoder.": "backbone.",
    "decoder.aspp.0.convs.4.1.": "aspp.pooling.0.",
    "decoder.aspp.0.convs.4.2.": "aspp.pooling.1.",
    "decoder.aspp.0.convs.": "aspp.branches.",
    "decoder.aspp.0.project.": "aspp.project.",
    "decoder.aspp.1.": "after_aspp.0.",
    "decoder.aspp.2.": "after_aspp.1.",
    "decoder.block1.": "low_level.",
    "decoder.block2.": "decoder.0.",
    "segmentation_head.0.": "logit.",
}


def from_smp(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames the weights of segmentation_models_pytorch's DeepLabV3Plus("resnet50", classes=1).

    Load them into a network of topology "smp". That library takes images normalised by ImageNet's mean and
    standard deviation; this one normalises by itself.

    Raises:
        InputError: a name isn't one of that model's.
    """
    renamed = {}
    for name, value in state_dict.items():
        prefix = next((prefix for prefix in _SMP_PREFIXES if name.startswith(prefix)), None)
        if prefix is None:
            raise InputError(f"{name} isn't a weight of smp.DeepLabV3Plus: give its state_dict")
        renamed[_SMP_PREFIXES[prefix] + name.removeprefix(prefix)] = value
    return renamed
