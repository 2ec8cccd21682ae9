"""Whether a training that is killed again and again ends with the bits of one that is not.

`python benchmarks/killed_training.py --kills 10`: trains a DeepLabV3+ on phantoms by the command line, once
in one go and once killed (SIGKILL) at random moments and started again with the same command, and compares
the stored weights and scores. Exit code 1 if they differ.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

from lungseg.approaches.networks.checkpoints import load_state

SPEC = """
name = "killed-training"
seeds = [0]
runtime = {{ device = "cpu", threads = 1 }}
[data]
dataset = "phantom"
count = 24
size = 64
[[approach]]
use = "deeplabv3plus-resnet50"
name = "network"
weights = "random"
size = {size}
epochs = {epochs}
batch_size = 4
network = {{ topology = "{topology}" }}
[timing]
enabled = false
"""
SPREAD = 1.0  # a kill comes after half the longest wait as a rule, and takes what wasn't stored yet with it
COMPARED = ("models/network/f0-s0/deeplabv3plus.safetensors", "parts/network/f0-s0/scores.csv")
FITTED = "parts/network/f0-s0/fit.json"
CHECKPOINT = "parts/network/f0-s0/checkpoints/last.pt"


def start(spec: Path, out: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "lungseg", "benchmark", str(spec), "--out", str(out)]
    # A group of its own, so that a kill meets all that it started. Its state is stored at every step: with a
    # minute between them these short epochs would only be cut at their ends.
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "LUNGSEG_CHECKPOINT_SECONDS": "0"},
    )


def finish(process: subprocess.Popen) -> None:
    _, words = process.communicate()
    if process.returncode:
        sys.exit(f"killed_training: the benchmark ended with {process.returncode}: {words.decode().strip()}")


def seconds_of_training(process: subprocess.Popen, out: Path) -> tuple[float, float]:
    """When the training of a run that has just been started begins and ends, in seconds from now."""
    begun = time.perf_counter()
    while process.poll() is None and not (out / CHECKPOINT).parent.exists():
        time.sleep(0.02)
    before = time.perf_counter() - begun
    while process.poll() is None and not (out / FITTED).exists():
        time.sleep(0.02)
    return before, time.perf_counter() - begun


def kill_once(spec: Path, out: Path, wait: float) -> str | None:
    """Starts the command and kills it after `wait` seconds; a sentence, or None if it was trained before."""
    process = start(spec, out)
    with suppress(subprocess.TimeoutExpired):
        process.wait(wait)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    if (out / FITTED).exists():
        return None
    return f"killed {wait:.2f} s after its start, {_reached(out)}"


def _reached(out: Path) -> str:
    """How far the stored state has come."""
    state = load_state(out / CHECKPOINT, torch.device("cpu"))
    if state is None:
        return "nothing stored yet"
    return f"stored: {state['epoch']} epochs and {state['step']} steps"


def digest(out: Path) -> dict[str, str]:
    return {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in COMPARED}


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--size", type=int, default=64, help="pixels a side")
    parser.add_argument("--topology", default="seed", choices=["standard", "smp", "seed"])
    longest = "seconds of training before a kill at most (default: such that the kills are spread over it)"
    parser.add_argument("--longest", type=float, help=longest)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    chosen = parser.parse_args(words)
    too_short = chosen.longest is not None and chosen.longest <= 0
    if min(chosen.kills, chosen.epochs) < 1 or chosen.size < 32 or too_short:
        parser.error("--kills and --epochs are at least 1, --size at least 32, --longest above 0")
    with tempfile.TemporaryDirectory(prefix="lungseg-killed-") as folder:
        return _compare(Path(folder), chosen)


def _compare(folder: Path, chosen: argparse.Namespace) -> int:
    spec = folder / "spec.toml"
    spec.write_text(SPEC.format(size=chosen.size, epochs=chosen.epochs, topology=chosen.topology))
    begun = time.perf_counter()
    process = start(spec, folder / "whole")
    before, after = seconds_of_training(process, folder / "whole")
    finish(process)
    took = time.perf_counter() - begun
    print(f"in one go: {took:.1f} s, of which {after - before:.1f} s were training", flush=True)
    longest = chosen.longest or SPREAD * (after - before) / chosen.kills
    rng, kills = random.Random(chosen.seed), 0
    while kills < chosen.kills:
        # Drawn from the training's own time: a kill while libraries are imported shows nothing.
        sentence = kill_once(spec, folder / "cut", before + rng.uniform(0, longest))
        if sentence is None:
            print(f"it was trained after {kills} kills: give more --epochs, or a shorter --longest")
            return 1
        kills += 1
        print(f"{kills}: {sentence}", flush=True)
    finish(start(spec, folder / "cut"))
    whole, cut = digest(folder / "whole"), digest(folder / "cut")
    for name in COMPARED:
        print(f"{name}: {'the same bits' if whole[name] == cut[name] else 'DIFFERENT'} ({cut[name][:12]})")
    return int(whole != cut)


if __name__ == "__main__":
    sys.exit(main())
