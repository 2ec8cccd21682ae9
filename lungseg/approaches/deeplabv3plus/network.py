"""DeepLabV3+ on torchvision's ResNet50: one channel in, one logit a pixel out.

Chen et al., "Encoder-decoder with atrous separable convolution for semantic image segmentation", ECCV 2018
(https://arxiv.org/abs/1802.02611). Three topologies:

- "standard": the paper's. Atrous spatial pyramid pooling (ASPP) on `layer4`, low-level branch on `layer1`.
- "smp": that of the library segmentation_models_pytorch. It has a separable convolution between ASPP and the
  upsampling, upsamples bilinearly with aligned corners, and dilates the first block of a dilated stage as
  much as the others (torchvision's first block has the rate of the stage before).
- "seed": a smaller one, known from Keras' examples. It reads ResNet50's `layer3` and `layer1` inside their
  last blocks, after the ReLU of the second convolution (256 and 64 channels), and has no `layer4`. (Keras'
  ResNet50 has its strides on 1 x 1 convolutions, torchvision's on 3 x 3.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import resnet50
from torchvision.models.resnet import Bottleneck

from lungseg.learning.images.resize import BilinearUpsampling
from lungseg.learning.networks.convolutions import AtrousConv2d, use_matrix_products
from lungseg.system.errors import InputError
from lungseg.system.plugins import Settings

# Of the images that torchvision's ImageNet weights were trained on, RGB in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CHANNELS = 256
LOW_LEVEL_CHANNELS = 48


@dataclass(frozen=True)
class Topology:
    """What a topology determines, and its values of settings that are not given."""

    high_channels: int
    low_channels: int
    separable: bool
    rates: dict[int, tuple[int, int, int]]  # by output stride
    dropout: float
    decoder_convolutions: int
    aligned_corners: bool = False


# At stride 8 the paper doubles the rates, so that they cover the same part of the image; smp doesn't.
_PAPER_RATES = {16: (6, 12, 18), 8: (12, 24, 36)}
TOPOLOGIES = {
    "standard": Topology(2048, 256, False, _PAPER_RATES, dropout=0.1, decoder_convolutions=2),
    "smp": Topology(2048, 256, True, dict.fromkeys((16, 8), (12, 24, 36)), 0.5, 1, aligned_corners=True),
    "seed": Topology(256, 64, False, _PAPER_RATES, dropout=0.0, decoder_convolutions=2),
}


class NetworkSettings(Settings):
    """Keys of the network in a spec. None stands for the topology's own value (TOPOLOGIES)."""

    topology: Literal["standard", "smp", "seed"] = "standard"
    """Which network. "standard" is the paper's. "smp" is that of segmentation_models_pytorch. "seed" is a
    smaller one, known from Keras' examples."""
    output_stride: Literal[8, 16] = 16
    """Pixels of the image per cell of the deepest features. 8 is slower."""
    separable: bool | None = None
    """Use depthwise separable 3 x 3 convolutions in ASPP and decoder. Without it the topology decides."""
    rates: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None
    """Dilation of the three 3 x 3 branches of ASPP. Without it the topology decides."""
    dropout: float | None = Field(None, ge=0, lt=1)
    """Share of ASPP's outputs set to zero in training. Without it the topology decides."""
    decoder_convolutions: PositiveInt | None = None
    """3 x 3 convolutions of the decoder. Without it the topology decides."""


class DeepLabV3Plus(nn.Module):
    """DeepLabV3+. Its weights are random until `load_backbone` or `load_state_dict` replaces them.

    Initialisation: He normal (fan-in, ReLU) for the head's convolutions, the identity for its batch norms, a
    logit near zero (sd 0.01), and torchvision's for the backbone. All is drawn from torch's default
    generator, so `torch.manual_seed` before the constructor determines it.
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
        self.upsample = BilinearUpsampling(topology.aligned_corners)

        self.backbone = Backbone(settings.topology, settings.output_stride)
        self.aspp = ASPP(topology.high_channels, rates, separable, dropout)
        smp = settings.topology == "smp"
        self.after_aspp = make_conv_block(CHANNELS, CHANNELS, 3, separable=True) if smp else nn.Identity()
        self.low_level = make_conv_block(topology.low_channels, LOW_LEVEL_CHANNELS, 1)
        widths = [CHANNELS + LOW_LEVEL_CHANNELS, *[CHANNELS] * convolutions]
        blocks = [make_conv_block(a, b, 3, separable=separable) for a, b in pairwise(widths)]
        self.decoder = nn.Sequential(*blocks)
        self.logit = nn.Conv2d(CHANNELS, 1, 1)
        for module in (self.aspp, self.after_aspp, self.low_level, self.decoder):
            module.apply(_initialise)
        use_matrix_products(self)
        nn.init.normal_(self.logit.weight, std=0.01)
        nn.init.zeros_(self.logit.bias)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Predict logits float32 N x 1 x H x W of grey images N x 1 x H x W in [0, 1]; positive means lung.

        H and W may be any. Images are extended to a multiple of the output stride by repeating the last row
        and column, and the logits of the extension are cut off. (Stretching the maps would displace them.)
        """
        height, width = images.shape[-2:]
        missing = (0, -width % self.output_stride, 0, -height % self.output_stride)
        if any(missing):  # to add nothing would copy the images, and slowly on a GPU that is deterministic
            images = functional.pad(images, missing, mode="replicate")
        low, high = self.backbone((images - self.mean) / self.std)
        high = self.upsample(self.after_aspp(self.aspp(high)), low.shape[-2:])
        features = self.decoder(torch.cat([high, self.low_level(low)], dim=1))
        # A 1 x 1 convolution and bilinear resizing commute; this order takes a sixteenth of the work.
        return self.upsample(self.logit(features).float(), images.shape[-2:])[..., :height, :width]


