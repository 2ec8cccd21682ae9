"""A network of three convolutions, for tests of what trains any network: a ResNet50 would take their time."""

from torch import Tensor, nn
from torch.nn.functional import interpolate

from lungseg.approaches.network import NetworkApproach


class SmallNetwork(nn.Module):
    def __init__(self, dropout: float = 0.5) -> None:
        super().__init__()
        self.stem = self._block(1, 4)
        self.head = nn.Sequential(self._block(4, 8), nn.Dropout(dropout), nn.Conv2d(8, 1, 1))

    @staticmethod
    def _block(given: int, made: int) -> nn.Sequential:
        convolution = nn.Conv2d(given, made, 3, stride=2, padding=1, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(made), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        logits = self.head(self.stem(images))
        return interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=False)


class SmallApproach(NetworkApproach):
    def build_network(self) -> SmallNetwork:
        return SmallNetwork()

    def load_pretrained(self, network: nn.Module) -> None:
        pass

    def group_parameters(self, network: SmallNetwork) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        return list(network.stem.parameters()), list(network.head.parameters())


class ApproachWithoutDropout(SmallApproach):
    """Processes that share a batch draw dropout each for itself; without it they learn what one does."""

    def build_network(self) -> SmallNetwork:
        return SmallNetwork(dropout=0)
