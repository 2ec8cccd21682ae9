"""Approach B: DeepLabV3+ (Chen et al. 2018) with a ResNet50 (He et al. 2016) backbone, trained end to end."""

from __future__ import annotations

from torch import nn

from lungseg.approaches.deeplabv3plus.network import (
    DeepLabV3Plus,
    NetworkSettings,
    backbone_shapes,
    load_backbone,
    parameter_groups,
)
from lungseg.approaches.network import NetworkApproach
from lungseg.learning.networks.settings import TrainingSettings
from lungseg.learning.weights import WeightsInfo, find_weights, load_weights, weights_info


class DeepLabV3PlusSettings(TrainingSettings):
    """The network and its training.

    Attributes:
        network: topology, output stride and the like.
    """

    network: NetworkSettings = NetworkSettings()


class DeepLabV3PlusResNet50(NetworkApproach):
    """DeepLabV3+ on a ResNet50."""

    Settings = DeepLabV3PlusSettings
    FILE = "deeplabv3plus.safetensors"

    def weights(self) -> WeightsInfo:
        file = find_weights("resnet50", self.settings.weights)
        if file is not None:  # read now: a damaged file must not end a benchmark in its last hour
            load_weights(file, backbone_shapes(self.empty_network()))
        return weights_info("resnet50", file)

    def empty_network(self) -> DeepLabV3Plus:
        return DeepLabV3Plus(self.settings.network)

    def start(self, network: nn.Module) -> None:
        file = find_weights("resnet50", self.settings.weights)
        if file is not None:
            load_backbone(network, load_weights(file, backbone_shapes(network)))

    def groups(self, network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        return parameter_groups(network)
