"""Three steps of a training and its validation, by this process alone or by several together."""

import copy
import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import nn

from lungseg.approaches.deeplabv3plus.approach import DeepLabV3PlusResNet50, DeepLabV3PlusSettings
from lungseg.learning.fit import FitContext
from lungseg.learning.networks.image_cache import Images
from lungseg.scoring.overlap import image_dice, mean_dice
from lungseg.system import distributed
from lungseg.system.distributed import join_processes
from lungseg.system.runtime import Runtime

SIZE, TRAIN, HELD = 32, 15, 5  # three batches of five: parts of three and of two


class Smooth(DeepLabV3PlusResNet50):
    """Without kinks: rounding that moves a unit across one changes gradients by more than rounding."""

    def build_network(self) -> nn.Module:
        network = super().build_network()
        for module in list(network.modules()):
            for name, part in list(module.named_children()):
                if isinstance(part, nn.ReLU):
                    setattr(module, name, nn.ELU())
                elif isinstance(part, nn.MaxPool2d):
                    setattr(module, name, nn.AvgPool2d(3, 2, 1))
        return network


def digest(network: nn.Module) -> str:
    """Changes with any bit of the weights."""
    hashed = hashlib.sha256()
    for value in network.state_dict().values():
        hashed.update(value.numpy().tobytes())
    return hashed.hexdigest()


def images(count: int, seed: int) -> Images:
    rng = np.random.default_rng(seed)
    arrays = rng.integers(0, 65536, (count, 2, SIZE, SIZE), np.uint16)
    arrays[:, 1] = np.where(arrays[:, 0] > 40_000, 65535, 0)
    return Images([f"picture-{number}" for number in range(count)], list(arrays))


def gradients(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.grad for name, value in network.named_parameters()}


def first_gradients(
    settings: DeepLabV3PlusSettings, runtime: Runtime, fit_context: FitContext
) -> dict[str, torch.Tensor]:
    """Of an epoch of one step, of the network that is shipped."""
    count = settings.batch_size
    training = DeepLabV3PlusResNet50(settings, runtime)._make_training(fit_context, count)
    training.run_epoch(images(count, seed=0), lambda *_: None)
    return gradients(training.network)


def train_three_steps(file: Path) -> None:
    """Write the gradients of the last step, the weights, and losses, accuracy and Dice to a file.

    And the gradients of one step of the network as it is, whose kinks make later steps go apart.
    """
    settings = DeepLabV3PlusSettings(
        weights="random",
        size=SIZE,
        epochs=1,
        batch_size=5,
        freeze_norms=True,
        learning_rate=1e-3,
        network={"topology": "seed"},
        augmentation={"elastic": 0.02, "crop": 0.1},
    )
    runtime = Runtime(torch.device("cpu"))
    approach = Smooth(settings, runtime)
    held = images(HELD, seed=1)
    masks = [mask.numpy() > 0.5 for mask in held.read_batch(range(HELD))[1][:, 0]]
    fit_context = FitContext(
        0,
        file.parent,
        lambda **_: None,
        lambda *_: None,
        lambda maps: mean_dice(maps, masks),
        lambda maps, chosen: image_dice(maps, (masks[index] for index in chosen)),
    )
    with join_processes("cpu"):
        first = first_gradients(settings, runtime, fit_context)
        training = approach._make_training(fit_context, TRAIN)
        # Of two processes: more parts than one of them has images.
        training.accumulation_steps = 3 if distributed.world_size() > 1 else 1
        # Adam divides a gradient by its own size, so one that is nothing but rounding moves its weight as far
        # as any other. With a larger term in the denominator such ones stay where they are.
        for group in training.optimiser.param_groups:
            group["eps"] = 1e-2
        start = copy.deepcopy(training.network.state_dict())
        losses = training.run_epoch(images(TRAIN, seed=0), lambda *_: None)
        training.history.append({"unit": "epoch", "step": 1})
        approach._validate(training, held, [(SIZE, SIZE)] * HELD, fit_context)
        everyone = distributed.all_gather([digest(training.network)])
        if distributed.is_main():
            found = {
                "processes": distributed.world_size(),
                "losses": losses,
                "row": training.history[-1],
                "first": first,
                "gradients": gradients(training.network),
                "everyone": everyone,
                "start": start,
                "weights": training.network.state_dict(),
                "average": training.average.network.state_dict(),
            }
            torch.save(found, file)
