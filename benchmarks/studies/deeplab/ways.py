"""The ways that `speed.py` times: training steps and predictions, ours and those of a peer library.

The peer is segmentation_models_pytorch's DeepLabV3Plus, used as its README shows: float32, eager, images as
N x C x H x W, Adam, and the library's Dice loss. Its network is timed in this program's runtime too, trained
and run as ours is, which tells what of a difference is the network's and what the runtime's.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from benchmarks.peers.smp import SmpDeepLabV3Plus, load_library
from lungseg.approaches.deeplabv3plus.approach import DeepLabV3PlusSettings
from lungseg.approaches.deeplabv3plus.network import DeepLabV3Plus, NetworkSettings, group_parameters
from lungseg.learning.networks.feed import Batch
from lungseg.learning.networks.inference import Predictor
from lungseg.learning.networks.training import Training
from lungseg.system.errors import InputError
from lungseg.system.memory import PeakMemory
from lungseg.system.runtime import Runtime, be_deterministic, use_threads

TRAINING, INFERENCE = "training", "inference"
OURS, PLAIN, FREE = "ours", "ours, not augmented", "ours, not deterministic"
COMPILED, PEER, TUNED_PEER = "ours, compiled", "smp", "smp, in our runtime"
NAMES = (OURS, PLAIN, FREE, COMPILED, PEER, TUNED_PEER)
TURNS_ALONE = 2  # the first turn makes what stays in memory, such as the optimiser's state

Turn = Callable[[Batch], Any]


@dataclass(frozen=True)
class Workload:
    """What all ways that are compared have in common.

    Attributes:
        network: settings of our network.
        runtime: of our network; the peer has the same device and threads.
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
        build: sets it up on its device and returns a function that does one turn's work on a batch.
        switches: sets torch's switches of algorithms; None leaves them alone.
        facts: further cells of its row.
        built: it is set up already, so its peak memory can't be measured any more.
    """

    name: str
    build: Callable[[], Turn]
    switches: Callable[[], None] | None = None
    facts: dict[str, float] = field(default_factory=dict)
    built: bool = False

    def make_ready(self) -> Turn:
        """Build it; its switches are set during each turn and put back afterwards."""
        work, switches = self.build(), self.switches
        if switches is None:  # a prediction may take less than a thousandth of a second
            return work

        def turn(batch: Batch) -> Any:
            with set_switches(switches):
                return work(batch)

        return turn


def use_torch_defaults() -> None:
    """Set torch's switches as they are when nobody touches them."""
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = False


def use_fastest_algorithms() -> None:
    """Allow any algorithm, and let cuDNN try which is fastest."""
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = True


@contextmanager
def set_switches(switches: Callable[[], None]) -> Iterator[None]:
    """Set torch's switches with `switches`, and put them back at the end."""
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


def make_noise(load: Workload) -> Batch:
    """Return images uniform in [0, 1] and masks of zeros and ones, on the device."""
    generator = torch.Generator().manual_seed(0)
    images, masks = torch.rand((2, load.batch, 1, load.size, load.size), generator=generator)
    names = [f"noise-{number}" for number in range(load.batch)]
    device = load.runtime.device
    return Batch(images.to(device), masks.round().to(device), names, 0, load.batch)


def list_training_ways(load: Workload, library: Any | None) -> list[Way]:
    """Return ways to train in the order of their turns; those that are compared are neighbours.

    Args:
        load: with at least two images.
        library: the peer's module; None leaves the peer out.
    """
    ways = [
        Way(FREE, lambda: build_our_training(load), use_fastest_algorithms),
        Way(OURS, lambda: build_our_training(load), be_deterministic),
        Way(PLAIN, lambda: build_our_training(load, augment=False), be_deterministic),
    ]
    if library is not None:
        ways.insert(2, Way(PEER, lambda: build_peer_training(load, library), use_torch_defaults))
        ways.append(Way(TUNED_PEER, lambda: build_tuned_peer_training(load), be_deterministic))
    return ways


def list_prediction_ways(load: Workload, library: Any | None) -> list[Way]:
    """Return ways to predict; `library` as in `list_training_ways`."""
    ways = [Way(OURS, lambda: build_our_prediction(load))]
    if library is not None:
        ways.append(Way(PEER, lambda: build_peer_prediction(load, library)))
        ways.append(Way(TUNED_PEER, lambda: _predict_with(_tune_peer(load))))
    return ways


