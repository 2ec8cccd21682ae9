"""What stands below the tables of `deeplab_speed.py`: whether aims are kept, and how it was measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from benchmarks.peers.smp import LIBRARY
from benchmarks.studies.ceilings import Ceilings
from benchmarks.studies.deeplab.ways import FREE, INFERENCE, OURS, PEER, TRAINING
from lungseg.system.machine import cuda_name
from lungseg.system.runtime import Runtime

AIM_BATCH = 8  # of the aims of prediction
TIMES = {  # by work, device and pixels a side: how many times the peer's images/s at least
    (TRAINING, "cpu", 128): 1.8,
    (TRAINING, "cpu", 256): 2.5,
    (INFERENCE, "cpu", 128): 2.3,
    (INFERENCE, "cpu", 256): 2.3,
    (TRAINING, "cuda", 512): 3.0,
    (INFERENCE, "cuda", 512): 3.0,
}
RATES = {(TRAINING, "cuda", 512): 700, (INFERENCE, "cuda", 512): 2500}  # images/s at least, on an H200
DEVICES = {"cpu": "the CPU", "cuda": "the GPU"}
TIMES_OURS = ("times ours", "times ours, lowest", "times ours, highest")


def verdicts(work: str, table: pd.DataFrame) -> list[str]:
    """Whether the aims of training or inference are kept, as far as they were measured.

    Args:
        work: TRAINING or INFERENCE.
        table: its rows, with all columns of `deeplab_speed.COLUMNS`.
    """
    found = []
    for rows, device, size, aim in _aims(TIMES, work, table):
        chosen = rows[rows["batch"] == AIM_BATCH] if work == INFERENCE else rows
        for _, row in chosen[chosen["times as fast"].notna()].iterrows():
            times, low, high = row["times as fast"], row["lowest"], row["highest"]
            found.append(
                f"Aim: {work} at {size} px on {DEVICES[device]}, batch {row['batch']:.0f}, with {aim:g} "
                f"times the peer's images/s at least: {times:.2f} times ({low:.2f} to {high:.2f}), "
                f"{_kept(times >= aim)}."
            )
    for rows, device, size, aim in _aims(RATES, work, table):
        if rows["images/s"].notna().any():
            best = rows["images/s"].max()
            found.append(
                f"Aim, set for an H200 in bfloat16: {work} at {size} px on {DEVICES[device]} with {aim} "
                f"images/s at least: {best:.0f}, {_kept(best >= aim)}."
            )
    return found


def _aims(aims: dict[tuple[str, str, int], Any], work: str, table: pd.DataFrame) -> Iterator[tuple]:
    """Our rows that an aim of this work is for, its device, its pixels a side, and the aim."""
    ours = table[table["way"] == OURS]
    for (kind, device, size), aim in aims.items():
        if kind == work:
            yield ours[(ours["device"] == device) & (ours["size"] == size)], device, size, aim


def _kept(kept: bool) -> str:
    return "kept" if kept else "missed"


def variants(work: str, table: pd.DataFrame) -> list[str]:
    """How our other ways compare with what the program does by default, a sentence each."""
    found = []
    for _, row in table[table["times ours"].notna()].iterrows():
        times, low, high = row[list(TIMES_OURS)]
        found.append(
            f'"{row["way"]}", {work} at {row["size"]:.0f} px on {DEVICES[row["device"]]}, batch '
            f'{row["batch"]:.0f}: {times:.2f} times as fast as "{OURS}" ({low:.2f} to {high:.2f}).'
        )
    return found


def training_notes(table: pd.DataFrame) -> list[str]:
    return [
        *verdicts(TRAINING, table),
        *variants(TRAINING, table),
        "A turn is one whole step on a batch that lies on the device. Ours: augmentation, forward, loss, "
        "backward, optimiser, running mean of the weights, and the loss read back. The peer's: zero_grad, "
        "forward, its Dice loss, backward, Adam, without augmentation.",
        f'"{OURS}" asks for deterministic algorithms, as this program does by default; "{FREE}" has '
        "torch.use_deterministic_algorithms(False) and torch.backends.cudnn.benchmark = True, the peer "
        "torch's own switches.",
        *TURNS,
    ]


def inference_notes(table: pd.DataFrame) -> list[str]:
    compiled = table["compile s"].notna().any()
    return [
        *verdicts(INFERENCE, table),
        *variants(INFERENCE, table),
        "A turn goes from a batch that lies on the device to its logits there. Ours: batch norms folded into "
        "convolutions, and a CUDA graph for batch 1 on a GPU. ms at batch 1 is the latency. All with torch's "
        "own switches, as a benchmark's timings have them.",
        *([COMPILE] if compiled else []),
        *TURNS,
    ]


COMPILE = (
    "compile s: the first call of torch.compile; less where its cache on disk has the code of a former run."
)
TURNS = [
    f"ms, p10 and p90 are the median and the percentiles of a whole batch. times as fast: the time of {PEER} "
    "over this one's, by the medians of turns A B, B A on the same images; the median of the turns, the "
    f'lowest and the highest. times ours: the same against "{OURS}". GFLOP an image: 2 a multiply-add of '
    f"convolutions, in training forward and backward; of {PEER} whole, of ours less the taps of dilated "
    "convolutions that are left out because they meet padding.",
    "peak MiB: each way in a process of its own, built and run twice; on a CPU the resident set of the whole "
    "process, of which MiB before was there already (libraries, and the batch), on a GPU what the allocator "
    "gave out. It isn't measured of a compiled network: the compiler's own memory would be in it.",
]


def floor_notes(ceilings: dict[str, Ceilings], runtimes: list[Runtime]) -> list[str]:
    """`ceilings`: by device, of those that have been measured."""
    return [
        *(
            f"Ceiling of {DEVICES[one.device.type]}, measured in this run: "
            f"{ceilings[one.device.type].gflops:.0f} GFLOP/s of a large matrix product in {one.precision}."
            for one in runtimes
            if one.device.type in ceilings
        ),
        "GFLOP: 2 a multiply-add of all convolutions of our network, of a whole batch; in training also of "
        "the gradients of weights and maps. floor ms is the time that they take at the ceiling. What was "
        "measured has augmentation, batch norms, resizing, the loss, the optimiser and all copies too. A "
        "convolution with fewer multiplications (Winograd's) could go below the floor.",
        f'measured ms is the median of "{OURS}".',
    ]


def about(topology: str, runtimes: list[Runtime], library: Any | None) -> list[str]:
    """What was compared, on what: the last notes of every table."""
    used = "; ".join(
        f"{one.precision}, channels {'last' if one.channels_last else 'first'} on {DEVICES[one.device.type]}"
        for one in runtimes
    )
    graphics = cuda_name() if any(one.device.type == "cuda" for one in runtimes) else None
    peer = []
    if library is not None:
        peer = [
            f"{PEER}: {LIBRARY} {library.__version__}, DeepLabV3Plus with the encoder resnet50 and one "
            "channel, float32 (on a GPU torch may use TF32 in convolutions, as it does by default), eager, "
            "channels first."
        ]
    return [
        f'Ours: DeepLabV3+ on a ResNet50, topology "{topology}"; {used}'
        f"{f'; the GPU is {graphics}' if graphics else ''}. {runtimes[0].threads} CPU threads.",
        *peer,
        "Images and masks are noise and weights random: no data is read, and the work is the same on any.",
    ]