class Backbone(nn.Module):
    """ResNet50 without its classifier, with torchvision's names; it returns low- and high-level features."""

    def __init__(self, topology: str, output_stride: int) -> None:
        super().__init__()
        net = resnet50(weights=None, replace_stride_with_dilation=[False, output_stride == 8, True])
        self.inside = topology == "seed"
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2, self.layer3 = net.layer1, net.layer2, net.layer3
        if self.inside:
            # Unused weights would be counted and stored, and distributed training would wait for gradients.
            del self.layer3[-1].conv3, self.layer3[-1].bn3
        else:
            self.layer4 = net.layer4
        if topology == "smp":
            for layer in (self.layer3, self.layer4):
                layer[0].conv2.dilation = layer[0].conv2.padding = layer[1].conv2.dilation

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features at stride 4 and at the output stride, of normalised images N x 3 x H x W."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        if not self.inside:
            low = self.layer1(x)
            return low, self.layer4(self.layer3(self.layer2(low)))
        x, block = self.layer1[:-1](x), self.layer1[-1]
        low = _run_first_half(block, x)
        x = block.relu(block.bn3(block.conv3(low)) + x)
        return low, _run_first_half(self.layer3[-1], self.layer3[:-1](self.layer2(x)))


def _run_first_half(block: Bottleneck, x: Tensor) -> Tensor:
    """Run a block up to the ReLU of its second convolution."""
    x = block.relu(block.bn1(block.conv1(x)))
    return block.relu(block.bn2(block.conv2(x)))


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: a 1 x 1 and three dilated 3 x 3 convolutions, and image pooling.

    A 1 x 1 convolution joins these branches.
    """

    def __init__(self, channels: int, rates: tuple[int, int, int], separable: bool, dropout: float) -> None:
        super().__init__()
        dilated = [make_conv_block(channels, CHANNELS, 3, rate, separable) for rate in rates]
        self.branches = nn.ModuleList([make_conv_block(channels, CHANNELS, 1), *dilated])
        self.pooling = make_conv_block(channels, CHANNELS, 1)
        self.project = nn.Sequential(*make_conv_block(5 * CHANNELS, CHANNELS, 1), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        maps = [branch(x) for branch in self.branches]
        pooled = self._pool(x).expand(-1, -1, *x.shape[-2:])
        return self.project(torch.cat([*maps, pooled], dim=1))

    def _pool(self, x: Tensor) -> Tensor:
        x = x.mean(dim=(2, 3), keepdim=True)
        # SyncBatchNorm has the images of the other processes too, and they wait for this one's.
        if not self.training or len(x) > 1 or isinstance(self.pooling[1], nn.SyncBatchNorm):
            return self.pooling(x)
        # One image pooled to one value has no variance: batch norm takes its running statistics instead.
        # A training should nevertheless have no batch of one image.
        convolution, norm, relu = self.pooling
        x = convolution(x)
        moments = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        return relu(functional.batch_norm(x, *moments, training=False, eps=norm.eps))


def make_conv_block(
    inputs: int, outputs: int, kernel: int, dilation: int = 1, separable: bool = False
) -> nn.Sequential:
    """Make a block of convolution (stride 1, same size), batch norm and ReLU.

    A separable convolution is a depthwise one followed by a 1 x 1 convolution, with nothing in between.
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


def group_parameters(network: DeepLabV3Plus) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the parameters of ResNet50, and all others; each parameter is in one of the two lists."""
    head = [value for name, value in network.named_parameters() if not name.startswith("backbone.")]
    return list(network.backbone.parameters()), head


def list_backbone_shapes(network: DeepLabV3Plus) -> dict[str, tuple[int, ...]]:
    """List the shapes of the weights that `load_backbone` needs, by torchvision's names in resnet50."""
    state = network.backbone.state_dict()
    return {name: tuple(value.shape) for name, value in state.items() if "num_batches" not in name}


def load_backbone(network: DeepLabV3Plus, state_dict: Mapping[str, Tensor]) -> None:
    """Copy weights of torchvision's resnet50 into the backbone of any topology, in place.

    Weights that it lacks (the classifier, for "seed" also `layer4`) are left out. Floating type and device
    may differ. Raises InputError if a weight is missing or of another shape, or resnet50 lacks its name.
    """
    with torch.device("meta"):
        known = resnet50(weights=None).state_dict()
    shapes = list_backbone_shapes(network)
    wrong = [name for name, shape in shapes.items() if getattr(state_dict.get(name), "shape", None) != shape]
    wrong += sorted(set(state_dict) - set(known))
    if wrong:
        raise InputError(
            f"the weights aren't resnet50's ({wrong[0]} is missing, unknown or of another shape): "
            "give those of torchvision's resnet50"
        )
    wanted = network.backbone.state_dict()
    network.backbone.load_state_dict({name: state_dict.get(name, wanted[name]) for name in wanted})