def compile_way(load: Workload, batch: Batch) -> Way:
    """Compile our prediction with torch.compile on `batch`; the time is in the cell "compile s".

    Raises:
        InputError: torch.compile fails on this machine.
    """
    torch.compiler.reset()  # else it would compile for changing sizes from the second size on
    predictor = _make_predictor(replace(load, runtime=replace(load.runtime, compiled=True)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        predictor.predict_logits(batch.images)
    if predictor.compile_seconds is None:
        reasons = [str(one.message) for one in caught if "torch.compile" in str(one.message)]
        raise InputError(reasons[0] if reasons else "torch.compile failed")
    facts = {"compile s": predictor.compile_seconds}
    return Way(COMPILED, lambda: _predict_with(predictor), facts=facts, built=True)


def build_our_training(load: Workload, augment: bool = True) -> Turn:
    """Return the program's training step, from a batch on the device to changed weights."""
    settings = DeepLabV3PlusSettings(
        network=load.network, size=load.size, batch_size=load.batch, weights="random", augment=augment
    )
    return _train_with(
        Training(DeepLabV3Plus(load.network), group_parameters, settings, load.runtime, 0, load.batch)
    )


def _train_with(training: Training) -> Turn:
    training.network.train()

    def step(batch: Batch) -> None:
        with torch.inference_mode(False):  # turns are taken in inference mode, in which nothing learns
            training.take_step(batch)

    return step


def build_our_prediction(load: Workload) -> Turn:
    """Return the program's predictor: norms folded, and a CUDA graph for batches that have one."""
    return _predict_with(_make_predictor(load))


def _make_predictor(load: Workload) -> Predictor:
    settings = DeepLabV3PlusSettings(network=load.network, size=load.size, weights="random")
    runtime = load.runtime
    network = DeepLabV3Plus(load.network).to(runtime.device, memory_format=runtime.memory_format)
    return Predictor(network, settings, runtime)


def _predict_with(predictor: Predictor) -> Turn:
    return lambda batch: predictor.predict_logits(batch.images)


def build_peer_network(library: Any) -> nn.Module:
    """Return the peer with random weights: grey images N x 1 x H x W -> logits N x 1 x H x W."""
    return library.DeepLabV3Plus(encoder_name="resnet50", encoder_weights=None, in_channels=1, classes=1)


def build_peer_training(load: Workload, library: Any) -> Turn:
    """Return a step of the training loop that the library's users write."""
    network = build_peer_network(library).to(load.runtime.device).train()
    loss_of = library.losses.DiceLoss("binary")
    optimiser = torch.optim.Adam(network.parameters())

    def step(batch: Batch) -> None:
        with torch.inference_mode(False):  # see `build_our_training`
            optimiser.zero_grad()
            loss = loss_of(network(batch.images), batch.masks)
            loss.backward()
            optimiser.step()

    return step


def build_tuned_peer_training(load: Workload) -> Turn:
    """Return this program's training step with the library's network."""
    approach = make_peer_approach(load)
    network, groups, settings = approach.build_network(), approach.group_parameters, approach.settings
    return _train_with(Training(network, groups, settings, load.runtime, 0, load.batch))


def _tune_peer(load: Workload) -> Predictor:
    """The library's network in this program's predictor."""
    approach = make_peer_approach(load)
    runtime = load.runtime
    network = approach.build_network().to(runtime.device, memory_format=runtime.memory_format)
    return Predictor(network, approach.settings, runtime)


def make_peer_approach(load: Workload) -> SmpDeepLabV3Plus:
    """Return the library's network as an approach of this program, with random weights."""
    batch = max(load.batch, 2)  # of training, which one image can't do
    settings = SmpDeepLabV3Plus.Settings(size=load.size, batch_size=batch, weights="random")
    return SmpDeepLabV3Plus(settings, load.runtime)


def build_peer_prediction(load: Workload, library: Any) -> Turn:
    """Return the library's network as a predictor of logits."""
    network = build_peer_network(library).to(load.runtime.device).eval()

    def predict(batch: Batch) -> Any:
        with torch.inference_mode():
            return network(batch.images)

    return predict


def measure_way_by_name(work: str, name: str, load: Workload, with_library: bool) -> dict[str, float]:
    """Call `measure_peak_memory` on the way of that name, in a process that has done nothing else."""
    use_threads(load.runtime.threads)
    library = load_library() if with_library else None
    list_ways = list_training_ways if work == TRAINING else list_prediction_ways
    way = next(way for way in list_ways(load, library) if way.name == name)
    return measure_peak_memory(way, make_noise(load))


def measure_peak_memory(way: Way, batch: Batch) -> dict[str, float]:
    """Return the peak MiB of two turns of this way alone, and the MiB before it was built."""
    device = batch.images.device
    with PeakMemory(device) as before:
        pass
    with PeakMemory(device) as peak:
        turn = way.make_ready()
        for _ in range(TURNS_ALONE):
            turn(batch)
    return {"peak MiB": peak.mib, "MiB before": before.mib}
