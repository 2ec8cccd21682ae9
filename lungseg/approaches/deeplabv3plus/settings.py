"""Keys of `deeplabv3plus-resnet50` in a spec."""

from __future__ import annotations

from lungseg.approaches.deeplabv3plus.network import NetworkSettings
from lungseg.approaches.networks.settings import TrainingSettings


class DeepLabV3PlusSettings(TrainingSettings):
    """The network and its training.

    Attributes:
        network: topology, output stride and the like.
    """

    network: NetworkSettings = NetworkSettings()
