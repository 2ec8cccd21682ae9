"""Writes the notes below the tables of `speed.py`."""

from __future__ import annotations

from typing import Any

import pandas as pd

from benchmarks.peers.smp import LIBRARY
from benchmarks.studies.ceilings import Ceilings
from benchmarks.studies.deeplab.ways import FREE, INFERENCE, OURS, PEER, TRAINING, TUNED_PEER
from lungseg.system.machine import find_gpu_name
from lungseg.system.runtime import Runtime

DEVICES = {"cpu": "the CPU", "cuda": "the GPU"}
TIMES_OURS = ("times ours", "times ours, lowest", "times ours, highest")


def compare_variants(work: str, table: pd.DataFrame) -> list[str]:
    """Say how our other ways compare with what the program does by default, a sentence each."""
    found = []
    for _, row in table[table["times ours"].notna()].iterrows():
        times, low, high = row[list(TIMES_OURS)]
        found.append(
            f'"{row["way"]}", {work} at {row["size"]:.0f} px on {DEVICES[row["device"]]}, batch '
            f'{row["batch"]:.0f}: {times:.2f} times as fast as "{OURS}" ({low:.2f} to {high:.2f}).'
        )
    return found


def write_training_notes(table: pd.DataFrame) -> list[str]:
    """Return the notes of the table of training steps."""
    return [
        *compare_variants(TRAINING, table),
        "A turn is one whole training step on a batch that is on the device already. Ours: augmentation, "
        "forward, loss, backward, optimiser, running mean of the weights, and reading the loss back. The "
        "peer's: zero_grad, forward, its Dice loss, backward, Adam, without augmentation.",
        f'"{OURS}" asks for deterministic algorithms, as this program does by default; "{FREE}" has '
        "torch.use_deterministic_algorithms(False) and torch.backends.cudnn.benchmark = True, the peer "
        "torch's own switches.",
        *TURNS,
    ]


def write_inference_notes(table: pd.DataFrame) -> list[str]:
    """Return the notes of the table of predictions."""
    compiled = table["compile s"].notna().any()
    return [
        *compare_variants(INFERENCE, table),
        "A turn goes from a batch on the device to its logits there. Ours: batch norms folded into "
        "convolutions, and a CUDA graph on a GPU. ms at batch 1 is the latency. All with torch's "
        "own switches, as a benchmark's timings have them.",
        *([COMPILE] if compiled else []),
        *TURNS,
    ]


COMPILE = (
    "compile s: the first call of torch.compile. It takes less where torch's cache on disk has the code of "
    "an earlier run."
)
TURNS = [
    f"ms, p10 and p90 are the median and the percentiles of a whole batch. times as fast: the time of {PEER} "
    "over this one's, by the medians of turns A B, B A on the same images; the median of the turns, the "
    f'lowest and the highest. times ours: the same against "{OURS}". GFLOP an image: 2 a multiply-add of '
    f"convolutions, in training forward and backward; for {PEER} all of them, for ours without the taps of "
    "dilated convolutions that are left out because they meet only padding.",
    "peak MiB: each way in a process of its own, built and run twice. On a CPU it is the resident set of the "
    "whole process, of which MiB before was there already (libraries, and the batch); on a GPU what the "
    "allocator gave out. It isn't measured for a compiled network: the compiler's own memory would be in it.",
]


def write_floor_notes(ceilings: dict[str, Ceilings], runtimes: list[Runtime]) -> list[str]:
    """Return the notes of the table of floors; `ceilings` are those measured so far, by device."""
    return [
        *(
            f"Ceiling of {DEVICES[one.device.type]}, measured in this run: "
            f"{ceilings[one.device.type].gflops:.0f} GFLOP/s of a large matrix product in {one.precision}."
            for one in runtimes
            if one.device.type in ceilings
        ),
        "GFLOP: 2 a multiply-add of all convolutions of our network, for a whole batch; in training also of "
        "the gradients of weights and maps. floor ms is the time that they take at the ceiling. The measured "
        "time also has augmentation, batch norms, resizing, the loss, the optimiser and all copies in it. A "
        "convolution with fewer multiplications (Winograd's) could go below the floor.",
        f'measured ms is the median of "{OURS}".',
    ]


def describe_setup(topology: str, runtimes: list[Runtime], library: Any | None) -> list[str]:
    """Say what was compared, on what: the last notes of every table."""
    used = "; ".join(
        f"{one.precision}, channels {'last' if one.channels_last else 'first'} on {DEVICES[one.device.type]}"
        for one in runtimes
    )
    graphics = find_gpu_name() if any(one.device.type == "cuda" for one in runtimes) else None
    peer = []
    if library is not None:
        peer = [
            f"{PEER}: {LIBRARY} {library.__version__}, DeepLabV3Plus with the encoder resnet50 and one "
            "channel, float32 (on a GPU torch may use TF32 in convolutions, as it does by default), eager, "
            f'channels first. "{TUNED_PEER}" is the same network trained and run as ours is, on three equal '
            "channels."
        ]
    return [
        f'Ours: DeepLabV3+ on a ResNet50, topology "{topology}"; {used}'
        f"{f'; the GPU is {graphics}' if graphics else ''}. {runtimes[0].threads} CPU threads.",
        *peer,
        "Images and masks are noise and weights random: no data is read, and the work is the same on any.",
    ]
