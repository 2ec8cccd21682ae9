"""Approach B: DeepLabV3+ (Chen et al. 2018) with a ResNet50 (He et al. 2016) backbone, trained end to end."""

from __future__ import annotations

from torch import nn

from lungseg.approaches.deeplabv3plus.network import (
    DeepLabV3Plus,
    NetworkSettings,
    group_parameters,
    list_backbone_shapes,
    load_backbone,
)
from lungseg.approaches.network import NetworkApproach
from lungseg.learning.networks.settings import TrainingSettings
from lungseg.learning.weights import WeightsInfo, describe_weights, find_weights, load_weights


class DeepLabV3PlusSettings(TrainingSettings):
    """Keys of the network and its training."""

    network: NetworkSettings = NetworkSettings()
    """The layers of the network."""


class DeepLabV3PlusResNet50(NetworkApproach):
    """DeepLabV3+ on a ResNet50."""

    Settings = DeepLabV3PlusSettings
    FILE = "deeplabv3plus.safetensors"

    def weights(self) -> WeightsInfo:
        file = find_weights("resnet50", self.settings.weights)
        if file is not None:  # read now, so that a damaged file is found before anything is fitted
            load_weights(file, list_backbone_shapes(self.build_network()))
        return describe_weights("resnet50", file)

    def build_network(self) -> DeepLabV3Plus:
        return DeepLabV3Plus(self.settings.network)

    def load_pretrained(self, network: nn.Module) -> None:
        file = find_weights("resnet50", self.settings.weights)
        if file is not None:
            load_backbone(network, load_weights(file, list_backbone_shapes(network)))

    def group_parameters(self, network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        return group_parameters(network)
