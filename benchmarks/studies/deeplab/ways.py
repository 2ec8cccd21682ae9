"""What `deeplab_speed.py` times: training steps and predictions, ours and those of a peer library.

The peer is segmentation_models_pytorch's DeepLabV3Plus as its README would have one use it: float32, eager,
images as N x C x H x W, Adam, and the library's Dice loss.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from benchmarks.peers.smp import load_library
from lungseg.approaches.deeplabv3plus.approach import DeepLabV3PlusSettings
from lungseg.approaches.deeplabv3plus.network import DeepLabV3Plus, NetworkSettings, parameter_groups
from lungseg.learning.networks.feed import Batch
from lungseg.learning.networks.inference import Predictor
from lungseg.learning.networks.training import Training
from lungseg.system.errors import InputError
from lungseg.system.memory import PeakMemory
from lungseg.system.runtime import Runtime, be_deterministic, use_threads

TRAINING, INFERENCE = "training", "inference"
OURS, PLAIN, FREE = "ours", "ours, not augmented", "ours, not deterministic"
COMPILED, PEER = "ours, compiled", "smp"
NAMES = (OURS, PLAIN, FREE, COMPILED, PEER)
TURNS_ALONE = 2  # the first makes what stays, such as the optimiser's state; the second meets it

Work = Callable[[Batch], Any]


@dataclass(frozen=True)
class Place:
    """What all that are compared have in common.

    Attributes:
        network: of ours.
        runtime: of ours; the peer has its device and threads.
        size: pixels a side.
        batch: images.
    """

    network: NetworkSettings
    runtime: Runtime
    size: int
    batch: int


@dataclass(frozen=True)
class Way:
    """One of those that take turns.

    Attributes:
        name: one of NAMES.
        build: makes it ready on its device; what that returns does one turn's work on a batch.
        switches: sets torch's switches of algorithms as it has them; None leaves them alone.
        facts: further cells of its row.
        built: it is ready already, so the memory that it needs in all can't be measured any more.
    """

    name: str
    build: Callable[[], Work]
    switches: Callable[[], None] | None = None
    facts: dict[str, float] = field(default_factory=dict)
    built: bool = False

    def ready(self) -> Work:
        """Built, with its switches set while it works and put back afterwards."""
        work, switches = self.build(), self.switches
        if switches is None:  # a prediction may take less than a thousandth of a second
            return work

        def turn(batch: Batch) -> Any:
            with switched(switches):
                return work(batch)

        return turn


def as_torch_is() -> None:
    """Torch's switches as they are when nobody touches them."""
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = False


def as_fast_as_can_be() -> None:
    """Any algorithm, and cuDNN may try which is fastest."""
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = True


@contextmanager
def switched(switches: Callable[[], None]) -> Iterator[None]:
    """Torch's switches set by `switches`, and then as they were before."""
    cudnn = torch.backends.cudnn
    deterministic = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = cudnn.benchmark
    switches()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warns)
        cudnn.benchmark = benchmark


def noise(at: Place) -> Batch:
    """Images uniform in [0, 1] and masks of zeros and ones, on the device."""
    generator = torch.Generator().manual_seed(0)
    images, masks = torch.rand((2, at.batch, 1, at.size, at.size), generator=generator)
    names = [f"noise-{number}" for number in range(at.batch)]
    device = at.runtime.device
    return Batch(images.to(device), masks.round().to(device), names, 0, at.batch)


def training_ways(at: Place, library: Any | None) -> list[Way]:
    """Trainings in the order of their turns: what is compared stands side by side.

    Args:
        at: of at least two images.
        library: the peer's module; None leaves it out.
    """
    ways = [
        Way(FREE, lambda: our_training(at), as_fast_as_can_be),
        Way(OURS, lambda: our_training(at), be_deterministic),
        Way(PLAIN, lambda: our_training(at, augment=False), be_deterministic),
    ]
    if library is not None:
        ways.insert(2, Way(PEER, lambda: peer_training(at, library), as_torch_is))
    return ways


