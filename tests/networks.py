from collections.abc import Callable

import numpy as np
import pytest

from lungseg.approaches.deeplabv3plus.approach import DeepLabV3PlusSettings
from lungseg.approaches.network import NetworkApproach
from lungseg.learning.networks.image_cache import Images
from lungseg.learning.networks.training import Training
from lungseg.system.runtime import Runtime
from tests.learning.networks.small_network import SmallApproach


@pytest.fixture
def settings() -> Callable[..., DeepLabV3PlusSettings]:
    """Settings of a fit that takes a moment (of a DeepLabV3+ too); keys given replace its own."""

    def make(**values) -> DeepLabV3PlusSettings:
        chosen = {"size": 48, "epochs": 3, "batch_size": 4, "network": {"topology": "seed"}, **values}
        return DeepLabV3PlusSettings(weights="random", **chosen)

    return make


@pytest.fixture
def network_training(settings, runtime) -> Callable[..., Training]:
    """A new training of so many images, of a small network if not asked for another; keys are settings."""

    def make(
        count: int = 6,
        seed: int = 0,
        runtime: Runtime = runtime,
        approach_class: type[NetworkApproach] = SmallApproach,
        may_split: bool = True,
        **values,
    ) -> Training:
        approach = approach_class(settings(**values), runtime)
        network = approach.make_network(seed)
        groups = approach.group_parameters
        return Training(network, groups, approach.settings, runtime, seed, count, may_split)

    return make


@pytest.fixture
def noise_images() -> Callable[..., Images]:
    """Noise, and half of each picture lung."""

    def make(count: int = 6, size: int = 48) -> Images:
        arrays = np.random.default_rng(0).integers(0, 65536, (count, 2, size, size), np.uint16)
        arrays[:, 1, :, : size // 2], arrays[:, 1, :, size // 2 :] = 65535, 0
        return Images([f"picture-{number}" for number in range(count)], list(arrays))

    return make
