"""A network of three convolutions, for tests of what trains any network: a ResNet50 would take their time."""

from torch import Tensor, nn
from torch.nn.functional import interpolate

from lungseg.approaches.network import NetworkApproach


class SmallNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = self._block(1, 4)
        self.head = nn.Sequential(self._block(4, 8), nn.Dropout(0.5), nn.Conv2d(8, 1, 1))

    @staticmethod
    def _block(given: int, made: int) -> nn.Sequential:
        convolution = nn.Conv2d(given, made, 3, stride=2, padding=1, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(made), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        logits = self.head(self.stem(images))
        return interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=False)


class SmallApproach(NetworkApproach):
    def empty_network(self) -> SmallNetwork:
        return SmallNetwork()

    def start(self, network: nn.Module) -> None:
        pass

    def groups(self, network: SmallNetwork) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        return list(network.stem.parameters()), list(network.head.parameters())