def prediction_ways(at: Place, library: Any | None) -> list[Way]:
    """Predictions; `library` as in `training_ways`."""
    ways = [Way(OURS, lambda: our_prediction(at))]
    if library is not None:
        ways.append(Way(PEER, lambda: peer_prediction(at, library)))
    return ways


def compiled_way(at: Place, batch: Batch) -> Way:
    """Our prediction by torch.compile, which is done here, on `batch`; its time is in "compile s".

    Raises:
        InputError: torch.compile fails on this machine.
    """
    torch.compiler.reset()  # else it would make code for changing sizes from the second size on
    predictor = _predictor(replace(at, runtime=replace(at.runtime, compiled=True)))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        predictor.logits(batch.images)
    if predictor.compile_seconds is None:
        reasons = [str(one.message) for one in said if "torch.compile" in str(one.message)]
        raise InputError(reasons[0] if reasons else "torch.compile failed")
    facts = {"compile s": predictor.compile_seconds}
    return Way(COMPILED, lambda: _predict_with(predictor), facts=facts, built=True)


def our_training(at: Place, augment: bool = True) -> Work:
    """A whole step of the program's training, from a batch on the device to changed weights."""
    settings = DeepLabV3PlusSettings(
        network=at.network, size=at.size, batch_size=at.batch, weights="random", augment=augment
    )
    network = DeepLabV3Plus(at.network)
    training = Training(network, parameter_groups, settings, at.runtime, 0, at.batch)
    training.network.train()

    def step(batch: Batch) -> None:
        with torch.inference_mode(False):  # turns are taken in inference mode, in which nothing learns
            training.take_step(batch)

    return step


def our_prediction(at: Place) -> Work:
    """Logits by the program's predictor: norms folded, and a CUDA graph where there is one for the batch."""
    return _predict_with(_predictor(at))


def _predictor(at: Place) -> Predictor:
    settings = DeepLabV3PlusSettings(network=at.network, size=at.size, weights="random")
    network = DeepLabV3Plus(at.network).to(at.runtime.device, memory_format=at.runtime.memory_format)
    return Predictor(network, settings, at.runtime)


def _predict_with(predictor: Predictor) -> Work:
    return lambda batch: predictor.logits(batch.images)


def peer_network(library: Any) -> nn.Module:
    """The peer of random weights: grey images N x 1 x H x W -> logits N x 1 x H x W."""
    return library.DeepLabV3Plus(encoder_name="resnet50", encoder_weights=None, in_channels=1, classes=1)


def peer_training(at: Place, library: Any) -> Work:
    """A step of the loop that the library's users write."""
    network = peer_network(library).to(at.runtime.device).train()
    loss_of = library.losses.DiceLoss("binary")
    optimiser = torch.optim.Adam(network.parameters())

    def step(batch: Batch) -> None:
        with torch.inference_mode(False):  # see `our_training`
            optimiser.zero_grad()
            loss = loss_of(network(batch.images), batch.masks)
            loss.backward()
            optimiser.step()

    return step


def peer_prediction(at: Place, library: Any) -> Work:
    """Logits of the library's network."""
    network = peer_network(library).to(at.runtime.device).eval()

    def predict(batch: Batch) -> Any:
        with torch.inference_mode():
            return network(batch.images)

    return predict


def peak_memory_of(work: str, name: str, at: Place, with_library: bool) -> dict[str, float]:
    """`peak_memory` of a way by its name, for a process that has done nothing else."""
    use_threads(at.runtime.threads)
    library = load_library() if with_library else None
    ways = training_ways(at, library) if work == TRAINING else prediction_ways(at, library)
    return peak_memory(next(way for way in ways if way.name == name), noise(at))


def peak_memory(way: Way, batch: Batch) -> dict[str, float]:
    """MiB at the peak of two turns of this way alone, and MiB before it was built."""
    device = batch.images.device
    with PeakMemory(device) as before:
        pass
    with PeakMemory(device) as peak:
        turn = way.ready()
        for _ in range(TURNS_ALONE):
            turn(batch)
    return {"peak MiB": peak.mib, "MiB before": before.mib}
