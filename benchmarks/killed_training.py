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
from pathlib import Path

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
COMPARED = ("models/network/f0-s0/deeplabv3plus.safetensors", "parts/network/f0-s0/scores.csv")
CHECKPOINT = "parts/network/f0-s0/checkpoints/last.pt"


def start(spec: Path, out: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "lungseg", "benchmark", str(spec), "--out", str(out)]
    # A group of its own, so that a kill meets all that it started.
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )


def finish(process: subprocess.Popen) -> None:
    _, words = process.communicate()
    if process.returncode:
        sys.exit(f"killed_training: the benchmark ended with {process.returncode}: {words.decode().strip()}")


def kill_once(spec: Path, out: Path, rng: random.Random, longest: float) -> str | None:
    """Starts the command and kills it; a sentence, or None if it was done before."""
    begun = (out / CHECKPOINT).exists()
    process = start(spec, out)
    while not begun and process.poll() is None and not (out / CHECKPOINT).parent.exists():
        time.sleep(0.02)  # the first moments are those of reading data: no training is there to be killed
    wait = rng.uniform(0, longest)
    try:
        process.wait(wait)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return f"killed {wait:.2f} s after its start, checkpoint {_age(out / CHECKPOINT)}"
    finish(process)
    return None


def _age(path: Path) -> str:
    return f"of {path.stat().st_size / 1e6:.0f} MB stored" if path.exists() else "not yet stored"


def digest(out: Path) -> dict[str, str]:
    return {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in COMPARED}


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--size", type=int, default=64, help="pixels a side")
    parser.add_argument("--topology", default="seed", choices=["standard", "smp", "seed"])
    parser.add_argument("--longest", type=float, default=8.0, help="seconds before a kill at most")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    chosen = parser.parse_args(words)
    if min(chosen.kills, chosen.epochs) < 1 or chosen.size < 32 or chosen.longest <= 0:
        parser.error("--kills and --epochs are at least 1, --size at least 32, --longest above 0")
    with tempfile.TemporaryDirectory(prefix="lungseg-killed-") as folder:
        return _compare(Path(folder), chosen)


def _compare(folder: Path, chosen: argparse.Namespace) -> int:
    spec = folder / "spec.toml"
    spec.write_text(SPEC.format(size=chosen.size, epochs=chosen.epochs, topology=chosen.topology))
    begun = time.perf_counter()
    finish(start(spec, folder / "whole"))
    print(f"in one go: {time.perf_counter() - begun:.1f} s", flush=True)
    rng, kills = random.Random(chosen.seed), 0
    while kills < chosen.kills:
        sentence = kill_once(spec, folder / "cut", rng, chosen.longest)
        if sentence is None:
            print(f"it was done after {kills} kills: give more --epochs, or a shorter --longest")
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
